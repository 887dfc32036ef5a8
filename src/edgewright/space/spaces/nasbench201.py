"""NAS-Bench-201: all 15,625 cells of four nodes and six edges, in the order of the published table.

The official order is the product of the five operators over the edges 0>1, 0>2, 1>2, 0>3, 1>3, 2>3 (last edge fastest),
shuffled by Python's generator with seed 88, which draws the same on every version of Python since 3.2.

    trainable parameters (CIFAR-10)   73,306 + 28,000 (1x1 edges) + 243,040 (3x3 edges)
    multiply-adds (32 px)          7,783,040 + 3,932,160 (1x1 edges) + 35,389,440 (3x3 edges)

The table's `flops` are these multiply-adds plus 10, the biases of the classifier. Both count operators that nothing
reaches; `Space.structure` counts the live ones.

`canonical`: two cells are isomorphic, as in the official count (6,466 classes), when their output is the same written
out as a sum of operators of sums, terms of a sum sorted, skips replaced by what they skip, `none` and what it alone
feeds by one sign for zero. These are the classes of the literature, and not quite what the word says: 711 equalities
(a + b) + c = a + (b + c) are missed, and an operator that is read twice is taken for two with weights of their own, so
that 430 of the classes hold cells of different live multiply-adds.

`twin`: 5,260 classes of cells that compute the same with fresh weights (a norm's shift is 0, so that what reads zeros
alone gives zeros): the graph of their operators is the same, sums flat, shared operators shared, dead ones left out,
two poolings of one sum taken for one. Live multiply-adds and the mean length of a path are the same within each class.
Source: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020,
arXiv:2001.00326.
Checked against: the published table's cells, parameters, flops and classes (tests/space/test_nasbench201.py).
"""

import functools
import itertools
from collections.abc import Sequence
from random import Random
from typing import Any, ClassVar, Literal

from torch import nn

from edgewright.core.tensors import size_text
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.model.nasbench201 import CELLS, EDGES, OPS, WIDTHS, cell_parts
from edgewright.space.base import SMALLEST_SIDE, Framed, TabularSpace

OFFICIAL_SEED = 88
OpName = Literal["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
# One letter an operator, which sort like the operators' names: the canonical text depends on it.
_LETTERS = {"nor_conv_1x1": "m", "nor_conv_3x3": "n", "avg_pool_3x3": "a"}


class CellArchitecture(Framed):
    """A network of NAS-Bench-201. `ops`: the operators on the edges 0>1, 0>2, 1>2, 0>3, 1>3, 2>3."""

    space: Literal["nb201"] = "nb201"
    ops: tuple[OpName, OpName, OpName, OpName, OpName, OpName]


class NASBench201(TabularSpace):
    """`nb201` for one task; see the top of this file."""

    name = "nb201"
    source = "NAS-Bench-201 (arXiv:2001.00326)"
    row_column = "ops"
    row_names = OPS
    summary = "all 15,625 cells of NAS-Bench-201: one of five operators on each of six edges; rows as in its table"
    renamed: ClassVar[dict[str, str]] = {"head.0.": "last.0.", "head.4.": "head.2."}

    def choices(self) -> tuple[int, ...]:
        return (len(OPS),) * len(EDGES)

    def encode(self, architecture: CellArchitecture) -> tuple[int, ...]:
        return tuple(OPS.index(op) for op in architecture.ops)

    def decode(self, vector: Sequence[int]) -> CellArchitecture:
        return self.of(tuple(OPS[digit] for digit in self.checked_vector(vector)))

    def of(self, ops: Sequence[str]) -> CellArchitecture:
        """The architecture with these operators on the edges."""
        return CellArchitecture.parse({**self.frame(), "ops": ops}, "architecture")

    def at(self, index: int) -> CellArchitecture:
        return self.decode(official_order()[self.checked(index)])

    def index(self, architecture: CellArchitecture) -> int:
        return _rows()[self.encode(architecture)]

    def canonical(self, index: int) -> int:
        return _representatives()[self.checked(index)]

    def twin(self, index: int) -> int:
        return _twins()[self.checked(index)]

    def live(self, index: int) -> int:
        vector = official_order()[self.checked(index)]
        reached, wanted = {0}, {NODES - 1}
        for (start, end), digit in zip(EDGES, vector, strict=True):
            if start in reached and OPS[digit] != "none":
                reached.add(end)
        for (start, end), digit in reversed(list(zip(EDGES, vector, strict=True))):
            if end in wanted and OPS[digit] != "none":
                wanted.add(start)
        alive = (start in reached and end in wanted for start, end in EDGES)
        return _rows()[tuple(digit if kept else NONE for digit, kept in zip(vector, alive, strict=True))]

    def stem(self, architecture: CellArchitecture) -> tuple[tuple[str, Graph], ...]:
        shape = (self.channels, *self.size)
        stem = _stem_graph(shape)
        named, shape = [("stem", stem)], stem.output_shape
        for number in range(1, len(WIDTHS) + 1):
            cell = cell_graph(shape, architecture.ops)
            named.extend((f"stage{number}.{index}", cell) for index in range(CELLS))
            if number < len(WIDTHS):
                named.append((f"reduce{number}", _reduce_graph(shape, WIDTHS[number])))
                shape = named[-1][1].output_shape
        return (*named, ("last", _last_graph(shape)))

    def parts(self, architecture: CellArchitecture) -> dict[str, nn.Module]:
        return cell_parts(self.channels, architecture.ops)

    def thin(self, architecture: CellArchitecture) -> nn.Module:
        """One cell a stage in place of five, and from 16 px a stem that halves the image: a quarter of the pixels.
        `benchmarks/cheap_scoring.py` shows what that costs in rank correlation."""
        stride = 2 if min(self.size) >= 2 * SMALLEST_SIDE else 1
        return self._network(architecture, cell_parts(self.channels, architecture.ops, cells=1, stride=stride))

    def read(self, data: dict[str, Any]) -> CellArchitecture:
        architecture = CellArchitecture.parse(data, "architecture")
        self.check_task(architecture)
        return architecture

    def smallest(self) -> CellArchitecture:
        """The cell that is one skip; the cell without any edge costs the same and learns nothing."""
        return self.of(("none", "none", "none", "skip_connect", "none", "none"))

    def describe(self, architecture: CellArchitecture) -> str:
        return f"{size_text(self.size)}, cell {cell_text(architecture.ops)}"


def cell_text(ops: Sequence[str]) -> str:
    """A cell as the benchmark writes it: |op~0|+|op~0|op~1|+|op~0|op~1|op~2|."""
    nodes = [
        "".join(f"{op}~{start}|" for (start, end), op in zip(EDGES, ops, strict=True) if end == node)
        for node in (1, 2, 3)
    ]
    return "+".join("|" + node for node in nodes)


@functools.cache
def official_order() -> tuple[tuple[int, ...], ...]:
    """The operators (indices into OPS) of every row of the published table."""
    cells = list(itertools.product(range(len(OPS)), repeat=len(EDGES)))
    Random(OFFICIAL_SEED).shuffle(cells)
    return tuple(cells)


@functools.cache
def _rows() -> dict[tuple[int, ...], int]:
    return {vector: row for row, vector in enumerate(official_order())}


@functools.cache
def _representatives() -> tuple[int, ...]:
    """For every row the first row of its class."""
    first: dict[str, int] = {}
    texts = (canonical_text([OPS[digit] for digit in vector]) for vector in official_order())
    return tuple(first.setdefault(text, row) for row, text in enumerate(texts))


def canonical_text(ops: Sequence[str]) -> str:
    """What a cell computes, as a text that is equal for isomorphic cells (definition at the top of this file)."""
    nodes = ["0"]
    for node in (1, 2, 3):
        terms = []
        for (start, end), op in zip(EDGES, ops, strict=True):
            if end != node:
                continue
            if op == "none" or nodes[start] == "#":
                terms.append("#")
            else:
                terms.append(nodes[start] if op == "skip_connect" else f"({nodes[start]}){_LETTERS[op]}")
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


Operators = tuple[tuple[int, tuple[int, ...]], ...]  # of each: which one, and the sorted numbers of what it sums
NODES, NONE = 4, OPS.index("none")
SKIP, POOL = OPS.index("skip_connect"), OPS.index("avg_pool_3x3")


@functools.cache
def _twins() -> tuple[int, ...]:
    """For every row the first row that computes the same with fresh weights."""
    first: dict[object, int] = {}
    return tuple(first.setdefault(wiring(vector), row) for row, vector in enumerate(official_order()))


def wiring(vector: Sequence[int]) -> tuple[Operators, tuple[int, ...]]:
    """The live operators of a cell and what its output sums, numbered so that equal wirings are equal values.

    Operators of one kind over equal expressions may stand in any order: the least of all numberings is taken.
    """
    made, output = _operators(vector)
    live, left = set(), list(output)
    while left:
        number = left.pop()
        if number and number not in live:
            live.add(number)
            left.extend(made[number - 1][1])
    text = {0: "0"}
    for number in sorted(live):
        op, sources = made[number - 1]
        text[number] = f"({'+'.join(sorted(text[source] for source in sources))}){op}"
    ordered = sorted(live, key=lambda number: (len(text[number]), text[number]))
    alike = [tuple(group) for _, group in itertools.groupby(ordered, key=text.__getitem__)]
    return min(
        _renumbered(made, output, tuple(itertools.chain(*order)))
        for order in itertools.product(*map(itertools.permutations, alike))
    )


def _operators(vector: Sequence[int]) -> tuple[Operators, tuple[int, ...]]:
    """Operators that are reached, numbered from 1 as they are met (0 is the input), and what the output sums."""
    made: list[tuple[int, tuple[int, ...]]] = []
    nodes: list[tuple[int, ...]] = [(0,)]
    for node in (1, 2, 3):
        terms: list[int] = []
        for (start, end), op in zip(EDGES, vector, strict=True):
            if end != node or OPS[op] == "none" or not nodes[start]:
                continue
            if op == SKIP:
                terms.extend(nodes[start])
                continue
            one = (op, nodes[start])
            if op != POOL or one not in made:
                made.append(one)
                terms.append(len(made))
            else:
                terms.append(made.index(one) + 1)
        nodes.append(tuple(sorted(terms)))
    return tuple(made), nodes[3]


def _renumbered(made: Operators, output: tuple[int, ...], order: tuple[int, ...]) -> tuple[Operators, tuple[int, ...]]:
    number = {0: 0} | {old: new for new, old in enumerate(order, 1)}

    def moved(sources: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(number[source] for source in sources))

    return tuple((made[old - 1][0], moved(made[old - 1][1])) for old in order), moved(output)


@functools.lru_cache(maxsize=65_536)
def cell_graph(shape: tuple[int, ...], ops: tuple[str, ...]) -> Graph:
    """What `model.nasbench201.Cell` holds, operator by operator, batch norms folded; edges that lead nowhere too."""
    builder = GraphBuilder(shape)
    nodes = [0]
    for node in (1, 2, 3):
        terms = [
            _edge(builder, nodes[start], op)
            for (start, end), op in zip(EDGES, ops, strict=True)
            if end == node and op != "none"
        ]
        nodes.append(functools.reduce(builder.add, terms) if terms else builder.zero(0))
    return builder.graph(nodes[3])


def _edge(builder: GraphBuilder, x: int, op: str) -> int:
    if op == "skip_connect":
        return x
    if op == "avg_pool_3x3":
        return builder.avg_pool(x, 3)
    return builder.conv(builder.relu(x), builder.shapes[x][0], 3 if op == "nor_conv_3x3" else 1)


@functools.lru_cache(maxsize=64)
def _stem_graph(shape: tuple[int, ...]) -> Graph:
    builder = GraphBuilder(shape)
    builder.conv(0, WIDTHS[0], 3)
    return builder.graph()


@functools.lru_cache(maxsize=256)
def _reduce_graph(shape: tuple[int, ...], width: int) -> Graph:
    builder = GraphBuilder(shape)
    x = builder.conv(builder.relu(0), width, 3, 2)
    x = builder.conv(builder.relu(x), width, 3)
    builder.add(builder.conv(builder.avg_pool(0, 2, 2), width, bias=False), x)
    return builder.graph()


@functools.lru_cache(maxsize=64)
def _last_graph(shape: tuple[int, ...]) -> Graph:
    builder = GraphBuilder(shape)
    builder.relu(builder.norm(0))
    return builder.graph()
