"""Three cells with long links in one of three families: the spaces that FLASH searches.

Per cell: width w, depth d, and t, the most channels that a layer receives over long links. The image is halved before
the second and the third cell, and by the stem where it is larger than 48 px.
"""

from random import Random
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import nn

from edgewright.core.tensors import size_text
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.model.linked import Cell, Family, linked_channels, linked_parts
from edgewright.space.base import Framed, Space

NUM_CELLS = 3
WIDTHS = (8, 96)  # multiples of 8
DEPTHS = (2, 14)
MOST_LINKS = 192
STEM_WIDTH = 16
LARGE_SIDE = 48
CELLS = "cells"  # attribute of a built network, which NN-Mass and NN-Degree read


class LinkedArchitecture(Framed):
    """A network of cells. links: multiples of 8; of the cell's width in the residual family; never more than the cell
    can use, w (d - 2)."""

    space: Literal["linked-dense", "linked-residual", "linked-mobile"]
    cells: Annotated[tuple[Cell, ...], Field(min_length=NUM_CELLS, max_length=NUM_CELLS)]

    @model_validator(mode="after")
    def _cells_are_of_the_space(self) -> "LinkedArchitecture":
        for number, cell in enumerate(self.cells, 1):
            if not WIDTHS[0] <= cell.width <= WIDTHS[1] or cell.width % 8:
                raise ValueError(
                    f"cell {number}: width {cell.width} is not a multiple of 8 from {WIDTHS[0]} to {WIDTHS[1]}"
                )
            if not DEPTHS[0] <= cell.depth <= DEPTHS[1]:
                raise ValueError(f"cell {number}: depth {cell.depth} is not from {DEPTHS[0]} to {DEPTHS[1]}")
            if cell != valid_cell(self.space, cell.width, cell.depth, cell.links):
                raise ValueError(f"cell {number}: {cell.links} linked channels is not what {self.space} can have there")
        return self


def valid_cell(space: str, width: float, depth: float, links: float) -> Cell:
    """The nearest cell of the space: everything rounded and clipped, links to what the cell can use."""
    w = min(WIDTHS[1], max(WIDTHS[0], round(width / 8) * 8))
    d = min(DEPTHS[1], max(DEPTHS[0], round(depth)))
    step = w if space == "linked-residual" else 8
    most = min(MOST_LINKS, w * (d - 2)) // step * step
    return Cell(width=w, depth=d, links=min(most, max(0, round(links / step) * step)))


class LinkedSpace(Space):
    """What the three families share."""

    family: ClassVar[Family]
    source = "NN-Mass (arXiv:1910.00780), FLASH (2108.00568)"

    @property
    def stem_stride(self) -> int:
        return 1 if max(self.size) <= LARGE_SIDE else 2

    def of(self, cells: tuple[Cell, ...]) -> LinkedArchitecture:
        """The architecture with these cells."""
        return LinkedArchitecture.parse({"space": self.name, **self.frame(), "cells": cells}, "architecture")

    def sample(self, rng: Random) -> LinkedArchitecture:
        width = 8 * 2 ** rng.uniform(0, 3)
        cells = []
        for _ in range(NUM_CELLS):
            depth = DEPTHS[0] * (DEPTHS[1] / DEPTHS[0]) ** rng.random()
            cells.append(valid_cell(self.name, width, depth, rng.choice((0.0, rng.random() * MOST_LINKS))))
            width *= rng.uniform(0.8, 2.0)
        return self.of(tuple(cells))

    def mutate(self, architecture: LinkedArchitecture, rng: Random) -> LinkedArchitecture:
        """One to three of the nine numbers changed."""
        cells = list(architecture.cells)
        while tuple(cells) == architecture.cells:
            for _ in range(rng.choice((1, 1, 2, 3))):
                index = rng.randrange(NUM_CELLS)
                cells[index] = self._change(cells[index], rng)
        return self.of(tuple(cells))

    def _change(self, cell: Cell, rng: Random) -> Cell:
        gene = rng.choice(("width", "depth", "links"))
        sign = rng.choice((-1, 1))
        width = cell.width + sign * 8 * rng.choice((1, 1, 2)) if gene == "width" else cell.width
        depth = cell.depth + sign if gene == "depth" else cell.depth
        links = rng.random() * MOST_LINKS if gene == "links" else cell.links
        return valid_cell(self.name, width, depth, links)

    def crossover(self, first: LinkedArchitecture, second: LinkedArchitecture, rng: Random) -> LinkedArchitecture:
        return self.of(tuple(rng.choice(pair) for pair in zip(first.cells, second.cells, strict=True)))

    def stem(self, architecture: LinkedArchitecture) -> tuple[tuple[str, Graph], ...]:
        named = [("stem", self._first())]
        for number, cell in enumerate(architecture.cells, 1):
            graph = cell_graph(named[-1][1].output_shape, cell, self.family, 1 if number == 1 else 2)
            named.append((f"cell{number}", graph))
        return tuple(named)

    def part(self, index: int, source: int, cell: Cell | None) -> tuple[Graph, ...]:
        """What cell `index` (0-based) adds to a network whose cell before it has `source` channels: the first
        convolution comes with the first one; without a cell, the head. The parts of a network are its blocks."""
        height, width = self._first().output_shape[1:]
        for _ in range(index - 1 if cell else NUM_CELLS - 1):
            height, width = -(-height // 2), -(-width // 2)
        if cell is None:
            return (self.head.graph([(source, height, width)], 0),)
        if index == 0:
            return (self._first(), cell_graph(self._first().output_shape, cell, self.family, 1))
        return (cell_graph((source, height, width), cell, self.family, 2),)

    def _first(self) -> Graph:
        builder = GraphBuilder((self.channels, *self.size))
        builder.relu(builder.conv(0, STEM_WIDTH, 3, self.stem_stride))
        return builder.graph()

    def parts(self, architecture: LinkedArchitecture) -> dict[str, nn.Module]:
        return linked_parts(self.channels, STEM_WIDTH, self.stem_stride, architecture.cells, self.family)

    def build(self, architecture: LinkedArchitecture) -> nn.Module:
        network = super().build(architecture)
        setattr(network, CELLS, architecture.cells)
        return network

    def read(self, data: dict[str, Any]) -> LinkedArchitecture:
        architecture = LinkedArchitecture.parse(data, "architecture")
        self.check_task(architecture)
        return architecture

    def smallest(self) -> LinkedArchitecture:
        return self.of((Cell(width=WIDTHS[0], depth=DEPTHS[0], links=0),) * NUM_CELLS)

    def describe(self, architecture: LinkedArchitecture) -> str:
        cells = [f"{cell.depth} x {cell.width}, links {cell.links}" for cell in architecture.cells]
        return "\n".join((f"{size_text(self.size)}, {self.family}", *cells))


class LinkedDense(LinkedSpace):
    """DenseNet-like: 3x3 convolutions, links concatenated."""

    name = "linked-dense"
    family = "dense"
    summary = "three cells of 3x3 convolutions; width, depth and concatenated long links of each"


class LinkedResidual(LinkedSpace):
    """ResNet-like: 3x3 convolutions, links added."""

    name = "linked-residual"
    family = "residual"
    summary = "three cells of 3x3 convolutions; width, depth and added long links of each"


class LinkedMobile(LinkedSpace):
    """MobileNet-like: depthwise and 1x1 convolutions, links concatenated."""

    name = "linked-mobile"
    family = "mobile"
    summary = "three cells of depthwise-separable convolutions; width, depth and concatenated long links of each"


def linked_spaces() -> dict[str, type[LinkedSpace]]:
    """The spaces by family."""
    return {space.family: space for space in (LinkedDense, LinkedResidual, LinkedMobile)}


def cell_graph(shape: tuple[int, ...], cell: Cell, family: Family, stride: int) -> Graph:
    """What `model.linked.LinkedCell` computes, operator by operator, batch norms folded."""
    builder = GraphBuilder(shape)
    x, done = 0, []
    for layer in range(cell.depth):
        linked = _nearest(builder, done[:-1], linked_channels(cell, layer))
        if linked and family != "residual":
            x = builder.concat(x, *linked)
        if family == "mobile":
            x = builder.relu(builder.conv(x, builder.shapes[x][0], 3, 1 if layer else stride, builder.shapes[x][0]))
            x = builder.conv(x, cell.width)
        else:
            x = builder.conv(x, cell.width, 3, 1 if layer else stride)
        for other in linked if family == "residual" else ():
            x = builder.add(x, other)
        x = builder.relu(x)
        done.append(x)
    return builder.graph()


def _nearest(builder: GraphBuilder, earlier: list[int], channels: int) -> list[int]:
    taken = []
    for tensor in reversed(earlier):
        if channels <= 0:
            break
        width = builder.shapes[tensor][0]
        taken.append(tensor if width <= channels else builder.take(tensor, channels))
        channels -= width
    return taken
