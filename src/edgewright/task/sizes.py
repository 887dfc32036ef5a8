"""The size that maps are kept at, and what of an image of another shape is kept."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from edgewright.core.plan import LEAST_SIDE, MOST_SIDE
from edgewright.core.progress import say
from edgewright.core.tensors import Size, sides, size_text
from edgewright.task.base import resize

CHUNK = 1024  # samples converted to float at a time, so that a big array is never held twice
LARGEST_INFERRED = 224  # pixels, of the shorter side: larger only where it is asked for
FINE = 32  # pixels, of the shorter side: up to here it is kept exactly, above to a multiple of 8
ALIKE = 1.05  # images whose width over height differs by less have one aspect
MOST_ALIKE = 0.95  # share of the images that decides for all
WORTH_SAYING = 0.01  # share of an image that is cut off

Fit = Literal["crop", "whole"]


class Frame(NamedTuple):
    """What becomes of images: `size`, and whether an image of another aspect gives its central part or all of it."""

    size: Size
    fit: Fit


def frame_of(found: Sequence[Size], asked: int | Size | None, like: Size | None = None) -> Frame:
    """What becomes of images of these sizes, as it is asked for, or inferred; `like`: with the aspect of this.

    Where all share one aspect (within 5 %) and that is asked for, they are kept whole. Where nothing is asked, nearly
    all decide: their aspect, or the square where they have none in common. The shorter side is the median one, as it is
    from 8 to 32 px, else rounded to a multiple of 8, at most 224; the longer follows the aspect, at most 512. What is
    cut off is told.
    """
    ratios = [math.log(width / height) for height, width in found]
    middle = statistics.median(ratios)
    alike = [abs(ratio - middle) <= math.log(ALIKE) for ratio in ratios]
    oblong = abs(middle) > math.log(ALIKE) and sum(alike) >= MOST_ALIKE * len(found)
    aspect = like[1] / like[0] if like else math.exp(middle) if oblong else 1.0
    size = _inferred(found, aspect) if asked is None else sides(asked)
    near = abs(size[1] - size[0] * math.exp(middle)) <= max(1.0, (ALIKE - 1) * size[1])  # 1: whole pixels
    whole = oblong and all(alike) and near
    frame = Frame(size, "whole" if whole else "crop")
    _tell(frame, ratios)
    return frame


def _inferred(found: Sequence[Size], aspect: float) -> Size:
    """aspect: width over height."""
    median = statistics.median(min(size) for size in found)
    shorter = to_side(round(median) if median <= FINE else int(median / 8 + 0.5) * 8)
    times = max(aspect, 1 / aspect)
    longer = min(round(shorter * times), MOST_SIDE)
    shorter = max(LEAST_SIDE, min(shorter, round(longer / times)))
    return (shorter, longer) if aspect >= 1 else (longer, shorter)


def _tell(frame: Frame, ratios: Sequence[float]) -> None:
    if frame.fit == "whole":
        say(f"the images are oblong; they are kept whole, at {size_text(frame.size)}")
        return
    wanted = math.log(frame.size[1] / frame.size[0])
    cut = statistics.median(1 - math.exp(-abs(ratio - wanted)) for ratio in ratios)
    if cut >= WORTH_SAYING:
        say(
            f"of each image the central part is kept, at {size_text(frame.size)}; {100 * cut:.0f} % is cut off in the "
            "median (--resolution 48x64 keeps another height and width)"
        )


def to_side(shorter: int) -> int:
    """The side that images are kept at, by their shorter one: clipped to 8..224, and told where they are enlarged."""
    if shorter < LEAST_SIDE:
        say(
            f"the images are {shorter} px on their shorter side; they are enlarged to {LEAST_SIDE} px, the least there "
            "is"
        )
    return min(max(shorter, LEAST_SIDE), LARGEST_INFERRED)


def to_size(size: Size) -> Size:
    """The size that maps of this size are kept at: as they are, or both sides times what brings the shorter one into
    8..224 and the longer one to 512 at most, which is told."""
    shorter, longer = min(size), max(size)
    factor = min(to_side(shorter) / shorter, MOST_SIDE / longer)
    if factor == 1:
        return size
    height, width = (min(MOST_SIDE, max(LEAST_SIDE, round(side * factor))) for side in size)
    if factor < 1:
        say(f"the maps are {size_text(size)}; they are kept at {size_text((height, width))} (--resolution says other)")
    return height, width


def fit_size(images: Tensor, size: int | Size | None) -> Tensor:
    """Images (N, C, H, W) at `size`, or where none is given at their own (`to_size`).

    Antialiased bilinear; nothing is cut off. uint8 stays uint8.
    """
    wanted = to_size((images.shape[-2], images.shape[-1])) if size is None else sides(size)
    if tuple(images.shape[-2:]) == wanted:
        return images
    result = torch.empty((len(images), images.shape[1], *wanted), dtype=images.dtype)
    for source, target in zip(images.split(CHUNK), result.split(CHUNK), strict=True):
        x = resize(source.to(torch.float32), wanted)
        target.copy_(x.round().clamp(0, 255) if images.dtype == torch.uint8 else x)
    return result


def fit_answers(maps: Tensor, size: Size) -> Tensor:
    """(N, H, W) of class numbers at `size`: of each place the number that is nearest to its middle."""
    index = [
        ((torch.arange(wanted) + 0.5) * (side / wanted)).long()
        for side, wanted in zip(maps.shape[1:], size, strict=True)
    ]
    return maps if tuple(maps.shape[1:]) == size else maps[:, index[0]][:, :, index[1]]


class Box(NamedTuple):
    """A part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int


def central(size: Size, wanted: Size) -> Box:
    """The largest part in the middle of an image of `size` that has the shape of `wanted`."""
    height, width = size
    scale = min(height / wanted[0], width / wanted[1])
    down, across = min(height, round(wanted[0] * scale)), min(width, round(wanted[1] * scale))
    return Box((width - across) // 2, (height - down) // 2, across, down)
