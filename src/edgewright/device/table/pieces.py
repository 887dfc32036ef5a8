"""A graph cut into the operators that the runtime really runs: the entries of the latency table.

A convolution runs together with the residual add and the activation that follow it, everything else runs alone. Pieces
repeat from network to network far more than whole blocks do, so a table of pieces fills quickly; a block's latency is
the sum of its pieces'.
"""

import functools
from collections.abc import Hashable
from dataclasses import dataclass, replace
from math import log, prod
from typing import cast

import numpy as np

from edgewright.ir import op as ops
from edgewright.ir.counts import Work, numbers
from edgewright.ir.graph import Graph
from edgewright.ir.network import ACTIVATIONS, from_graph, together
from edgewright.ir.op import CHANNELS_LAST, WINDOWED, Kind, Op
from edgewright.ir.sizes import Shape, Size, area, read, side, text

# Convolution kernels take channels in groups: 16 floats fill the widest vectors, and a part costs what a group does.
LANES = 16


@dataclass(frozen=True, slots=True)
class Piece:
    """One operator with what is fused into it, by everything that its time can depend on but the data."""

    kind: Kind
    source: Shape
    result: Shape
    kernel: Size = 1
    stride: Size = 1
    groups: int = 1
    add: bool = False
    activation: bool = False
    dilation: Size = 1

    @property
    def key(self) -> str:
        """The piece as text, equal for equal pieces; `read_piece` reads it back."""
        shapes = f"{'x'.join(map(str, self.source))}>{'x'.join(map(str, self.result))}"
        fused = ("+add" if self.add else "") + ("+act" if self.activation else "")
        holes = "" if self.dilation == 1 else f" d{text(self.dilation)}"
        return f"{self.kind}{fused} {shapes} k{text(self.kernel)} s{text(self.stride)} g{self.groups}{holes}"

    @property
    def family(self) -> str:
        """Pieces of one family share an interpolation."""
        return _family(self)

    @property
    def work(self) -> Work:
        """What the operator that others are fused into computes."""
        op = Op(self.kind, (0,), 1, self.kernel, self.stride, self.groups, dilation=self.dilation)
        return ops.work(op, self.source, self.result)


@functools.lru_cache(maxsize=100_000)
def _family(piece: Piece) -> str:
    return piece.work.layer if piece.kind == "conv" else piece.kind


@functools.lru_cache(maxsize=100_000)
def read_piece(key: str) -> Piece:
    """The piece that wrote `key`; ValueError for any other text."""
    head, shapes, kernel, stride, groups, *holes = key.split(" ")
    kind, *fused = head.split("+")
    source, result = (tuple(int(size) for size in shape.split("x") if shape) for shape in shapes.split(">"))
    sizes = read(kernel[1:]), read(stride[1:]), int(groups[1:])
    piece = Piece(
        cast(Kind, kind), source, result, *sizes, "add" in fused, "act" in fused, *(read(d[1:]) for d in holes)
    )
    if piece.key != key:
        raise ValueError(f"not a piece of a graph: {key!r}")
    return piece


def cut(graph: Graph) -> tuple[list[Piece], dict[int, int]]:
    """The pieces of `graph` in running order, and for every tensor an op makes the index of the piece that makes it.

    Operators that the output does not depend on have no piece: a runtime leaves them out.
    """
    made: dict[Hashable, Op] = {op.output: op for op in graph.ops}
    groups = together(from_graph(graph))
    parts = [[made[name] for node in nodes for name in node.outputs] for nodes in groups]
    owner = {op.output: index for index, part in enumerate(parts) for op in part}
    return [_piece(graph, part) for part in parts], owner


def _piece(graph: Graph, ops: list[Op]) -> Piece:
    first = ops[0]
    kinds = {op.kind for op in ops[1:]}
    source, result = graph.shapes[first.inputs[0]], graph.shapes[first.output]
    return Piece(
        first.kind,
        source,
        result,
        first.kernel,
        first.stride,
        first.groups,
        "add" in kinds,
        bool(kinds & ACTIVATIONS),
        first.dilation,
    )


@functools.lru_cache(maxsize=65_536)
def work(piece: Piece) -> np.ndarray:
    """What time is roughly linear in, all >= 0: 1, multiply-adds, floats read, floats written, weights, channels.

    Channels are rounded up to whole groups of 16. Read only.
    """
    wide = _widened(piece)
    taken, made, wide_out = prod(wide.source), prod(wide.result), _channels(wide)[1]
    looked_at = area(piece.kernel, len(piece.source) - 1) * made if piece.kind in WINDOWED else taken
    macs, weights = wide.work.macs or looked_at, numbers(wide.work.weight)
    found = np.array([1, macs, taken, made, weights, wide_out], dtype=float)
    found.setflags(write=False)
    return found


@functools.lru_cache(maxsize=65_536)
def place(piece: Piece) -> np.ndarray:
    """Where a piece lies among its family, in logarithms: pieces that are near behave alike. Read only."""
    wide = _widened(piece)
    (narrow_in, narrow_out), (wide_in, wide_out) = _channels(piece), _channels(wide)
    found = np.array(
        [
            log(wide_in),
            log(wide_out),
            log(prod(wide.result) // wide_out),
            log(side(piece.kernel)),
            log(side(piece.stride)),
            float(piece.add),
            0.5 * piece.activation,
            0.5 * narrow_in / wide_in,
            0.5 * narrow_out / wide_out,
            log(work(piece)[1]),
        ]
    )
    found.setflags(write=False)
    return found


def _channels(piece: Piece) -> tuple[int, int]:
    """How many are read and made."""
    axis = -1 if piece.kind in CHANNELS_LAST else 0
    return piece.source[axis], (piece.result or (1,))[axis]


def _widened(piece: Piece) -> Piece:
    """With its channels as kernels take them: of a grouped convolution those of each group."""
    channels, made = _channels(piece)
    alone = piece.work.layer == "depthwise"
    groups = _padded(channels) if alone else piece.groups
    read = groups if alone else groups * _padded(channels // groups)
    axis = -1 if piece.kind in CHANNELS_LAST else 0
    shapes = [_with(shape, axis, wide) for shape, wide in ((piece.source, read), (piece.result, _padded(made)))]
    return replace(piece, source=shapes[0], result=shapes[1], groups=groups)


def _with(shape: Shape, axis: int, channels: int) -> Shape:
    return (*shape[:-1], channels) if axis else (channels, *shape[1:])


def _padded(channels: int) -> int:
    return -(-channels // LANES) * LANES
