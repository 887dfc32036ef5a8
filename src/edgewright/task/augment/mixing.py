"""The mixing of samples of a batch with each other, and of what is true of them in the same proportion."""

import math
import random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.core.tensors import leaves, mapped, rows


def mix(x: Any, y: Tensor, outputs: int, generator: torch.Generator, mixup: float, cutmix: float) -> tuple[Any, Tensor]:
    r"""Mix each image of a batch with another one, and their labels in the same proportion.

    mixup:  x' = l x + (1 - l) x[p],  y' = l y + (1 - l) y[p],  l ~ Beta(mixup, mixup), p a random permutation.
    cutmix: one rectangle of area 1 - l, l ~ Beta(cutmix, cutmix), centred anywhere, cut off at the border, comes from
    x[p]; l is then set to the share of pixels that stayed. With both above 0, one of them is tossed for each batch.
    Args:    x: (N, C, H, W) float, or a tree of such and of vectors, which cutmix mixes as mixup does.   y: (N,) int64.
             mixup, cutmix: >= 0; 0 turns it off.
    Returns: x of the same shape and soft labels (N, outputs) float32, rows sum to 1; x is not changed in place.
    Source:  Zhang et al., "mixup", ICLR 2018, arXiv:1710.09412; Yun et al., "CutMix", ICCV 2019, arXiv:1905.04899.
             Both with one l per batch, as their authors' code has it.
    """
    soft = functional.one_hot(y, outputs).to(torch.float32)
    if mixup <= 0 and cutmix <= 0:
        return x, soft
    draw = random.Random(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
    other = torch.randperm(rows(x), generator=generator, device=generator.device).to(y.device)
    if cutmix <= 0 or (mixup > 0 and draw.random() < 0.5):
        share = draw.betavariate(mixup, mixup)
        return mapped(lambda one: torch.lerp(one[other], one, share), x), torch.lerp(soft[other], soft, share)
    height, width = next(one.shape[-2:] for one in leaves(x) if one.ndim == 4)
    side = math.sqrt(1 - draw.betavariate(cutmix, cutmix))
    top, bottom = _interval(draw, side, height)
    left, right = _interval(draw, side, width)
    share = 1 - (bottom - top) * (right - left) / (height * width)

    def pasted(one: Tensor) -> Tensor:
        if one.ndim != 4:
            return torch.lerp(one[other], one, share)
        changed = one.clone()
        changed[:, :, top:bottom, left:right] = one[other, :, top:bottom, left:right]
        return changed

    return mapped(pasted, x), torch.lerp(soft[other], soft, share)


def _interval(draw: random.Random, share: float, length: int) -> tuple[int, int]:
    """A run of round(share * length) pixels centred on a random pixel, cut off at the ends."""
    size, centre = round(share * length), draw.randrange(length)
    start = centre - size // 2
    return max(0, start), max(0, min(length, start + size))
