"""Spaces: what may be built, as data that can be sampled, changed, costed and only then built.

The law: an architecture is an immutable value; `sample`, `mutate` and `crossover` give valid ones and draw from the
`random.Random` they are handed and from nothing else; `blocks` says what it computes, as graphs without weights, so
that every cost follows without building; `build` makes the torch module, whose parts have the names of the blocks.

Published spaces as members of `mobile`: MobileNetV2 and MnasNet (inverted blocks; kernel, expansion, width, depth and
squeeze-excite per stage), MobileNetV3 (plus squeeze-excite), Once-for-All and FBNet (their elastic kernel 3/5/7, depth
and expansion), EfficientNetV2 (fused blocks early, inverted late), MobileNetV1 (separable), ResNet (basic).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random
from typing import Any, ClassVar

from torch import nn

from edgewright.core.architecture import Architecture
from edgewright.core.graph import Graph, chain


class Space(ABC):
    """Made for one task by `make_space(name, spec)`; see the law above."""

    name: ClassVar[str]
    source: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def __init__(self, channels: int, classes: int, resolution: int) -> None: ...

    @abstractmethod
    def sample(self, rng: Random) -> Architecture:
        """A random architecture; small and large ones are about equally likely."""

    @abstractmethod
    def mutate(self, architecture: Any, rng: Random) -> Architecture:
        """A different architecture, one or a few choices away."""

    @abstractmethod
    def crossover(self, first: Any, second: Any, rng: Random) -> Architecture:
        """An architecture that takes each choice from one of its two parents."""

    @abstractmethod
    def blocks(self, architecture: Any) -> tuple[tuple[str, Graph], ...]:
        """The named blocks in running order; each one's output is the next one's input."""

    @abstractmethod
    def build(self, architecture: Any) -> nn.Module:
        """The network, with fresh weights from torch's global random state."""

    @abstractmethod
    def read(self, data: dict[str, Any]) -> Architecture:
        """An architecture from its JSON data; BadInput where it is not one of this space."""

    @abstractmethod
    def smallest(self) -> Architecture:
        """The cheapest architecture there is."""

    @abstractmethod
    def describe(self, architecture: Any) -> str:
        """The architecture in a few short lines for a person."""

    def choices(self) -> tuple[int, ...]:
        """How many choices each position of the integer encoding has; empty where the space offers no encoding.

        A space that offers one decodes every vector with 0 <= vector[i] < choices()[i] to an architecture, and
        `decode(encode(a)) == a`. Several vectors may give one architecture.
        """
        return ()

    def encode(self, architecture: Any) -> tuple[int, ...]:
        """The architecture as a vector of integers."""
        raise NotImplementedError(f"the space '{self.name}' offers no integer encoding")

    def decode(self, vector: Sequence[int]) -> Architecture:
        """The architecture that a vector of integers stands for."""
        raise NotImplementedError(f"the space '{self.name}' offers no integer encoding")

    def features(self, architecture: Any) -> tuple[float, ...]:
        """What a predictor of accuracy sees of the architecture; here one 0 or 1 for each choice of the encoding.

        A space that knows what matters in it (operators that are on a path, depth of the paths) gives that instead.
        """
        vector = self.encode(architecture)
        return tuple(float(v == k) for v, count in zip(vector, self.choices(), strict=True) for k in range(count))

    def graph(self, architecture: Any) -> Graph:
        """The whole network as one graph."""
        return chain(graph for _, graph in self.blocks(architecture))
