"""Small networks with what makes scoring hard: batch norm, dropout, dead branches, in-place activations."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgewright.model.linked import Cell


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
        self.cells = (Cell(width=width, depth=4, links=9),)  # what NN-Degree reads

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + torch.relu(self.norm(self.deep(x)))
        self.dead(x)
        return self.head(self.drop(x.mean((2, 3))))


class Pre(nn.Module):
    """ReLU, convolution, batch norm; added to the input where the shapes agree."""

    def __init__(self, source: int, width: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(), nn.Conv2d(source, width, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(width)
        )
        self.adds = source == width and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x) + x if self.adds else self.op(x)


class Chain(nn.Module):
    """A stem, three blocks, a head, with the two extra methods that official codes call; the weights are fixed.

    Input: (B, 3, H, W).   Output: logits (B, 5).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8))
        self.body = nn.Sequential(Pre(8, 8, 3), Pre(8, 12, 3, 2), Pre(12, 12, 1))
        self.last = nn.Sequential(nn.BatchNorm2d(12), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(12, 5)
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.ndim > 1:
                    scale = (2 / parameter[0].numel()) ** 0.5
                    parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
            self.classifier.bias.zero_()

    def extract_cell_features(self, x: Tensor) -> list[Tensor]:
        features = [self.stem(x)]
        for block in self.body:
            features.append(block(features[-1]))
        return features

    def forward_pre_GAP(self, x: Tensor) -> Tensor:
        return self.last(self.body(self.stem(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.forward_pre_GAP(x)).flatten(1))


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


@pytest.fixture
def chain() -> nn.Module:
    """The chain of blocks above: the network on which official codes were run."""
    with torch.random.fork_rng():
        return Chain()


@pytest.fixture
def chain_batch() -> tuple[Tensor, Tensor]:
    """Inputs (6, 3, 12, 12) and labels of 5 classes: the batch on which official codes were run."""
    return torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 4, 2, 2, 1, 3])
