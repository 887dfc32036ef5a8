"""What lies on the paths of a network from input to output, on the shortest and the longest: numbers for predictors.

By dynamic programming over the live operators of each block, blocks added up. Every network of a space has the same
numbers in the same order (`NAMES`), whatever the space.
Checked against: every path written out (tests/core/test_paths.py).
"""

import functools
import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from edgewright.ir.graph import Graph
from edgewright.ir.op import Op
from edgewright.ir.structure import live_ops

# What is counted: convolutions, those of kernels over one pixel, average poolings.
COUNTED: dict[str, Callable[[Op], bool]] = {
    "convs": lambda op: op.kind == "conv",
    "wide_convs": lambda op: op.kind == "conv" and op.kernel != 1,
    "poolings": lambda op: op.kind == "avg_pool",
}
NAMES = (
    *(f"{which}_{name}" for name in COUNTED for which in ("live", "mean", "shortest", "longest")),
    "log_paths",
    "log_clean_share",
    "clean_convs",
)


def path_facts(blocks: Iterable[Graph]) -> NDArray[np.float64]:
    """The facts of a network that is `blocks` one after the other, in the order of `NAMES`.

    live: operators of the kind on any path.   mean, shortest, longest: operators of the kind on a path, over paths.
    log_paths: log of the number of paths.   log_clean_share: log of the share of paths without a pooling, of a block at
    least 0.01.   clean_convs: convolutions on paths without a pooling, over the number of all paths.
    A block that no path goes through counts as zeros.
    """
    return sum((_facts(graph) for graph in blocks), start=np.zeros(len(NAMES)))


@functools.lru_cache(maxsize=65_536)
def _facts(graph: Graph) -> NDArray[np.float64]:
    ops = live_ops(graph)
    if not ops and graph.output != graph.input:
        return np.zeros(len(NAMES))
    start, end, found = graph.input, graph.output, []
    paths = _sums(start, ops, lambda op: False)[0]
    for counts in COUNTED.values():
        sums = _sums(start, ops, counts)[1][end] / paths[end]
        extremes = (_extreme(start, ops, counts, pick)[end] for pick in (min, max))
        found += [float(sum(map(counts, ops))), sums, *extremes]
    clean, convs = _sums(start, ops, COUNTED["convs"], closed=COUNTED["poolings"])
    share = max(clean[end] / paths[end], 0.01)
    return np.array([*found, math.log(paths[end]), math.log(share), convs[end] / paths[end]])


def _sums(
    start: int, ops: tuple[Op, ...], counts: Callable[[Op], bool], closed: Callable[[Op], bool] = lambda op: False
) -> tuple[dict[int, float], dict[int, float]]:
    """Of every tensor, the number of paths to it that no `closed` operator is on, and the counted operators on them."""
    paths, total = {start: 1.0}, {start: 0.0}
    for op in ops:
        sources = [name for name in op.inputs if name in paths]
        open_ = 0.0 if closed(op) else 1.0
        paths[op.output] = open_ * sum(paths[name] for name in sources)
        total[op.output] = open_ * sum(total[name] for name in sources) + counts(op) * paths[op.output]
    return paths, total


def _extreme(
    start: int, ops: tuple[Op, ...], counts: Callable[[Op], bool], pick: Callable[[Iterable[int]], int]
) -> dict[int, float]:
    best = {start: 0}
    for op in ops:
        best[op.output] = pick([best[name] for name in op.inputs if name in best]) + counts(op)
    return {name: float(value) for name, value in best.items()}
