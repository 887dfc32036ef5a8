"""What each operator takes inside a whole network, and what the allocator holds, by the runtime's own profiler."""

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from edgewright.core.errors import EdgewrightError
from edgewright.device.here.runtime import input_for, open_session, run
from edgewright.device.table.pieces import Piece, cut
from edgewright.ir.graph import Graph
from edgewright.ir.to_onnx import to_onnx

SKIPPED_RUNS = 2  # the first ones allocate
MOST_RUNS = 40  # the profile is a text of some 600 bytes per node and run
_OURS = re.compile(r"(?<![A-Za-z0-9])[tn](\d+)")  # "n7", "t7_nchwc": named for the tensor that the node makes


@dataclass(frozen=True)
class PieceTime:
    """One piece as profiled: mean microseconds of the faster half of the runs, over `nodes` nodes of the runtime."""

    piece: Piece
    raw_us: float
    nodes: int


def profile_pieces(graph: Graph, *, threads: int = 1, seconds: float = 0.03, runs: int = 6) -> list[PieceTime]:
    """Run `graph` with random weights under the profiler and give each piece its time, in running order.

    The time is the operator's in its place: in the layout its neighbours have and with their caches. A change of layout
    that the runtime inserts belongs to the piece that needs it, which is the next one. Times include the profiler's
    own cost per node, about 2 microseconds; the calibration takes it off again.
    """
    pieces, owner = cut(graph)
    names, micros = _node_times(_profile(to_onnx(graph), threads, seconds, runs))
    raw, nodes = np.zeros(len(pieces)), np.zeros(len(pieces), dtype=int)
    for index, took in zip(_owners(names, owner), micros, strict=True):
        raw[index] += took
        nodes[index] += 1
    return [PieceTime(piece, float(r), int(n)) for piece, r, n in zip(pieces, raw, nodes, strict=True)]


def runtime_peak_bytes(model: bytes | Path) -> int:
    """The most bytes of activations that ONNX Runtime's allocator held during a run, the input included until its
    last reader has run. Needs a runtime whose profile says so (1.24 or so and later); EdgewrightError otherwise.

    More than `onnx_peak_bytes` where channels are padded to whole vector groups, where a tensor is kept in two layouts
    at once, and where the runtime's planner lends a dead tensor's buffer to a later one and holds it in between.
    """
    session = open_session(model)
    array = input_for(session)
    del session
    events = [event["args"] for event in _profile(model, 1, 0, 1)]
    if not events or "mem_bytes_requested_in_use" not in events[0]:
        raise EdgewrightError("this version of ONNX Runtime does not report its allocator in profiles")
    held = [int(event["mem_bytes_requested_in_use"]) for event in events]
    grown = [int(event["mem_requested_in_use_delta"]) for event in events]
    weights = held[0] - grown[0]
    readers = [
        index
        for index, event in enumerate(events)
        if {"float": list(array.shape)} in event.get("input_type_shape", [])[:1]
    ]
    last = max(readers[:1], default=0)
    return max(value - weights + (array.nbytes if index <= last else 0) for index, value in enumerate(held))


def runtime_arena_bytes(model: bytes | Path) -> int:
    """The block that ONNX Runtime takes for all activations at once, from the second run on: its real arena.

    The first run is watched; from then on its memory pattern has an offset for every tensor in one block, which is held
    from the first operator to the last. Inputs and outputs are the caller's. EdgewrightError where the runtime's
    profile does not say.
    """
    events = [event["args"] for event in _profile(model, 1, 0, 2)]
    if not events or "mem_bytes_requested_in_use" not in events[0]:
        raise EdgewrightError("this version of ONNX Runtime does not report its allocator in profiles")
    held = [int(event["mem_bytes_requested_in_use"]) for event in events]
    grown = [int(event["mem_requested_in_use_delta"]) for event in events]
    second = len(events) // 2
    return held[second] - grown[second] - (held[0] - grown[0])


def _profile(model: bytes | Path, threads: int, seconds: float, runs: int) -> list[dict]:
    """All node events of at least `runs` runs and `seconds`, in order."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(model, threads, profile_prefix=str(Path(folder) / "profile"))
        array = input_for(session)
        start, count = perf_counter(), 0
        while count < runs or (perf_counter() - start < seconds and count < MOST_RUNS):
            run(session, array)
            count += 1
        events = json.loads(Path(session.end_profiling()).read_text())
    return [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]


def _node_times(events: Sequence[dict]) -> tuple[list[str], np.ndarray]:
    """The names of one run's nodes in order, and each one's mean microseconds over the faster half of the runs."""
    first = events[0]["name"]
    starts = [index for index, event in enumerate(events) if event["name"] == first]
    count = starts[1] if len(starts) > 1 else len(events)
    names = [event["name"] for event in events[:count]]
    whole = [events[start : start + count] for start in starts[SKIPPED_RUNS:]]
    micros = np.array([[event["dur"] for event in run_events] for run_events in whole if len(run_events) == count])
    ordered = np.sort(micros, axis=0)[: -(-len(micros) // 2)]
    return names, ordered.mean(axis=0) + 0.5  # the profiler cuts to whole microseconds


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
