"""Facts of the wiring against every path written out."""

import math
import random

import pytest

from edgewright.ir.graph import Graph, GraphBuilder, chain, op_macs, op_params
from edgewright.ir.structure import NOTHING, chained, structure
from edgewright.ir.walk import live_ops


def scattered(rng: random.Random, channels: int) -> Graph:
    """Operators that read random earlier tensors; some lead nowhere, some are cut off by zeros."""
    builder = GraphBuilder((channels, 7, 5))
    for _ in range(rng.randint(1, 9)):
        x, y = rng.randrange(len(builder.shapes)), rng.randrange(len(builder.shapes))
        kind = rng.choice(("conv", "conv", "relu", "avg_pool", "add", "add", "zero"))
        if kind == "conv":
            builder.conv(x, channels, rng.choice((1, 3)))
        elif kind == "avg_pool":
            builder.avg_pool(x, 3)
        elif kind == "add":
            builder.add(x, y)
        else:
            getattr(builder, kind)(x)
    return builder.graph(rng.randrange(len(builder.shapes)))


def all_paths(graph: Graph) -> list[tuple[int, ...]]:
    """Every path as the ops' outputs on it, from the output backwards; an op that reads a tensor twice is two."""
    made = {op.output: op for op in graph.ops}

    def back(tensor: int) -> list[tuple[int, ...]]:
        if tensor == 0:
            return [()]
        if made[tensor].kind == "zero":
            return []
        return [(*path, tensor) for source in made[tensor].inputs for path in back(source)]

    return back(graph.output)


@pytest.mark.parametrize("seed", range(60))
def test_facts_are_those_of_all_paths(seed):
    graph = scattered(random.Random(seed), 4)
    made = {op.output: op for op in graph.ops}
    paths, facts = all_paths(graph), structure(graph)
    if not paths:
        assert facts == NOTHING
        return
    on_a_path = {tensor for path in paths for tensor in path}
    convs = [sum(made[tensor].kind == "conv" for tensor in path) for path in paths]
    live = [made[tensor] for tensor in on_a_path]
    assert {op.output for op in live_ops(graph)} == on_a_path
    assert (facts.paths, facts.depth, facts.live_ops) == (len(paths), max(convs), len(live))
    assert facts.mean_convs == pytest.approx(sum(convs) / len(paths))
    pools = [sum(made[tensor].kind == "avg_pool" for tensor in path) for path in paths]
    assert facts.mean_poolings == pytest.approx(sum(pools) / len(paths))
    assert facts.live_macs == sum(op_macs(graph, op) for op in live)
    assert facts.live_params == sum(op_params(graph, op) for op in live)
    assert facts.live_poolings == sum(op.kind == "avg_pool" for op in live)
    sizes = [4 * 4 * op.kernel**2 for op in live if op.kind == "conv"]
    assert facts.live_layers == len(sizes)
    assert facts.sum_log_sizes == pytest.approx(sum(map(math.log, sizes)))


def test_blocks_in_a_row_are_one_network():
    rng = random.Random(0)
    for _ in range(80):
        graphs = [scattered(rng, 4) for _ in range(3)]
        whole, parts = structure(chain(graphs)), chained(map(structure, graphs))
        assert (whole.paths, whole.depth, whole.live_macs, whole.live_ops) == (
            (parts.paths, parts.depth, parts.live_macs, parts.live_ops)
        )
        assert whole.mean_convs == pytest.approx(parts.mean_convs)


def test_nothing_at_all_is_one_path():
    empty = structure(GraphBuilder((3, 4, 4)).graph())
    assert (empty.paths, empty.live_ops, empty.mean_convs) == (1, 0, 0.0)
