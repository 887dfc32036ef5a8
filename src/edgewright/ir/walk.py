"""The pass over the wiring of a graph that `structure`, `paths` and `signal` share.

Each says what an operator makes of what it reads; the pass goes over the live operators in running order.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from edgewright.ir.graph import Graph
from edgewright.ir.op import Op

Value = TypeVar("Value")
Which = Callable[[Op], bool]


def is_conv(op: Op) -> bool:
    return op.kind == "conv"


def is_pooling(op: Op) -> bool:
    """An average pooling; the global one is none."""
    return op.kind == "avg_pool"


def live_ops(graph: Graph) -> tuple[Op, ...]:
    """The operators on a path from an input to an output, in running order; a `zero` ends every path."""
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


def walk(
    inputs: Mapping[int, Value], ops: Sequence[Op], made: Callable[[Op, list[tuple[int, Value]]], Value]
) -> dict[int, Value]:
    """The value of every tensor that `ops`, all live, make.

    inputs: the values of the network's inputs.   made: the value of what an operator makes, from the tensors that it
    reads and their values, in order, once for every time that one is read; dead ones are left out.
    """
    values = dict(inputs)
    for op in ops:
        values[op.output] = made(op, [(name, values[name]) for name in op.inputs if name in values])
    return values


def path_sums(
    graph: Graph, ops: Sequence[Op], counts: Which, closed: Which = lambda op: False
) -> dict[int, tuple[int, int]]:
    """Of every tensor, the number of paths to it that no `closed` operator is on, and the counted operators on them."""

    def made(op: Op, sources: list[tuple[int, tuple[int, int]]]) -> tuple[int, int]:
        if closed(op):
            return 0, 0
        paths = sum(paths for _, (paths, _) in sources)
        return paths, sum(total for _, (_, total) in sources) + counts(op) * paths

    return walk(dict.fromkeys(graph.inputs, (1, 0)), ops, made)


def extreme(graph: Graph, ops: Sequence[Op], counts: Which, pick: Callable[[Iterable[int]], int]) -> dict[int, int]:
    """Of every tensor, the counted operators on the path to it that has fewest or most (`pick`: min or max)."""
    start = dict.fromkeys(graph.inputs, 0)
    return walk(start, ops, lambda op, sources: pick(value for _, value in sources) + counts(op))
