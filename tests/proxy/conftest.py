"""Small networks with what makes scoring hard: batch norm, dropout, dead branches, in-place activations."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


class Small(nn.Module):
    """Non-square kernel counts, a residual link, dropout, an in-place ReLU and a convolution nothing reads."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(2, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.deep = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.BatchNorm2d(width)
        self.dead = nn.Conv2d(width, 3, 1)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + torch.relu(self.norm(self.deep(x)))
        self.dead(x)
        return self.head(self.drop(x.mean((2, 3))))


def _small(seed: int = 0, width: int = 6) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Small(width)


def _batches(count: int = 2, size: int = 5, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Inputs (size, 2, 9, 7), labels of 4 classes."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 2, 9, 7, generator=generator), torch.randint(0, 4, (size,), generator=generator))
        for _ in range(count)
    ]


@pytest.fixture
def small() -> Callable[..., nn.Module]:
    """small(seed=0, width=6): the network above, freshly initialised."""
    return _small


@pytest.fixture
def batches() -> Callable[..., list[tuple[Tensor, Tensor]]]:
    """batches(count=2, size=5, seed=0): fixed random inputs and labels."""
    return _batches
