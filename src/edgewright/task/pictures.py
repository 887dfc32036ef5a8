"""What a kind of task shows of a network's answers: pictures as data, which a report draws without knowing the kind."""

import base64
import io
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
    """One image, as a data URI, what was said of it and what is true. small: whether it is shown enlarged."""

    image: str
    said: str
    truth: str = ""
    small: bool = False


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


def data_uri(image: Tensor, white: float = 255.0) -> str:
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
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
