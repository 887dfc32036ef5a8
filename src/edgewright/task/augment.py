"""Augmentation of whole batches of raw images, and the mixing of images with their labels.

No loop over samples, no global randomness: everything is drawn from the generator that is given.
"""

import math
import random

import torch
from pydantic import model_validator
from torch.nn import functional

from edgewright.core.data import Frozen
from edgewright.task.base import TaskSpec


class Augment(Frozen):
    """Random changes that keep the label. Call it: (images (N, C, H, W) raw, generator, resolution) -> raw images.

    Cropping, flipping and erasing keep type and size; rotation, zoom and `area` resample, so they give float32, and
    `area` gives images at `resolution` at once. What comes in from outside the image is `fill`.
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

    def __call__(self, images: torch.Tensor, generator: torch.Generator, resolution: int | None = None) -> torch.Tensor:
        if self.area is not None:
            images = _resized_crop(images, generator, resolution or images.shape[-1], self.area, self.ratio, self.flip)
        elif self.rotate or self.zoom:
            images = self._affine(images, generator)
        elif self.pad or self.flip:
            images = _crop(images, generator, self.pad, self.flip, self._fill(images))
        return self._erase(images, generator) if self.erase else images

    def _fill(self, images: torch.Tensor) -> torch.Tensor:
        """(C or 1, 1, 1), of the images' type."""
        fill = torch.tensor(self.fill, device=images.device).view(-1, 1, 1)
        return fill.to(images.dtype) if images.is_floating_point() else fill.round().to(images.dtype)

    def _affine(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
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
        return x.add_(fill)

    def _erase(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
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


def default_augment(spec: TaskSpec) -> Augment:
    """What suits the task when nobody says otherwise; flips only where the task allows them.

    Tiny or one-channel signs: shift (1 px at 8 px), up to 10 degrees, 10 % zoom. Up to 64 px: shift by an eighth of the
    side (4 px at 32), flip, a small rectangle erased in a quarter of the images. Larger: random-resized-crop and flip.
    """
    fill = tuple(spec.mean)
    if spec.resolution <= 16 or (spec.channels == 1 and not spec.flip and spec.resolution <= 64):
        return Augment(pad=max(1, round(spec.resolution / 14)), rotate=10, zoom=0.1, flip=spec.flip)
    if spec.resolution <= 64:
        return Augment(pad=round(spec.resolution / 8), flip=spec.flip, erase=0.25, fill=fill)
    return Augment(area=(0.35, 1.0), flip=spec.flip, fill=fill)


def mix(
    x: torch.Tensor, y: torch.Tensor, num_classes: int, generator: torch.Generator, mixup: float, cutmix: float
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Mix each image of a batch with another one, and their labels in the same proportion.

    mixup:  x' = l x + (1 - l) x[p],  y' = l y + (1 - l) y[p],  l ~ Beta(mixup, mixup), p a random permutation.
    cutmix: one rectangle of area 1 - l, l ~ Beta(cutmix, cutmix), centred anywhere, cut off at the border, comes from
    x[p]; l is then set to the share of pixels that stayed. With both above 0, one of them is tossed for each batch.
    Args:    x: (N, C, H, W) float.   y: (N,) int64.   mixup, cutmix: >= 0; 0 turns it off.
    Returns: x of the same shape and soft labels (N, num_classes) float32, rows sum to 1; x is not changed in place.
    Source:  Zhang et al., "mixup", ICLR 2018, arXiv:1710.09412; Yun et al., "CutMix", ICCV 2019, arXiv:1905.04899.
             Both with one l per batch, as their authors' code has it.
    """
    soft = functional.one_hot(y, num_classes).to(torch.float32)
    if mixup <= 0 and cutmix <= 0:
        return x, soft
    draw = random.Random(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
    other = torch.randperm(len(x), generator=generator, device=generator.device).to(x.device)
    if cutmix <= 0 or (mixup > 0 and draw.random() < 0.5):
        share = draw.betavariate(mixup, mixup)
        return torch.lerp(x[other], x, share), torch.lerp(soft[other], soft, share)
    height, width = x.shape[-2:]
    side = math.sqrt(1 - draw.betavariate(cutmix, cutmix))
    top, bottom = _interval(draw, side, height)
    left, right = _interval(draw, side, width)
    x = x.clone()
    x[:, :, top:bottom, left:right] = x[other, :, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return x, torch.lerp(soft[other], soft, share)


def _interval(draw: random.Random, share: float, length: int) -> tuple[int, int]:
    """A run of round(share * length) pixels centred on a random pixel, cut off at the ends."""
    size, centre = round(share * length), draw.randrange(length)
    start = centre - size // 2
    return max(0, start), max(0, min(length, start + size))


def _uniform(rows: int, count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand((rows, count), generator=generator, device=generator.device)


def _band(share: torch.Tensor, place: torch.Tensor, length: int) -> torch.Tensor:
    """(N, length) bool: for each image a run of round(share * length) places, somewhere whole inside."""
    size = (share * length).round().clamp(min=1)
    start = (place * (length - size + 1)).floor()
    at = torch.arange(length, device=share.device)
    return (at >= start.unsqueeze(1)) & (at < (start + size).unsqueeze(1))


def _crop(images: torch.Tensor, generator: torch.Generator, pad: int, flip: bool, fill: torch.Tensor) -> torch.Tensor:
    """Shift by whole pixels and flip, as one gather from the padded images."""
    count, channels, height, width = images.shape
    padded = images
    if pad:
        wide = (count, channels, height + 2 * pad, width + 2 * pad)
        padded = fill.to(images.dtype).expand(wide).clone()
        padded[:, :, pad : pad + height, pad : pad + width] = images
    draw = _uniform(3, count, generator)
    shift = (draw[:2] * (2 * pad + 1)).long().unsqueeze(2)
    rows = shift[0] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(count, width)
    if flip:
        columns = torch.where((draw[2] < 0.5).unsqueeze(1), columns.flip(1), columns)
    columns = columns + shift[1]
    index = (rows.unsqueeze(2) * (width + 2 * pad) + columns.unsqueeze(1)).view(count, 1, height * width)
    return padded.flatten(2).gather(2, index.expand(count, channels, -1)).view(images.shape)


def _resized_crop(
    images: torch.Tensor,
    generator: torch.Generator,
    side: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
    flip: bool,
) -> torch.Tensor:
    """A random part of each image at (side, side): y = R x C^T, antialiased bilinear weights in R and C."""
    count, _, height, width = images.shape
    draw = _uniform(5, count, generator)
    share = area[0] + (area[1] - area[0]) * draw[0]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * draw[1])
    tall = ((share * height * width / aspect).sqrt()).clamp(1, height)
    wide = ((share * height * width * aspect).sqrt()).clamp(1, width)
    rows = _weights(draw[2] * (height - tall), tall, height, side)
    columns = _weights(draw[3] * (width - wide), wide, width, side)
    if flip:
        columns = torch.where((draw[4] < 0.5).view(-1, 1, 1), columns.flip(1), columns)
    narrow = torch.bmm(images.float().flatten(1, 2), columns.transpose(1, 2))
    return rows.unsqueeze(1) @ narrow.view(count, -1, height, side)


def _weights(start: torch.Tensor, length: torch.Tensor, size: int, side: int) -> torch.Tensor:
    """(N, side, size): triangle filters, as wide as an output pixel (at least one input pixel), each summing to 1."""
    step = (length / side).view(-1, 1, 1)
    steps = torch.arange(side, device=start.device).view(1, -1, 1) + 0.5
    centre = start.view(-1, 1, 1) + steps * step
    at = torch.arange(size, device=start.device).view(1, 1, -1) + 0.5
    weights = (1 - (at - centre).abs() / step.clamp(min=1)).clamp_(min=0)
    return weights.div_(weights.sum(2, keepdim=True))
