"""A network as a stem and a head: parts in running order, and a head that reads some of their outputs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.core.tensors import TensorSpec, leaves
from edgewright.model.head import Head

SPREAD = 8  # channels that a vector among the inputs gets in the map


class Front(nn.Module):
    """Several inputs as one map: maps of one size one after the other along the channels, vectors spread over them.

    specs: of the inputs, (C, H, W) or (F,).   A vector is taken to 8 channels by a linear layer first.
    Input: a tensor for each spec.   Output: (B, channels, H, W).
    """

    def __init__(self, specs: Sequence[TensorSpec]) -> None:
        super().__init__()
        self.names = [spec.name for spec in specs]
        for spec in specs:
            if len(spec.shape) == 1:
                self.add_module(f"of_{spec.name}", nn.Linear(int(spec.shape[0] or 0), SPREAD))

    def forward(self, *inputs: Tensor) -> Tensor:
        sides = next(x.shape[2:] for x in inputs if x.ndim == 4)
        return torch.cat([self._map(name, x, sides) for name, x in zip(self.names, inputs, strict=True)], 1)

    def _map(self, name: str, x: Tensor, sides: Sequence[int]) -> Tensor:
        if x.ndim == 4:
            return x
        spread = self.get_submodule(f"of_{name}")(x)[:, :, None, None]
        return functional.interpolate(spread, size=list(sides), mode="nearest")


class Network(nn.Module):
    """Runs its parts one after the other and hands the head the outputs of those that it reads.

    parts: by name, in running order.   reads: names of the parts whose outputs the head takes, in its order.
    front: what makes one map of several inputs; None where there is one.
    Input: a tensor, or several by the names of `front`.   Output: the head's.
    """

    def __init__(
        self, parts: Mapping[str, nn.Module], head: nn.Module, reads: Sequence[str], front: Front | None = None
    ) -> None:
        super().__init__()
        self.names, self.reads = tuple(parts), tuple(reads)
        if front is not None:
            self.front = front
        for name, part in parts.items():
            self.add_module(name, part)
        self.head = head

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        x = self._joined(inputs, named)
        kept: dict[str, Tensor] = {}
        for name in self.names:
            x = self.get_submodule(name)(x)
            if name in self.reads:
                kept[name] = x
        return self.head(*(kept[name] for name in self.reads))

    def _joined(self, inputs: Sequence[Tensor], named: Mapping[str, Tensor]) -> Tensor:
        if not hasattr(self, "front"):
            return leaves(named)[0] if named else inputs[0]
        return self.front(*(inputs or [named[name] for name in self.front.names]))


def with_head(parts: Mapping[str, nn.Module], head: Head, channels: int, width: int = 0) -> Network:
    """A network whose head reads the last part only.   channels: that part's.   width: of the head's own layer."""
    return Network(parts, head.build((channels,), width), (list(parts)[-1],))
