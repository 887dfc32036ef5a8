"""A network as a list of operators with shapes and no weights: what costs are counted on.

A `Graph` says which operator reads which tensor, so multiply-adds, parameters and the lifetime of every activation
follow by arithmetic, in microseconds; the device room turns the same graph into a runnable file to time it. Spaces
describe each block as a small graph with one input and one output; `chain` makes a network of them.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Literal

Kind = Literal[
    "conv", "linear", "norm", "add", "mul", "relu", "hardsigmoid", "swish", "sigmoid", "avg_pool", "global_pool",
    "flatten", "concat", "take", "zero",
]  # fmt: skip
Shape = tuple[int, ...]  # without the batch: (C, H, W) or (C,)


@dataclass(frozen=True, slots=True)
class Op:
    """One operator. Tensors are named by their index into `Graph.shapes`; every op makes one tensor.

    conv: inputs (x,), weight (C_out, C_in / groups, kernel, kernel), padding kernel // 2, bias (batch norm folded in)
        unless `bias` is false.
    linear: inputs (x,), weight (C_out, C_in), bias.   add, mul: inputs (a, b), (C, 1, 1) broadcasts over (C, H, W).
    norm: inputs (x,), a batch norm that no convolution takes in: a factor and a shift for each channel.
    relu, hardsigmoid (clip(x / 6 + 1 / 2, 0, 1)), sigmoid, swish (x sigmoid(x)).
    avg_pool: inputs (x,), padding (kernel - 1) // 2; means are over the pixels that exist.
    global_pool ((C, H, W) to (C, 1, 1)), flatten ((C, 1, 1) to (C,)).
    concat: inputs (a, b, ...) one after the other along C.   take: the first C_out channels of inputs (x,).
    zero: zeros of the shape of inputs (x,), whatever x is.
    """

    kind: Kind
    inputs: tuple[int, ...]
    output: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = True


@dataclass(frozen=True)
class Graph:
    """Operators in running order. Tensor 0 is the input; the output is tensor `sink`, by default the last op's."""

    shapes: tuple[Shape, ...]
    ops: tuple[Op, ...]
    sink: int | None = None

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.shapes, self.ops, self.sink))

    def __hash__(self) -> int:
        return self._hash

    @property
    def output(self) -> int:
        """The tensor that is the output."""
        if self.sink is not None:
            return self.sink
        return self.ops[-1].output if self.ops else 0

    @property
    def input_shape(self) -> Shape:
        return self.shapes[0]

    @property
    def output_shape(self) -> Shape:
        return self.shapes[self.output]

    @functools.cached_property
    def signature(self) -> str:
        """A text that is equal for equal graphs: the key of the latency table."""
        head = "x".join(map(str, self.input_shape))
        ops = (
            f"{op.kind}{','.join(map(str, op.inputs))}>{op.output}:{'x'.join(map(str, self.shapes[op.output]))}"
            + (f"k{op.kernel}s{op.stride}g{op.groups}" if op.kind in ("conv", "avg_pool") else "")
            + ("" if op.bias else "n")
            for op in self.ops
        )
        tail = "" if self.sink is None else f"|>{self.sink}"
        return f"{head}|{'|'.join(ops)}{tail}"


class GraphBuilder:
    """Builds a graph op by op; every method takes and returns tensor indices."""

    def __init__(self, input_shape: Shape) -> None:
        self.shapes: list[Shape] = [input_shape]
        self.ops: list[Op] = []

    def _emit(self, kind: Kind, inputs: tuple[int, ...], shape: Shape, bias: bool = True, **attributes: int) -> int:
        self.shapes.append(shape)
        self.ops.append(Op(kind, inputs, len(self.shapes) - 1, bias=bias, **attributes))
        return len(self.shapes) - 1

    def conv(self, x: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = True) -> int:
        _, height, breadth = self.shapes[x]
        shape = (width, -(-height // stride), -(-breadth // stride))
        return self._emit("conv", (x,), shape, kernel=kernel, stride=stride, groups=groups, bias=bias)

    def avg_pool(self, x: int, kernel: int, stride: int = 1) -> int:
        width, height, breadth = self.shapes[x]
        shape = (width, -(-height // stride), -(-breadth // stride))
        return self._emit("avg_pool", (x,), shape, kernel=kernel, stride=stride)

    def norm(self, x: int) -> int:
        return self._emit("norm", (x,), self.shapes[x])

    def zero(self, x: int) -> int:
        return self._emit("zero", (x,), self.shapes[x])

    def linear(self, x: int, width: int) -> int:
        return self._emit("linear", (x,), (width,))

    def relu(self, x: int) -> int:
        return self._emit("relu", (x,), self.shapes[x])

    def sigmoid(self, x: int) -> int:
        return self._emit("sigmoid", (x,), self.shapes[x])

    def swish(self, x: int) -> int:
        return self._emit("swish", (x,), self.shapes[x])

    def hardsigmoid(self, x: int) -> int:
        return self._emit("hardsigmoid", (x,), self.shapes[x])

    def global_pool(self, x: int) -> int:
        return self._emit("global_pool", (x,), (self.shapes[x][0], 1, 1))

    def flatten(self, x: int) -> int:
        return self._emit("flatten", (x,), (prod(self.shapes[x]),))

    def add(self, a: int, b: int) -> int:
        return self._emit("add", (a, b), self.shapes[a])

    def mul(self, a: int, b: int) -> int:
        return self._emit("mul", (a, b), self.shapes[a])

    def concat(self, *inputs: int) -> int:
        channels = sum(self.shapes[x][0] for x in inputs)
        return self._emit("concat", inputs, (channels, *self.shapes[inputs[0]][1:]))

    def take(self, x: int, channels: int) -> int:
        return self._emit("take", (x,), (channels, *self.shapes[x][1:]))

    def graph(self, output: int | None = None) -> Graph:
        """What was built; `output`: the tensor that is its output, by default the last op's."""
        last = self.ops[-1].output if self.ops else 0
        return Graph(tuple(self.shapes), tuple(self.ops), None if output in (None, last) else output)


def chain(graphs: Iterable[Graph]) -> Graph:
    """One graph that runs `graphs` one after the other; each one's output shape is the next one's input shape."""
    first, *rest = graphs
    shapes, ops, tail = list(first.shapes), list(first.ops), first.output
    for graph in rest:
        if graph.input_shape != shapes[tail]:
            raise ValueError(f"a block that takes {graph.input_shape} cannot follow one that gives {shapes[tail]}")
        # Tensor 0 of the next graph is the tail of what is there; the others move up.
        moved = [tail, *range(len(shapes), len(shapes) + len(graph.shapes) - 1)]
        shapes.extend(graph.shapes[1:])
        ops.extend(
            Op(op.kind, tuple(moved[i] for i in op.inputs), moved[op.output], op.kernel, op.stride, op.groups, op.bias)
            for op in graph.ops
        )
        tail = moved[graph.output]
    last = ops[-1].output if ops else 0
    return Graph(tuple(shapes), tuple(ops), None if tail == last else tail)


def needed_ops(graph: Graph) -> tuple[Op, ...]:
    """The operators that the output depends on, in running order: what is left of a network in a file that ships."""
    wanted, needed = {graph.output}, []
    for op in reversed(graph.ops):
        if op.output in wanted:
            needed.append(op)
            wanted.update(op.inputs)
    return tuple(reversed(needed))


def weight_shape(graph: Graph, op: Op) -> Shape:
    """The shape of the op's weight, () for an op without one."""
    width, source = graph.shapes[op.output][0], graph.shapes[op.inputs[0]][0]
    if op.kind == "conv":
        return (width, source // op.groups, op.kernel, op.kernel)
    return (width, source) if op.kind == "linear" else ()


def op_macs(graph: Graph, op: Op) -> int:
    """Multiply-adds of one convolution or linear layer; other operators count as none, as is customary."""
    return prod(weight_shape(graph, op)) * prod(graph.shapes[op.output][1:]) if op.kind in ("conv", "linear") else 0


def op_params(graph: Graph, op: Op) -> int:
    """Weights and biases of one operator as deployed; a batch norm on its own counts two a channel."""
    if op.kind == "norm":
        return 2 * graph.shapes[op.output][0]
    shape = weight_shape(graph, op)
    return prod(shape) + (shape[0] if op.bias else 0) if shape else 0


def count_macs(graph: Graph) -> int:
    """Multiply-adds of convolutions and linear layers for one input; other operators count as none, as is customary."""
    return sum(op_macs(graph, op) for op in graph.ops)


def count_params(graph: Graph) -> int:
    """Weights and biases as deployed, with every batch norm folded into its convolution."""
    return sum(op_params(graph, op) for op in graph.ops)
