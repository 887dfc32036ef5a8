"""The networks and the data that `adapt_accuracy.py` adapts: what shipped, and the images that it meets afterwards."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from edgewright.core.npz import read_npz

CIFAR_MEAN, CIFAR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as the shared ResNet-20 was trained


class Block(nn.Module):
    """Two 3x3 convolutions; where the sides halve, the shortcut takes every second pixel and pads channels with zeros
    (option A of He et al., arXiv:1512.03385)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.stride, self.pad = stride, (width - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return self.relu2(y + x)


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR-10, with the names of the shared weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def resnet20(weights: Path) -> nn.Module:
    model = ResNet20()
    model.load_state_dict(load_file(weights), strict=False)  # without counts of batches
    return model


def efficientnet_lite0(weights: Path) -> nn.Module:
    """timm's tf_efficientnet_lite0 with a new head for ten classes."""
    import timm  # pyright: ignore[reportMissingImports]

    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict({name: value.float() for name, value in load_file(weights).items()}, strict=False)
    model.classifier = nn.Linear(model.classifier.in_features, 10)
    return model


@dataclass(frozen=True)
class Adaptation:
    """A network and what it is to learn.   pixels: side of the images.   head: name of its classifier.   new_head: it
    is made anew from the seed.   prepare: raw images (uint8, channels last) -> images as they are kept (uint8)."""

    build: Callable[[Path], nn.Module]
    head: str
    new_head: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    prepare: Callable[[np.ndarray, int], np.ndarray]

    def input(self, images: np.ndarray) -> Tensor:
        """A normalised batch, channels last in memory."""
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        return (x - torch.tensor(self.mean).view(-1, 1, 1)) / torch.tensor(self.std).view(-1, 1, 1)


def enlarged(images: np.ndarray, pixels: int = 96) -> np.ndarray:
    """Bicubic, to 96 pixels."""
    parts = []
    for start in range(0, len(images), 500):
        x = torch.from_numpy(images[start : start + 500]).permute(0, 3, 1, 2).float()
        x = functional.interpolate(x, size=(pixels, pixels), mode="bicubic", align_corners=False)
        parts.append(x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy())
    return np.concatenate(parts)


def shifted(images: np.ndarray, first: int) -> np.ndarray:
    """A cheap camera at dusk: blurred (Gaussian, sigma 0.6 pixels), 0.7 times as bright, then noise (sigma 0.04 of
    white). `first`: number of the first image; an image's noise depends on its number alone."""
    reach = torch.arange(-2, 3).float()
    kernel = torch.exp(-0.5 * (reach / 0.6) ** 2)
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    parts = []
    for start in range(0, len(images), 500):
        x = torch.from_numpy(images[start : start + 500]).permute(0, 3, 1, 2).float() / 255
        x = functional.conv2d(functional.pad(x, (2, 2, 2, 2), mode="reflect"), kernel.expand(3, 1, 5, 5), groups=3)
        generator = torch.Generator().manual_seed(first + start)
        x = 0.7 * x + 0.04 * torch.randn(x.shape, generator=generator)
        parts.append((255 * x).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy())
    return np.concatenate(parts)


def unchanged(images: np.ndarray, _: int) -> np.ndarray:
    return images


ADAPTATIONS = {
    "efficientnet_lite0": Adaptation(
        efficientnet_lite0, "classifier", True, (0.5,) * 3, (0.5,) * 3, lambda images, _: enlarged(images)
    ),
    "resnet20": Adaptation(resnet20, "linear", False, CIFAR_MEAN, CIFAR_STD, shifted),
}

Part = tuple[np.ndarray, Tensor]


def parts_of(data: Path, adaptation: Adaptation, images: int, vals: int, tests: int, cache: Path) -> dict[str, Part]:
    """train, val (the training images after those) and test: prepared images, which are kept in `cache`, and labels."""
    whole = read_npz(data)
    rows = {
        "train": ("train", slice(0, images)),
        "val": ("train", slice(images, images + vals)),
        "test": ("test", slice(0, tests)),
    }
    found = {}
    for name, (source, part) in rows.items():
        path = cache / f"{name}-{part.start}-{part.stop}.npy"
        if not path.exists():
            first = 1_000_000 * (source == "test") + part.start
            np.save(path, adaptation.prepare(whole[f"x_{source}"][part], first))
        found[name] = np.load(path, mmap_mode="r"), torch.from_numpy(whole[f"y_{source}"][part])
    return found
