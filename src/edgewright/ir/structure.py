"""What the wiring of a network says before any weight is drawn: which operators are alive, how long the paths are.

An operator is live when it lies on a path from the input to the output; a `zero` ends every path. On the graph's
operators, by dynamic programming in running order, with e(op) = 1 for a convolution and 0 else, and one path for each
input that an operator reads:

    paths(v)  = sum over inputs u of paths(u)                              paths(input) = 1
    convs(v)  = sum over inputs u of convs(u) + e(v) paths(v)              convolutions, summed over all paths to v
    depth(v)  = max over inputs u of depth(u) + e(v)
    mean convolutions on a path = convs(output) / paths(output)

Networks that are blocks one after the other need each block only once: paths multiply, the rest adds up.
Checked against: every path written out (tests/core/test_structure.py), and the counts of NAS-Bench-201.
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from edgewright.ir.graph import Graph, op_macs, op_params, weight_shape
from edgewright.ir.walk import extreme, is_conv, is_pooling, live_ops, path_sums


@dataclass(frozen=True, slots=True)
class Structure:
    """Facts of a network that need no forward pass. Where no path reaches the output, all are 0.

    live_ops: live operators of any kind.   live_layers: live convolutions, linear layers and recurrences.
    live_poolings: live average poolings (the global one does not count).
    live_macs, live_params: of the live operators, batch norms folded.
    sum_log_sizes: sum over live layers of log(number of weights), natural logarithm.
    paths: from the input to the output.   mean_convs, mean_poolings: mean number of convolutions, and of average
        poolings, on a path.
    depth: most convolutions on one path.
    """

    live_ops: int
    live_layers: int
    live_poolings: int
    live_macs: int
    live_params: int
    sum_log_sizes: float
    paths: int
    mean_convs: float
    mean_poolings: float
    depth: int


LAYERS = ("conv", "conv_transpose", "linear", "lstm", "gru")  # whose weights multiply what they read
NOTHING = Structure(0, 0, 0, 0, 0, 0.0, 0, 0.0, 0.0, 0)


@functools.lru_cache(maxsize=65_536)
def structure(graph: Graph) -> Structure:
    """The facts of one graph; of several outputs the paths to any of them."""
    live = live_ops(graph)
    convs, pools = (path_sums(graph, live, counts) for counts in (is_conv, is_pooling))
    depth = extreme(graph, live, is_conv, max)
    ends = [name for name in graph.outputs if name in depth]
    if not ends:
        return NOTHING
    count = sum(convs[end][0] for end in ends)
    sizes = [prod(weight_shape(graph, op)) for op in live if op.kind in LAYERS]
    return Structure(
        live_ops=len(live),
        live_layers=len(sizes),
        live_poolings=sum(map(is_pooling, live)),
        live_macs=sum(op_macs(graph, op) for op in live),
        live_params=sum(op_params(graph, op) for op in live),
        sum_log_sizes=sum(map(math.log, sizes)),
        paths=count,
        mean_convs=sum(convs[end][1] for end in ends) / count,
        mean_poolings=sum(pools[end][1] for end in ends) / count,
        depth=max(depth[end] for end in ends),
    )


def chained(parts: Iterable[Structure]) -> Structure:
    """The facts of blocks that run one after the other."""
    blocks = list(parts)
    if any(not block.paths for block in blocks):
        return NOTHING
    return Structure(
        live_ops=sum(block.live_ops for block in blocks),
        live_layers=sum(block.live_layers for block in blocks),
        live_poolings=sum(block.live_poolings for block in blocks),
        live_macs=sum(block.live_macs for block in blocks),
        live_params=sum(block.live_params for block in blocks),
        sum_log_sizes=math.fsum(block.sum_log_sizes for block in blocks),
        paths=prod(block.paths for block in blocks),
        mean_convs=math.fsum(block.mean_convs for block in blocks),
        mean_poolings=math.fsum(block.mean_poolings for block in blocks),
        depth=sum(block.depth for block in blocks),
    )
