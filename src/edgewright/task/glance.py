"""What is seen of a sample at a glance: its map shrunk to a few pixels, for questions that are asked before anything is
trained."""

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.core.seed import derive

SIDE = 12  # pixels


def glance(maps: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(n, C, 12, 12) float32 of at most `count` of the maps (N, C, H, W), drawn; and which ones."""
    drawn = torch.randperm(len(maps), generator=torch.Generator().manual_seed(derive(0, "glance")))[:count]
    small = [functional.adaptive_avg_pool2d(maps[rows].float(), SIDE) for rows in drawn.split(1000)]
    return torch.cat(small) if small else maps.new_zeros((0, maps.shape[1], SIDE, SIDE)).float(), drawn
