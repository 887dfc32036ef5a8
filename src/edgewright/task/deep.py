"""Images of more than 8 bits a channel: their numbers as they are, and as bytes.

    byte = floor(256 v / (white + 1)),   white = 2^bits - 1,   bits the least, from 8 on, that hold the largest v

Files of 16 bits often hold fewer: microscopes and cameras write 10, 12 or 14 of them. Which it is shows in the largest
value of all the images that belong together, never in one of them, so `white` belongs to the task. Of 16 bits it is the
upper byte that is kept. Where numbers have fractions and none is above 1, white is 1 (byte = floor(255 v)).

Pillow gives gray images of 16 bits as they are (modes "I;16", "I", "F") and of coloured ones the upper byte alone: the
lower one is what it gives where the file is said to be of the other byte order.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps

WHITE = 65535.0  # where nothing shows that it is another
OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
COLOURED = {
    f"{mode};16{order}": f"{mode};16{other}" for mode in ("RGB", "RGBA") for order, other in OTHER_ORDER.items()
}


class Span(NamedTuple):
    """Least and largest value of an image's channels, transparency aside; whether any has a fraction."""

    least: float
    largest: float
    fractions: bool


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an image that was opened holds more than 8 bits a channel that can be had."""
    return image.mode[0] in "IF" or _raw_mode(image) in COLOURED


def numbers(path: Path, formats: Sequence[str]) -> np.ndarray:
    """(H, W) or (H, W, 3 or 4), as the file holds them, turned as it is shown; what is not a number is 0."""
    with Image.open(path, formats=list(formats)) as image:
        other = COLOURED.get(_raw_mode(image))
        found = np.asarray(_upright(image))
    if other is None:
        return np.nan_to_num(found) if found.dtype.kind == "f" else found
    with Image.open(path, formats=list(formats)) as image:
        image.tile = [tile._replace(args=_with_raw_mode(tile.args, other)) for tile in image.tile]
        lower = np.asarray(_upright(image))
    return found.astype(np.uint16) << 8 | lower


def span(path: Path, formats: Sequence[str]) -> Span:
    """What the image holds."""
    found = numbers(path, formats)
    found = found[..., :3] if found.ndim == 3 else found
    return Span(float(found.min()), float(found.max()), found.dtype.kind == "f" and bool((found % 1).any()))


def white_of(spans: Sequence[Span]) -> float:
    """The white of images that belong together."""
    top = max(one.largest for one in spans)
    if top <= 1 and any(one.fractions for one in spans):
        return 1.0
    return float(2 ** max(8, int(top).bit_length()) - 1)


def in_bytes(found: np.ndarray, white: float) -> Image.Image:
    """The `numbers` of an image as one of 8 bits a channel."""
    values = found.astype(np.float32) * np.float32(255 if white == 1 else 256 / (white + 1))
    if found.shape[2:] == (4,):
        values[..., 3] = found[..., 3] / 256  # transparency is of all 16 bits, whatever the colours are
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _upright(image: ImageFile.ImageFile) -> Image.Image:
    image.load()
    return ImageOps.exif_transpose(image)


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How the file's bytes are laid out, in Pillow's words; "" where it does not say."""
    args = image.tile[0].args if image.tile else ()
    first = args if isinstance(args, str) else next(iter(args or ()), "")
    return first if isinstance(first, str) else ""


def _with_raw_mode(args: "str | tuple[object, ...] | None", mode: str) -> "str | tuple[object, ...]":
    return mode if isinstance(args, str) or not args else (mode, *args[1:])
