"""What each piece of a graph takes inside the whole network, by the profiler of the device that it runs on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.device.profile import Profiler
from edgewright.device.table.pieces import Piece, cut
from edgewright.ir.graph import Graph
from edgewright.ir.to_onnx import to_onnx

_OURS = re.compile(r"(?<![A-Za-z0-9])[tn](\d+)")  # "n7", "t7_nchwc": named for the tensor that the node makes


@dataclass(frozen=True)
class PieceTime:
    """One piece as profiled: mean microseconds of the faster half of the runs, over `nodes` nodes of the runtime."""

    piece: Piece
    raw_us: float
    nodes: int


def profile_pieces(graph: Graph, device: Profiler, *, seconds: float = 0.03, runs: int = 6) -> list[PieceTime]:
    """Run `graph` with random weights under the profiler and give each piece its time, in running order.

    The time is the operator's in its place: in the layout its neighbours have and with their caches. A change of layout
    that the runtime inserts belongs to the piece that needs it, which is the next one. Times include the profiler's
    own cost per node, about 2 microseconds; the calibration takes it off again.
    """
    pieces, owner = cut(graph)
    found = device.profile(to_onnx(graph), seconds=seconds, runs=runs)
    raw, nodes = np.zeros(len(pieces)), np.zeros(len(pieces), dtype=int)
    for index, took in zip(_owners(found.names, owner), found.node_us(), strict=True):
        raw[index] += took
        nodes[index] += 1
    return [PieceTime(piece, float(r), int(n)) for piece, r, n in zip(pieces, raw, nodes, strict=True)]


def _owners(names: Sequence[str], owner: dict[int, int]) -> list[int]:
    """For each node of the runtime, the index of the piece that it belongs to."""
    last = max(owner)
    known = [_OURS.search(name.replace("logits", f"t{last}")) for name in names]
    owners = [owner.get(int(match.group(1))) if match else None for match in known]
    following = None
    for index in range(len(owners) - 1, -1, -1):
        if owners[index] is None:
            owners[index] = following
        following = owners[index]
    return [owner[last] if index is None else index for index in owners]
