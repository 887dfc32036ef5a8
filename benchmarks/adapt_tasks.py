"""The networks and the data that `adapt_accuracy.py` adapts: what shipped, and the images that it meets afterwards."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cifar_resnet
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from edgewright.core.npz import read_npz


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
    "resnet20": Adaptation(
        partial(cifar_resnet.trained, 20), "linear", False, cifar_resnet.MEAN, cifar_resnet.STD, shifted
    ),
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
