"""Spaces: what may be built, as data that can be sampled, changed, costed and only then built.

The law: an architecture is an immutable value; `sample`, `mutate` and `crossover` give valid ones and draw from the
`random.Random` they are handed and from nothing else; `blocks` says what it computes, as graphs without weights, so
that every cost follows without building; `build` makes the torch module, whose parts have the names of the blocks.

Published spaces as members of `mobile`: MobileNetV2 and MnasNet (inverted blocks; kernel, expansion, width, depth and
squeeze-excite per stage), MobileNetV3 (plus squeeze-excite), Once-for-All and FBNet (their elastic kernel 3/5/7, depth
and expansion), EfficientNetV2 (fused blocks early, inverted late), MobileNetV1 (separable), ResNet (basic).
"""

import functools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import fields
from random import Random
from typing import Any, ClassVar

import numpy as np
from torch import nn

from edgewright.core.architecture import Architecture
from edgewright.core.errors import BadInput
from edgewright.ir.graph import Graph, chain, count_params
from edgewright.ir.structure import Structure, chained, structure


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

    def thin(self, architecture: Any) -> nn.Module:
        """A network with the same choices and less work, for the cheap scoring before training, with fresh weights.

        It takes the inputs and gives the logits of `build`'s. A space that repeats its cells offers fewer of them; here
        it is `build`'s own network, so that cheap scoring then differs by its smaller batches only."""
        return self.build(architecture)

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
        """What a predictor of accuracy sees of the architecture; here its `structure`, what spans decades as logarithm.

        Live operators, layers and poolings; log(1 + x) of live MACs, live parameters and paths; sum of log layer sizes;
        mean and most convolutions on a path.
        """
        facts = self.structure(architecture)
        sizes = (facts.live_macs, facts.live_params, facts.paths)
        return (
            *(float(count) for count in (facts.live_ops, facts.live_layers, facts.live_poolings)),
            *(math.log1p(size) for size in sizes),
            facts.sum_log_sizes,
            facts.mean_convs,
            float(facts.depth),
        )

    def graph(self, architecture: Any) -> Graph:
        """The whole network as one graph."""
        return chain(graph for _, graph in self.blocks(architecture))

    def structure(self, architecture: Any) -> Structure:
        """What the wiring says without a forward pass: live operators and MACs, length of the paths."""
        return chained(structure(graph) for _, graph in self.blocks(architecture))


@functools.lru_cache(maxsize=65_536)
def _trained(graph: Graph) -> int:
    pooled: set[int] = set()
    norms = 0
    for op in graph.ops:
        if op.kind == "global_pool" or pooled.issuperset(op.inputs):
            pooled.add(op.output)
        elif op.kind == "conv" and op.bias:
            norms += graph.shapes[op.output][0]
    return count_params(graph) + norms


SMALLEST_SIDE, LARGEST_SIDE = 8, 512


class TabularSpace(Space):
    """A space of fixed choices in which every architecture has a number: the spaces of published tables.

    `at` and `index` follow the published order of the table, so that row i of a table speaks of `at(i)`. Here that is
    counting with the last choice fastest; a space whose table is in another order overrides both.

    Args: channels, classes: of the task.   resolution: side of its images, which every network takes.
    Errors: BadInput for a resolution outside 8 to 512 pixels.
    """

    row_column: ClassVar[str] = "arch"  # the column of a table that spells out the architectures, if it has one
    row_names: ClassVar[tuple[str, ...]] = ()  # what the numbers there stand for, where the table can name them

    def __init__(self, channels: int, classes: int, resolution: int) -> None:
        if not SMALLEST_SIDE <= resolution <= LARGEST_SIDE:
            raise BadInput(
                f"space {self.name}: takes images of {SMALLEST_SIDE} to {LARGEST_SIDE} px, not {resolution} px"
            )
        self.channels, self.classes, self.resolution = channels, classes, resolution

    @abstractmethod
    def choices(self) -> tuple[int, ...]: ...

    @abstractmethod
    def encode(self, architecture: Any) -> tuple[int, ...]: ...

    def __len__(self) -> int:
        """How many architectures there are."""
        return math.prod(self.choices())

    def at(self, index: int) -> Architecture:
        """The architecture of row `index`; IndexError outside the space."""
        return self.decode(self.digits(index))

    def digits(self, index: int) -> tuple[int, ...]:
        """`index` written with one digit a choice, the last fastest."""
        left, vector = self.checked(index), []
        for count in reversed(self.choices()):
            left, digit = divmod(left, count)
            vector.append(digit)
        return tuple(reversed(vector))

    def index(self, architecture: Any) -> int:
        """The row of an architecture."""
        index = 0
        for digit, count in zip(self.encode(architecture), self.choices(), strict=True):
            index = index * count + digit
        return index

    def checked(self, index: int) -> int:
        """`index` as an int; IndexError outside the space."""
        number = operator.index(index)
        if not 0 <= number < len(self):
            raise IndexError(f"space {self.name}: no architecture {number}, they are 0 to {len(self) - 1}")
        return number

    def canonical(self, index: int) -> int:
        """The first row of the class of isomorphic networks that the literature puts `index` in."""
        return self.checked(index)

    def twin(self, index: int) -> int:
        """The first row whose network, with fresh weights, computes the same function of the same number of weights:
        what is scored before training need be scored for these rows only."""
        return self.checked(index)

    def live(self, index: int) -> int:
        """The row of the network that is left when every operator that does not reach the output, or that the input
        does not reach, is taken out."""
        return self.checked(index)

    def from_row(self, row: Sequence[int]) -> Architecture:
        """The architecture that a table spells out in its column `row_column`; BadInput where it is not of the space.
        Here the row is the integer encoding."""
        return self.decode(row)

    def checked_vector(self, vector: Sequence[int]) -> tuple[int, ...]:
        """`vector` as ints; BadInput where it is not an encoding of this space."""
        digits, choices = tuple(int(digit) for digit in vector), self.choices()
        if len(digits) != len(choices):
            raise BadInput(f"space {self.name}: an architecture has {len(choices)} choices, not {len(digits)}")
        for place, (digit, count) in enumerate(zip(digits, choices, strict=True)):
            if not 0 <= digit < count:
                raise BadInput(f"space {self.name}: choice {place} is {digit}, not one of 0 to {count - 1}")
        return digits

    def params(self, architecture: Any) -> int:
        """Trainable parameters of the built network, as published tables count them: a batch norm has two a channel
        and the convolution before it no bias. Convolutions have a norm, but not in a gate (squeeze-excite)."""
        return sum(_trained(graph) for _, graph in self.blocks(architecture))

    def facts(self, indices: Iterable[int] | None = None) -> dict[str, np.ndarray]:
        """The `Structure` of many architectures, by default of all: float64 arrays by the names of its fields."""
        rows = range(len(self)) if indices is None else indices
        found = [self.structure(self.at(row)) for row in rows]
        return {
            field.name: np.array([getattr(each, field.name) for each in found], dtype=float)
            for field in fields(Structure)
        }

    def sample(self, rng: Random) -> Architecture:
        """Every architecture is equally likely, as random search on the table has it."""
        return self.decode([rng.randrange(count) for count in self.choices()])

    def mutate(self, architecture: Any, rng: Random) -> Architecture:
        """One choice made differently."""
        vector, choices = list(self.encode(architecture)), self.choices()
        place = rng.choice([place for place, count in enumerate(choices) if count > 1])
        vector[place] = (vector[place] + rng.randrange(1, choices[place])) % choices[place]
        return self.decode(vector)

    def crossover(self, first: Any, second: Any, rng: Random) -> Architecture:
        pairs = zip(self.encode(first), self.encode(second), strict=True)
        return self.decode([rng.choice(pair) for pair in pairs])

    def check_task(self, architecture: Any) -> None:
        """BadInput where an architecture was made for another space or task."""
        if architecture.space != self.name:
            raise BadInput(f"architecture: it is of the space {architecture.space}, not of {self.name}")
        for name in ("channels", "classes", "resolution"):
            given, wanted = getattr(architecture, name), getattr(self, name)
            if given != wanted:
                raise BadInput(f"architecture: {name} is {given}; for this task it is {wanted}")
