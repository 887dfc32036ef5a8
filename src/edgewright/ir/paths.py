"""What lies on the paths of a network from input to output, on the shortest and the longest: numbers for predictors.

By dynamic programming over the live operators of each block, blocks added up. Every network of a space has the same
numbers in the same order (`NAMES`), whatever the space.
Checked against: every path written out (tests/core/test_paths.py).
"""

import functools
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edgewright.ir.graph import Graph
from edgewright.ir.walk import Which, extreme, is_conv, is_pooling, live_ops, path_sums

# What is counted: convolutions, those of kernels over one pixel, average poolings.
COUNTED: dict[str, Which] = {
    "convs": is_conv,
    "wide_convs": lambda op: op.kind == "conv" and op.kernel != 1,
    "poolings": is_pooling,
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
    end, found = graph.output, []
    for counts in COUNTED.values():
        paths, total = path_sums(graph, ops, counts)[end]
        extremes = (float(extreme(graph, ops, counts, pick)[end]) for pick in (min, max))
        found += [float(sum(map(counts, ops))), total / paths, *extremes]
    paths, _ = path_sums(graph, ops, is_conv)[end]
    clean, convs = path_sums(graph, ops, is_conv, closed=is_pooling)[end]
    return np.array([*found, math.log(paths), math.log(max(clean / paths, 0.01)), convs / paths])
