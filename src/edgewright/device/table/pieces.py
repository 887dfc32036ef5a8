"""A graph cut into the operators that the runtime really runs: the entries of the latency table.

A convolution runs together with the residual add and the activation that follow it, everything else runs alone. Pieces
repeat from network to network far more than whole blocks do, so a table of pieces fills quickly; a block's latency is
the sum of its pieces'.
"""

import functools
from dataclasses import dataclass
from math import log, prod
from typing import cast

import numpy as np

from edgewright.ir.graph import Graph, Kind, Op, Shape, needed_ops

# Convolution kernels take channels in groups: 16 floats fill the widest vectors, and a part costs what a group does.
LANES = 16


@dataclass(frozen=True, slots=True)
class Piece:
    """One operator with what is fused into it, by everything that its time can depend on but the data."""

    kind: Kind
    source: Shape
    result: Shape
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    add: bool = False
    activation: bool = False

    @property
    def key(self) -> str:
        """The piece as text, equal for equal pieces; `read_piece` reads it back."""
        shapes = f"{'x'.join(map(str, self.source))}>{'x'.join(map(str, self.result))}"
        fused = ("+add" if self.add else "") + ("+act" if self.activation else "")
        return f"{self.kind}{fused} {shapes} k{self.kernel} s{self.stride} g{self.groups}"

    @property
    def family(self) -> str:
        """Pieces of one family share an interpolation."""
        if self.kind != "conv":
            return self.kind
        return "depthwise" if self.groups > 1 else "pointwise" if self.kernel == 1 else "dense"


@functools.lru_cache(maxsize=100_000)
def read_piece(key: str) -> Piece:
    """The piece that wrote `key`; ValueError for any other text."""
    head, shapes, kernel, stride, groups = key.split(" ")
    kind, *fused = head.split("+")
    source, result = (tuple(int(size) for size in shape.split("x")) for shape in shapes.split(">"))
    k, s, g = (int(text[1:]) for text in (kernel, stride, groups))
    piece = Piece(cast(Kind, kind), source, result, k, s, g, "add" in fused, "act" in fused)
    if piece.key != key:
        raise ValueError(f"not a piece of a graph: {key!r}")
    return piece


def cut(graph: Graph) -> tuple[list[Piece], dict[int, int]]:
    """The pieces of `graph` in running order, and for every tensor an op makes the index of the piece that makes it.

    Operators that the output does not depend on have no piece: a runtime leaves them out.
    """
    ops = needed_ops(graph)
    readers: dict[int, int] = {}
    for op in ops:
        for name in op.inputs:
            readers[name] = readers.get(name, 0) + 1
    groups: list[list[Op]] = []
    owner: dict[int, int] = {}
    for op in ops:
        host = _host(op, groups, owner, readers)
        if host is None:
            host = len(groups)
            groups.append([])
        groups[host].append(op)
        owner[op.output] = host
    return [_piece(graph, group) for group in groups], owner


def _host(op: Op, groups: list[list[Op]], owner: dict[int, int], readers: dict[int, int]) -> int | None:
    if op.kind not in ("add", "relu", "hardsigmoid"):
        return None
    for name in sorted(op.inputs, reverse=True):
        if name in owner and readers[name] == 1:
            first, *rest = groups[owner[name]]
            tails = [other.kind for other in rest]
            if first.kind == "conv" and (not tails or (tails == ["add"] and op.kind != "add")):
                return owner[name]
    return None


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
        bool(kinds & {"relu", "hardsigmoid"}),
    )


def work(piece: Piece) -> np.ndarray:
    """What time is roughly linear in, all >= 0: 1, multiply-adds, floats read, floats written, weights, channels.

    Channels are rounded up to whole groups of 16.
    """
    wide_in, wide_out = _padded(piece.source[0]), _padded(piece.result[0])
    spatial_in, spatial_out = prod(piece.source[1:]), prod(piece.result[1:])
    if piece.kind in ("conv", "linear"):
        weights = wide_out * (wide_in if piece.groups == 1 else 1) * piece.kernel**2
        macs = weights * spatial_out
    else:
        weights, macs = 0, wide_in * (piece.kernel**2 * spatial_out if piece.kind == "avg_pool" else spatial_in)
    return np.array([1, macs, wide_in * spatial_in, wide_out * spatial_out, weights, wide_out], dtype=float)


def place(piece: Piece) -> np.ndarray:
    """Where a piece lies among its family, in logarithms: pieces that are near behave alike."""
    wide_in, wide_out = _padded(piece.source[0]), _padded(piece.result[0])
    return np.array(
        [
            log(wide_in),
            log(wide_out),
            log(prod(piece.result[1:])),
            log(piece.kernel),
            log(piece.stride),
            float(piece.add),
            0.5 * piece.activation,
            0.5 * piece.source[0] / wide_in,
            0.5 * piece.result[0] / wide_out,
            log(work(piece)[1]),
        ]
    )


def _padded(channels: int) -> int:
    return -(-channels // LANES) * LANES
