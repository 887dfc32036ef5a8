"""Spaces: what may be built, as data that can be sampled, changed, costed and only then built.

The law: an architecture is an immutable value; `sample`, `mutate` and `crossover` give valid ones and draw from the
`random.Random` they are handed and from nothing else; `stem` says what it computes, as graphs without weights, so that
every cost follows without building; `parts` makes the torch modules, called as the graphs are. What stands behind the
stem is the task's own head: a space knows no kind of task.

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
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import AliasChoices, Field, field_validator
from torch import nn

from edgewright.core.architecture import Architecture
from edgewright.core.errors import BadInput
from edgewright.core.tensors import Size, TensorSpec, compact, sides
from edgewright.ir.graph import Graph, GraphBuilder, count_params, joined
from edgewright.ir.structure import Structure, chained, structure
from edgewright.model.head import Head
from edgewright.model.heads.pool import PoolHead
from edgewright.model.network import SPREAD, Front, Network

SMALLEST_SIDE, LARGEST_SIDE = 8, 512


class Framed(Architecture):
    """What the task decides of an architecture. channels: of the map that the stem reads.   outputs: of the head.
    resolution: height and width of that map in pixels, a square by its side."""

    channels: int = Field(ge=1)
    outputs: int = Field(ge=1, validation_alias=AliasChoices("outputs", "classes"))
    resolution: int | Size

    @field_validator("resolution")
    @classmethod
    def _of_the_space(cls, resolution: "int | Size") -> "int | Size":
        for side in sides(resolution):
            if not SMALLEST_SIDE <= side <= LARGEST_SIDE:
                raise ValueError(f"resolution: a side of {side} px is not from {SMALLEST_SIDE} to {LARGEST_SIDE}")
        return compact(sides(resolution))


class Space(ABC):
    """Made for one task by `make_space(name, spec)`; see the law above.

    Args: inputs: what its networks take: maps (C, H, W) of one size, and vectors (F,).   head: the task's.
    Errors: BadInput for maps with a side outside 8 to 512 pixels.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    summary: ClassVar[str]
    learned: ClassVar[bool] = False  # whether its networks come with weights that have learned
    renamed: ClassVar[dict[str, str]] = {}  # beginnings of weights' names in runs of version 0.1, and now

    def __init__(self, inputs: Sequence[TensorSpec], head: Head) -> None:
        self.inputs, self.head = tuple(inputs), head
        maps = [spec.shape for spec in inputs if len(spec.shape) == 3]
        sizes = {shape[1:] for shape in maps}
        if len(sizes) != 1:
            told = ", ".join(f"{spec.name} {spec.shape}" for spec in inputs)
            raise BadInput(f"space {self.name}: takes maps (channels, height, width) of one size, not {told}")
        ((height, width),) = sizes
        self.size: Size = (int(height or 0), int(width or 0))
        self.channels = sum(int(shape[0] or 0) for shape in maps) + SPREAD * (len(inputs) - len(maps))
        for side in self.size:
            if not SMALLEST_SIDE <= side <= LARGEST_SIDE:
                raise BadInput(f"space {self.name}: takes maps of {SMALLEST_SIDE} to {LARGEST_SIDE} px, not {side} px")

    @classmethod
    def for_images(cls, channels: int, outputs: int, size: int | Size) -> Self:
        """For images of one size (a square by its side) and as many outputs for each, by the mean over the map."""
        shape = (channels, *sides(size))
        return cls((TensorSpec(name="input", shape=shape),), PoolHead(outputs))

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
    def stem(self, architecture: Any) -> tuple[tuple[str, Graph], ...]:
        """The named blocks before the head, in running order; each one's output is the next one's input. A block
        "stage1.0" belongs to the part "stage1"."""

    @abstractmethod
    def parts(self, architecture: Any) -> dict[str, nn.Module]:
        """The modules before the head by name, in running order, with fresh weights from torch's global state."""

    def head_width(self, architecture: Any) -> int:
        """Width of the head's own layer, 0 for none."""
        return 0

    def resolution(self, architecture: Any) -> Size:
        """Height and width that the network takes its maps at."""
        return self.size

    def levels(self, stem: Sequence[tuple[str, Graph]]) -> tuple[int, ...]:
        """Indices of the blocks that end a level: the last one, and those before the map gets smaller."""
        sizes = [graph.output_shape[1:] for _, graph in stem]
        return tuple(index for index in range(len(stem)) if index + 1 == len(stem) or sizes[index] != sizes[index + 1])

    def read_levels(self, stem: Sequence[tuple[str, Graph]]) -> tuple[int, ...]:
        """Indices of the blocks whose outputs the head reads, in its order."""
        levels = self.levels(stem)
        chosen = self.head.reads([stem[index][1].output_shape for index in levels])
        return tuple(levels[index] for index in chosen)

    def blocks(self, architecture: Any) -> tuple[tuple[str, Graph], ...]:
        """All named blocks of the network: what joins several inputs, the stem, the head."""
        stem = self.stem(architecture)
        features = [stem[index][1].output_shape for index in self.read_levels(stem)]
        head = ("head", self.head.graph(features, self.head_width(architecture)))
        return (*self._front(architecture), *stem, head)

    def _front(self, architecture: Any) -> tuple[tuple[str, Graph], ...]:
        return () if len(self.inputs) == 1 else (("front", front_graph(self.inputs, self.resolution(architecture))),)

    def build(self, architecture: Any) -> nn.Module:
        """The network, with fresh weights from torch's global random state."""
        return self._network(architecture, self.parts(architecture))

    def _network(self, architecture: Any, parts: dict[str, nn.Module]) -> Network:
        stem = self.stem(architecture)
        read = self.read_levels(stem)
        channels = [stem[index][1].output_shape[0] for index in read]
        head = self.head.build(channels, self.head_width(architecture))
        front = Front(self.inputs) if len(self.inputs) > 1 else None
        return Network(parts, head, [stem[index][0].split(".")[0] for index in read], front)

    def kept(self, architecture: Any) -> dict[str, Any]:
        """What is still there of the network that an architecture was made of; nothing of a fresh one."""
        return {}

    def classics(self) -> list[Architecture]:
        """Networks as people have built them for years, small to large, which a search must not lose to; here none."""
        return []

    def thin(self, architecture: Any) -> nn.Module:
        """A network with the same choices and less work, for the cheap scoring before training, with fresh weights.

        It takes the inputs and gives the logits of `build`'s. A space that repeats its cells offers fewer of them; here
        it is `build`'s own network, so that cheap scoring then differs by its smaller batches only."""
        return self.build(architecture)

    def frame(self) -> dict[str, Any]:
        """What the task decides of every architecture: its fields."""
        return {"channels": self.channels, "outputs": self.head.outputs, "resolution": compact(self.size)}

    def check_task(self, architecture: Any) -> None:
        """BadInput where an architecture was made for another space or task."""
        if architecture.space != self.name:
            raise BadInput(f"architecture: it is of the space {architecture.space}, not of {self.name}")
        for name, wanted in self.frame().items():
            if (given := getattr(architecture, name)) != wanted:
                raise BadInput(f"architecture: {name} is {given}; for this task it is {wanted}")

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
        stem, front = self.stem(architecture), self._front(architecture)
        head = self.blocks(architecture)[-1][1]
        levels = [len(front) + index for index in self.read_levels(stem)]
        return joined([graph for _, graph in (*front, *stem)], head, levels)

    def structure(self, architecture: Any) -> Structure:
        """What the wiring says without a forward pass: live operators and MACs, length of the paths."""
        if len(self.head.reads([graph.output_shape for _, graph in self.stem(architecture)])) > 1:
            return structure(self.graph(architecture))
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


def front_graph(inputs: Sequence[TensorSpec], size: Size) -> Graph:
    """What `model.network.Front` computes, operator by operator."""
    shapes = [(int(spec.shape[0] or 0), *(size if len(spec.shape) == 3 else ())) for spec in inputs]
    builder = GraphBuilder(*shapes)
    whole = next(index for index, shape in enumerate(shapes) if len(shape) == 3)

    def as_map(index: int) -> int:
        if len(shapes[index]) == 3:
            return index
        return builder.upsample(builder.reshape(builder.linear(index, SPREAD), (SPREAD, 1, 1)), like=whole)

    builder.concat(*(as_map(index) for index in range(len(shapes))))
    return builder.graph()


class TabularSpace(Space):
    """A space of fixed choices in which every architecture has a number: the spaces of published tables.

    `at` and `index` follow the published order of the table, so that row i of a table speaks of `at(i)`. Here that is
    counting with the last choice fastest; a space whose table is in another order overrides both.

    Every network takes maps as large as the task's.
    """

    row_column: ClassVar[str] = "arch"  # the column of a table that spells out the architectures, if it has one
    row_names: ClassVar[tuple[str, ...]] = ()  # what the numbers there stand for, where the table can name them

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
