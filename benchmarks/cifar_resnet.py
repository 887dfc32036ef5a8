"""The residual networks for CIFAR-10 that several benchmarks take, trained; with the names of the shared weights."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from edgewright.task.base import Task

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of white, as the shared ones were trained


class Block(nn.Module):
    """Two 3x3 convolutions; where the sides halve, the shortcut takes every second pixel and pads channels with zeros
    (option A of He et al., arXiv:1512.03385). convolved: as a 1x1 convolution of ones and zeros, the same function."""

    def __init__(self, source: int, width: int, stride: int, convolved: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(source, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.stride, self.pad = stride, (width - source) // 2
        self.shortcut: nn.Module | None = None
        if convolved and stride > 1:
            self.shortcut = nn.Conv2d(source, width, 1, stride, bias=False)
            weight = torch.zeros(width, source, 1, 1)
            weight[torch.arange(source) + self.pad, torch.arange(source)] = 1
            self.shortcut.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.stride > 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return self.relu2(y + x)


def stage(source: int, width: int, stride: int, blocks: int, convolved: bool) -> nn.Sequential:
    """Blocks of one width; the first one takes the stride."""
    first = Block(source, width, stride, convolved)
    return nn.Sequential(first, *[Block(width, width, 1, convolved) for _ in range(blocks - 1)])


class ResNet(nn.Module):
    """ResNet of 6 x blocks + 2 layers."""

    def __init__(self, blocks: int, convolved: bool) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        self.layer1 = stage(16, 16, 1, blocks, convolved)
        self.layer2 = stage(16, 32, 2, blocks, convolved)
        self.layer3 = stage(32, 64, 2, blocks, convolved)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def trained(depth: int, weights: Path, *, convolved: bool = False) -> nn.Module:
    """The network of 6n + 2 layers with its weights, for inference."""
    model = ResNet((depth - 2) // 6, convolved)
    model.load_state_dict(load_file(weights), strict=False)  # without counts of batches and shortcuts
    return model.eval()


def as_expected(task: Task) -> Task:
    """CIFAR-10, to be normalised as the weights expect it."""
    white = task.spec.input.white
    mean, std = (tuple(white * value for value in values) for values in (MEAN, STD))
    only = task.spec.input.model_copy(update={"mean": mean, "std": std})
    return replace(task, spec=task.spec.model_copy(update={"inputs": (only,)}))
