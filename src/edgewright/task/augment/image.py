"""Augmentation of whole batches of raw images, and of maps that lie on them and move with them.

No loop over samples, no global randomness: everything is drawn from the generator that is given.
"""

import math
from dataclasses import dataclass

import torch
from pydantic import model_validator
from torch import Tensor
from torch.nn import functional

from edgewright.core.data import Frozen
from edgewright.core.tensors import Size


@dataclass(frozen=True, eq=False)
class Follow:
    """A map (N, H, W) of numbers that lies on the images; `fill` comes in from outside."""

    values: Tensor
    fill: float


class Augment(Frozen):
    """Random changes that keep the label. Call it: (images (N, C, H, W) raw, generator, resolution) -> raw images.

    Cropping, flipping and erasing keep type and size; rotation, zoom and `area` resample, so they give float32, and
    `area` gives images at `size` at once. What comes in from outside the image is `fill`.
    """

    pad: int = 0  # shift by up to this many whole pixels, both ways
    rotate: float = 0.0  # up to this many degrees, both ways
    zoom: float = 0.0  # scale by 1 - zoom to 1 + zoom
    area: tuple[float, float] | None = None  # random-resized-crop: share of the image's area that is kept
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # and the crop's width over height
    flip: bool = False
    erase: float = 0.0  # share of the images that lose a rectangle
    erase_area: tuple[float, float] = (0.02, 0.15)  # its share of the area
    fill: tuple[float, ...] = (0.0,)  # one value, or one per channel

    @model_validator(mode="after")
    def _one_geometry(self) -> "Augment":
        if self.area is not None and (self.pad or self.rotate or self.zoom):
            raise ValueError("area cannot be combined with pad, rotate or zoom")
        return self

    def __call__(self, images: Tensor, generator: torch.Generator, size: Size | None = None) -> Tensor:
        """The images changed; with `area` they come at `size`, else at their own."""
        return self.moved(images, generator, size)[0]

    def moved(
        self, images: Tensor, generator: torch.Generator, size: Size | None = None, follow: Follow | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The images, and what follows them: moved as they are, nothing of it interpolated."""
        with_them = None if follow is None else follow.values
        if self.area is not None:
            sides = size or (images.shape[-2], images.shape[-1])
            images, with_them = _resized_crop(images, generator, sides, self, follow)
        elif self.rotate or self.zoom:
            images, with_them = self._affine(images, generator, follow)
        elif self.pad or self.flip:
            index = _shifts(images, generator, self.pad, self.flip)
            images = _gathered(images, index, self.pad, self._fill(images))
            if follow is not None:
                fill = torch.tensor(follow.fill, dtype=follow.values.dtype).view(1, 1, 1)
                with_them = _gathered(follow.values.unsqueeze(1), index, self.pad, fill).squeeze(1)
        return (self._erase(images, generator) if self.erase else images), with_them

    def _fill(self, images: Tensor) -> Tensor:
        """(C or 1, 1, 1), of the images' type."""
        fill = torch.tensor(self.fill, device=images.device).view(-1, 1, 1)
        return fill.to(images.dtype) if images.is_floating_point() else fill.round().to(images.dtype)

    def _affine(
        self, images: Tensor, generator: torch.Generator, follow: Follow | None
    ) -> tuple[Tensor, Tensor | None]:
        count, _, height, width = images.shape
        draw = _uniform(5, count, generator) * 2 - 1
        angle, scale = draw[0] * math.radians(self.rotate), 1 / (1 + draw[1] * self.zoom)
        mirror = torch.where(draw[2] < 0, -1.0, 1.0) if self.flip else torch.ones_like(scale)
        across, down = draw[3] * (2 * self.pad / width), draw[4] * (2 * self.pad / height)
        cos, sin = angle.cos() * scale, angle.sin() * scale
        # The grid's units are half sides; the aspect keeps a rotation rigid where they differ.
        rows = (mirror * cos, -mirror * sin * height / width, across, sin * width / height, cos, down)
        grid = functional.affine_grid(torch.stack(rows, 1).view(count, 2, 3), list(images.shape), align_corners=False)
        fill = self._fill(images).float()
        x = functional.grid_sample(images.float() - fill, grid, padding_mode="zeros", align_corners=False)
        return x.add_(fill), None if follow is None else _sampled(follow, grid)

    def _erase(self, images: Tensor, generator: torch.Generator) -> Tensor:
        height, width = images.shape[-2:]
        draw = _uniform(5, len(images), generator)
        hit = (draw[0] < self.erase).nonzero().flatten()
        draw = draw[:, hit]
        low, high = self.erase_area
        area = low + (high - low) * draw[1]
        ratio = torch.exp((draw[2] * 2 - 1) * math.log(2))
        rows = _band((area / ratio).sqrt().clamp(max=1), draw[3], height).unsqueeze(2)
        columns = _band((area * ratio).sqrt().clamp(max=1), draw[4], width).unsqueeze(1)
        hole = (rows & columns).unsqueeze(1)
        # Products, because torch.where is six times slower on uint8.
        return images.index_copy(0, hit, images[hit] * ~hole + self._fill(images) * hole)


def _uniform(rows: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.rand((rows, count), generator=generator, device=generator.device)


def _band(share: Tensor, place: Tensor, length: int) -> Tensor:
    """(N, length) bool: for each image a run of round(share * length) places, somewhere whole inside."""
    size = (share * length).round().clamp(min=1)
    start = (place * (length - size + 1)).floor()
    at = torch.arange(length, device=share.device)
    return (at >= start.unsqueeze(1)) & (at < (start + size).unsqueeze(1))


def _shifts(images: Tensor, generator: torch.Generator, pad: int, flip: bool) -> Tensor:
    """(N, 1, H * W): for each pixel its place in the image with a border of `pad`, shifted and perhaps mirrored."""
    count, _, height, width = images.shape
    draw = _uniform(3, count, generator)
    shift = (draw[:2] * (2 * pad + 1)).long().unsqueeze(2)
    rows = shift[0] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(count, width)
    if flip:
        columns = torch.where((draw[2] < 0.5).unsqueeze(1), columns.flip(1), columns)
    columns = columns + shift[1]
    return (rows.unsqueeze(2) * (width + 2 * pad) + columns.unsqueeze(1)).view(count, 1, height * width)


def _gathered(images: Tensor, index: Tensor, pad: int, fill: Tensor) -> Tensor:
    """The pixels of the padded images at `index`: a shift by whole pixels and a flip, as one gather."""
    count, channels, height, width = images.shape
    padded = images
    if pad:
        wide = (count, channels, height + 2 * pad, width + 2 * pad)
        padded = fill.to(images.dtype).expand(wide).clone()
        padded[:, :, pad : pad + height, pad : pad + width] = images
    return padded.flatten(2).gather(2, index.expand(count, channels, -1)).view(images.shape)


def _sampled(follow: Follow, grid: Tensor) -> Tensor:
    """The nearest of the map's values at each place of the grid."""
    x = follow.values.float().unsqueeze(1) - follow.fill
    x = functional.grid_sample(x, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return (x.squeeze(1) + follow.fill).to(follow.values.dtype)


def _resized_crop(
    images: Tensor, generator: torch.Generator, size: Size, how: Augment, follow: Follow | None
) -> tuple[Tensor, Tensor | None]:
    """A random part of each image at `size`: y = R x C^T, antialiased bilinear weights in R and C."""
    assert how.area is not None
    count, _, height, width = images.shape
    draw = _uniform(5, count, generator)
    share = how.area[0] + (how.area[1] - how.area[0]) * draw[0]
    low, high = math.log(how.ratio[0]), math.log(how.ratio[1])
    aspect = torch.exp(low + (high - low) * draw[1])
    tall = ((share * height * width / aspect).sqrt()).clamp(1, height)
    wide = ((share * height * width * aspect).sqrt()).clamp(1, width)
    top, left = draw[2] * (height - tall), draw[3] * (width - wide)
    rows = _weights(top, tall, height, size[0])
    columns = _weights(left, wide, width, size[1])
    mirrored = draw[4] < 0.5 if how.flip else torch.zeros(count, dtype=torch.bool, device=images.device)
    columns = torch.where(mirrored.view(-1, 1, 1), columns.flip(1), columns)
    narrow = torch.bmm(images.float().flatten(1, 2), columns.transpose(1, 2))
    x = rows.unsqueeze(1) @ narrow.view(count, -1, height, size[1])
    if follow is None:
        return x, None
    across = _nearest(left, wide, width, size[1])
    across = torch.where(mirrored.view(-1, 1), across.flip(1), across)
    down = _nearest(top, tall, height, size[0])
    moved = follow.values[torch.arange(count).view(-1, 1, 1), down.unsqueeze(2), across.unsqueeze(1)]
    return x, moved


def _nearest(start: Tensor, length: Tensor, size: int, side: int) -> Tensor:
    """(N, side) int64: the pixel that each output pixel's centre lies in."""
    steps = torch.arange(side, device=start.device) + 0.5
    return (start.unsqueeze(1) + steps * (length / side).unsqueeze(1)).long().clamp(0, size - 1)


def _weights(start: Tensor, length: Tensor, size: int, side: int) -> Tensor:
    """(N, side, size): triangle filters, as wide as an output pixel (at least one input pixel), each summing to 1."""
    step = (length / side).view(-1, 1, 1)
    steps = torch.arange(side, device=start.device).view(1, -1, 1) + 0.5
    centre = start.view(-1, 1, 1) + steps * step
    at = torch.arange(size, device=start.device).view(1, 1, -1) + 0.5
    weights = (1 - (at - centre).abs() / step.clamp(min=1)).clamp_(min=0)
    return weights.div_(weights.sum(2, keepdim=True))
