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
from edgewright.ir.op import Op


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


def live_ops(graph: Graph) -> tuple[Op, ...]:
    """The operators on a path from an input to an output, in running order."""
    reached = set(graph.inputs)
    for op in graph.ops:
        if op.kind != "zero" and any(name in reached for name in op.inputs):
            reached.add(op.output)
    wanted, live = set(graph.outputs), []
    for op in reversed(graph.ops):
        if op.output in wanted and op.output in reached:
            live.append(op)
            wanted.update(op.inputs)
    return tuple(reversed(live))


@functools.lru_cache(maxsize=65_536)
def structure(graph: Graph) -> Structure:
    """The facts of one graph; of several outputs the paths to any of them."""
    paths = dict.fromkeys(graph.inputs, 1)
    convs, pools, depth = (dict.fromkeys(graph.inputs, 0) for _ in range(3))
    live = live_ops(graph)
    for op in live:
        sources = [name for name in op.inputs if name in paths]
        own = int(op.kind == "conv")
        paths[op.output] = sum(paths[name] for name in sources)
        convs[op.output] = sum(convs[name] for name in sources) + own * paths[op.output]
        pools[op.output] = sum(pools[name] for name in sources) + (op.kind == "avg_pool") * paths[op.output]
        depth[op.output] = max(depth[name] for name in sources) + own
    ends = [name for name in graph.outputs if name in paths]
    if not ends:
        return NOTHING
    count = sum(paths[end] for end in ends)
    sizes = [prod(weight_shape(graph, op)) for op in live if op.kind in LAYERS]
    return Structure(
        live_ops=len(live),
        live_layers=len(sizes),
        live_poolings=sum(op.kind == "avg_pool" for op in live),
        live_macs=sum(op_macs(graph, op) for op in live),
        live_params=sum(op_params(graph, op) for op in live),
        sum_log_sizes=sum(map(math.log, sizes)),
        paths=count,
        mean_convs=sum(convs[end] for end in ends) / count,
        mean_poolings=sum(pools[end] for end in ends) / count,
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
