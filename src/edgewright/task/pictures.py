"""What a kind of task shows of a network's answers: pictures as data, which a report draws without knowing the kind."""

import base64
import io
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from edgewright.core.data import Frozen

LARGEST = 112  # side in pixels; larger images are shrunk


class Matrix(Frozen):
    """How often each of `names` (rows, the truth) was taken for each other (columns)."""

    picture: Literal["matrix"] = "matrix"
    title: str
    lead: str
    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class Shown(Frozen):
    """One image, as a data URI, what was said of it and what is true. small: whether it is shown
    enlarged.   wide: whether it is several beside each other."""

    image: str
    said: str
    truth: str = ""
    small: bool = False
    wide: bool = False


class Gallery(Frozen):
    """Some samples beside each other."""

    picture: Literal["gallery"] = "gallery"
    title: str
    lead: str
    items: tuple[Shown, ...]


class Bars(Frozen):
    """A figure for each of `names`."""

    picture: Literal["bars"] = "bars"
    title: str
    lead: str
    names: tuple[str, ...]
    values: tuple[float, ...]
    unit: str = "%"


Picture = Annotated[Matrix | Gallery | Bars, Field(discriminator="picture")]


class Pictures(Frozen):
    """All that a kind shows, in order."""

    pictures: tuple[Picture, ...] = ()


def data_uri(image: Tensor, white: float = 255.0, largest: int = LARGEST) -> str:
    """A stored image (C, H, W) as a PNG in a data: URI. `white`: the value of a white pixel; 0 where it is unknown, and
    then the image's own range is stretched. With a number of channels no picture has, the first one is shown."""
    values = image.to(torch.float32)
    if white > 0:
        values = values * (255 / white)
    else:
        low, high = values.min(), values.max()
        values = (values - low) * (255 / (high - low).clamp(min=1e-12))
    pixels = values.round().clamp(0, 255).to(torch.uint8).numpy()
    shown = pixels[:3].transpose(1, 2, 0) if len(pixels) in (3, 4) else pixels[0]
    picture = Image.fromarray(np.ascontiguousarray(shown))
    if max(picture.size) > largest:
        picture.thumbnail((largest, largest))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def overlaid(image: Tensor, mask: Tensor | None, colours: Sequence[tuple[int, int, int]], white: float) -> Tensor:
    """An image (C, H, W) as (3, H, W) uint8, with the classes of a mask (H, W) from 1 on laid over it in colours."""
    low, high = (0.0, white) if white else (float(image.min()), float(image.max()))
    gray = ((image.float() - low) / max(high - low, 1e-12) * 255).clamp(0, 255)
    base = gray[:3] if len(gray) >= 3 else gray[:1].expand(3, -1, -1)
    if mask is None:
        return base.round().to(torch.uint8)
    chosen = torch.tensor(colours)[mask.long() % len(colours)].movedim(-1, 0).float()
    covered = ((mask > 0) & (mask < 255)).unsqueeze(0)
    return torch.where(covered, 0.5 * base + 0.5 * chosen, base).round().to(torch.uint8)
