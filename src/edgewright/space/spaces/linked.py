"""Three cells with long links in one of three families: the spaces that FLASH searches.

Per cell: width w, depth d, and t, the most channels that a layer receives over long links. The image is halved before
the second and the third cell, and by the stem where it is larger than 48 px.
"""

from random import Random
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import nn

from edgewright.core.architecture import Architecture
from edgewright.core.errors import BadInput
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.model.linked import Cell, Family, LinkedNet, linked_channels
from edgewright.space.base import Space

NUM_CELLS = 3
WIDTHS = (8, 96)  # multiples of 8
DEPTHS = (2, 14)
MOST_LINKS = 192
STEM_WIDTH = 16
SMALLEST_SIDE, LARGEST_SIDE, LARGE_SIDE = 8, 512, 48


class LinkedArchitecture(Architecture):
    """A network of cells. links: multiples of 8; of the cell's width in the residual family; never more than the cell
    can use, w (d - 2)."""

    space: Literal["linked-dense", "linked-residual", "linked-mobile"]
    channels: int = Field(ge=1)
    classes: int = Field(ge=2)
    resolution: int = Field(ge=SMALLEST_SIDE, le=LARGEST_SIDE)
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
    """What the three families share.

    Args: channels, classes: of the task.   resolution: side of its images, which every network takes.
    Errors: BadInput for a resolution outside 8 to 512 pixels.
    """

    family: ClassVar[Family]
    source = "NN-Mass (arXiv:1910.00780), FLASH (2108.00568)"

    def __init__(self, channels: int, classes: int, resolution: int) -> None:
        if not SMALLEST_SIDE <= resolution <= LARGEST_SIDE:
            raise BadInput(
                f"space {self.name}: takes images of {SMALLEST_SIDE} to {LARGEST_SIDE} px, not {resolution} px"
            )
        self.channels, self.classes, self.resolution = channels, classes, resolution
        self.stem_stride = 1 if resolution <= LARGE_SIDE else 2

    def of(self, cells: tuple[Cell, ...]) -> LinkedArchitecture:
        """The architecture with these cells."""
        return LinkedArchitecture.parse(
            {
                "space": self.name,
                "channels": self.channels,
                "classes": self.classes,
                "resolution": self.resolution,
                "cells": cells,
            },
            "architecture",
        )

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

    def blocks(self, architecture: LinkedArchitecture) -> tuple[tuple[str, Graph], ...]:
        named = [("stem", self._stem())]
        for number, cell in enumerate(architecture.cells, 1):
            graph = cell_graph(named[-1][1].output_shape, cell, self.family, 1 if number == 1 else 2)
            named.append((f"cell{number}", graph))
        return (*named, ("head", self._head(named[-1][1].output_shape)))

    def part(self, index: int, source: int, cell: Cell | None) -> tuple[Graph, ...]:
        """What cell `index` (0-based) adds to a network whose cell before it has `source` channels: the stem comes with
        the first one; without a cell, the head. The parts of a network are its blocks."""
        side = self._stem().output_shape[-1]
        for _ in range(index - 1 if cell else NUM_CELLS - 1):
            side = -(-side // 2)
        if cell is None:
            return (self._head((source, side, side)),)
        if index == 0:
            return (self._stem(), cell_graph(self._stem().output_shape, cell, self.family, 1))
        return (cell_graph((source, side, side), cell, self.family, 2),)

    def _stem(self) -> Graph:
        builder = GraphBuilder((self.channels, self.resolution, self.resolution))
        builder.relu(builder.conv(0, STEM_WIDTH, 3, self.stem_stride))
        return builder.graph()

    def _head(self, shape: tuple[int, ...]) -> Graph:
        builder = GraphBuilder(shape)
        builder.linear(builder.flatten(builder.global_pool(0)), self.classes)
        return builder.graph()

    def build(self, architecture: LinkedArchitecture) -> nn.Module:
        return LinkedNet(self.channels, self.classes, STEM_WIDTH, self.stem_stride, architecture.cells, self.family)

    def read(self, data: dict[str, Any]) -> LinkedArchitecture:
        architecture = LinkedArchitecture.parse(data, "architecture")
        for name in ("channels", "classes", "resolution"):
            if getattr(architecture, name) != getattr(self, name):
                given, wanted = getattr(architecture, name), getattr(self, name)
                raise BadInput(f"architecture: {name} is {given}; for this task it is {wanted}")
        if architecture.space != self.name:
            raise BadInput(f"architecture: it is of the space {architecture.space}, not of {self.name}")
        return architecture

    def smallest(self) -> LinkedArchitecture:
        return self.of((Cell(width=WIDTHS[0], depth=DEPTHS[0], links=0),) * NUM_CELLS)

    def describe(self, architecture: LinkedArchitecture) -> str:
        cells = [f"{cell.depth} x {cell.width}, links {cell.links}" for cell in architecture.cells]
        return "\n".join((f"{self.resolution} px, {self.family}", *cells))


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
