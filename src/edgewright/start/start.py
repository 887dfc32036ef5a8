"""A network that has learned, and what must be known of it to go on from there."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput

# Words of licences that forbid commercial use, and names of those whose name does not say so.
FORBIDDING = ("-nc", "non-commercial", "noncommercial", "research only", "apple-amlr", "seer-license")


class Start(Frozen):
    """A start, as it is written down.

    source: as people call it: "timm:resnet18", a run's folder.   weights: the file with its weights, None for those
    that are fresh.   sha256: of that file, "" without one.   licence, trained_on: as its source says, "" where it does
    not.
    channels, size: of the maps that it took.   mean, std: by which these were normalised, for a white of 1; pixels:
    False where there is no white, and they are in the data's own units.
    interpolation, crop: how they were made from photographs, where that is known.
    """

    source: str
    weights: str | None = None
    sha256: str = ""
    licence: str = ""
    trained_on: str = ""
    channels: int = 3
    size: int = 224
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    pixels: bool = True
    interpolation: str = ""
    crop: float | None = None

    @property
    def digest(self) -> str:
        """Short, equal for equal weights: what an architecture names its start by."""
        return self.sha256[:12] or "fresh"

    @property
    def commercial(self) -> bool:
        """False where the licence that is told forbids commercial use."""
        told = self.licence.lower()
        return not any(word in told for word in FORBIDDING)

    @property
    def name(self) -> str:
        """Short, for lists: the network's, or the folder's."""
        return self.source.rsplit("/", 1)[-1].rpartition(":")[2]

    @property
    def input(self) -> str:
        """What it takes, channels x height x width: "3x224x224"."""
        return f"{self.channels}x{self.size}x{self.size}"


@dataclass(frozen=True)
class Opened:
    """A start with its network; `make` gives another of the same structure with fresh weights, for the meta device."""

    start: Start
    network: nn.Module
    make: Callable[[], nn.Module]


class Rescale(nn.Module):
    """y = factor x + shift, by channel: from one normalisation to another; it does not learn."""

    factor: torch.Tensor
    shift: torch.Tensor

    def __init__(self, factor: torch.Tensor, shift: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor.view(1, -1, 1, 1))
        self.register_buffer("shift", shift.view(1, -1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor + self.shift


def with_channels(network: nn.Module, channels: int) -> nn.Module:
    """A copy whose first convolution reads so many channels: grey in place of colour is the colour whose channels are
    alike (its weights summed), colour in place of grey the mean of its channels.

    Errors: BadInput for other counts."""
    first = next(((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None or first[1].in_channels == channels:
        return network
    name, layer = first
    if {layer.in_channels, channels} != {1, 3} or layer.groups != 1:
        raise BadInput(f"the start takes maps of {layer.in_channels} channels, and the task's have {channels}")
    network = copy.deepcopy(network)
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Conv2d)
    weight = layer.weight.detach()
    made = weight.sum(1, keepdim=True) if channels == 1 else weight.expand(-1, 3, -1, -1) / 3
    layer.weight, layer.in_channels = nn.Parameter(made.clone()), channels
    return network
