"""Heads: from the feature maps of a stem to what a kind of task asks for.

A stem is a chain of parts; the output of its last part, and of every part before the map gets smaller, is a *level*. A
head says which levels it reads, what it computes on them, as a graph for costs and as a module, and which of its layers
must be made anew when other outputs are wanted. So a space of stems serves every kind of task, and a kind every stem.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import nn

from edgewright.ir.graph import Graph

Shape = tuple[int, ...]  # of one level, without the batch: (C, H, W)


class Head(ABC):
    """Outputs of one kind of task. outputs: how many numbers it gives a sample, or a pixel."""

    outputs: int

    @abstractmethod
    def reads(self, levels: Sequence[Shape]) -> tuple[int, ...]:
        """Indices of the levels that it reads, in the order in which it takes them; the last level is the deepest."""

    @abstractmethod
    def graph(self, features: Sequence[Shape], width: int) -> Graph:
        """What it computes, with one input for each level that it reads.   width: of its own layer, 0 for none."""

    @abstractmethod
    def build(self, features: Sequence[int], width: int) -> nn.Module:
        """The module, from the channels of the levels that it reads; its forward takes one map for each."""

    @abstractmethod
    def find(self, network: nn.Module, example: Any) -> tuple[str, ...]:
        """Names of the layers of a network with such a head that belong to the outputs: what a new task makes anew.

        example: a batch of inputs.   Errors: BadInput for a network that ends in something else.
        """

    @abstractmethod
    def fresh(self, old: nn.Module) -> nn.Module:
        """A new layer, all zeros, in the place of one that `find` named, with this head's outputs."""
