"""A network as a list of operators with shapes and no weights: what costs are counted on.

A `Graph` says which operator reads which tensor, so multiply-adds, parameters and the lifetime of every activation
follow by arithmetic, in microseconds; the device room turns the same graph into a runnable file to time it. Spaces
describe each block as a small graph; `chain` makes a network of blocks that have one input and one output, `joined`
puts a head with several inputs on some of them.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from edgewright.ir.op import Kind, Op, pads, params, said, weight, work
from edgewright.ir.sizes import Shape, Size, broadcast, each, places, plain


@dataclass(frozen=True)
class Graph:
    """Operators in running order.   inputs, outputs: the tensors that the network is given and gives, in its caller's
    order; by default tensor 0 and what the last op makes."""

    shapes: tuple[Shape, ...]
    ops: tuple[Op, ...]
    outputs: tuple[int, ...] = ()
    inputs: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", self.outputs or (self._last,))

    @property
    def _last(self) -> int:
        return self.ops[-1].output if self.ops else self.inputs[-1]

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.shapes, self.ops, self.outputs, self.inputs))

    def __hash__(self) -> int:
        return self._hash

    @property
    def input(self) -> int:
        """The tensor that is the input of a network with one; ValueError for others."""
        return _only(self.inputs, "input")

    @property
    def output(self) -> int:
        """The tensor that is the output of a network with one; ValueError for others."""
        return _only(self.outputs, "output")

    @property
    def input_shape(self) -> Shape:
        """Of a network with one input; ValueError for others."""
        return self.shapes[self.input]

    @property
    def output_shape(self) -> Shape:
        """Of a network with one output; ValueError for others."""
        return self.shapes[self.output]

    @property
    def output_shapes(self) -> tuple[Shape, ...]:
        return tuple(self.shapes[name] for name in self.outputs)

    @functools.cached_property
    def signature(self) -> str:
        """A text that is equal for equal graphs: the key of the latency table."""
        head = "&".join("x".join(map(str, self.shapes[name])) for name in self.inputs)
        ops = "|".join(said(op, self.shapes[op.output]) for op in self.ops)
        tail = "" if self.outputs == (self._last,) else f"|>{','.join(map(str, self.outputs))}"
        return f"{head}|{ops}{tail}"


def _only(tensors: tuple[int, ...], what: str) -> int:
    if len(tensors) != 1:
        raise ValueError(f"a network of {len(tensors)} {what}s was asked for its only one")
    return tensors[0]


class GraphBuilder:
    """Builds a graph op by op; every method takes and returns tensor indices."""

    def __init__(self, *input_shapes: Shape) -> None:
        self.shapes: list[Shape] = list(input_shapes)
        self.ops: list[Op] = []
        self.inputs = tuple(range(len(input_shapes)))

    def _emit(self, kind: Kind, inputs: tuple[int, ...], shape: Shape, **attributes) -> int:
        self.shapes.append(shape)
        self.ops.append(Op(kind, inputs, len(self.shapes) - 1, **attributes))
        return len(self.shapes) - 1

    def _alike(self, kind: Kind, x: int, **attributes) -> int:
        return self._emit(kind, (x,), self.shapes[x], **attributes)

    def _windowed(self, kind: Kind, x: int, width: int, **attributes) -> int:
        source, axes = self.shapes[x], len(self.shapes[x]) - 1
        op = Op(kind, (x,), len(self.shapes), **attributes)
        if op.padding is not None and pads(op, source) == pads(replace(op, padding=None), source):
            op = replace(op, padding=None)
        self.shapes.append((width, *places(source[1:], pads(op, source), *op.windows(axes))))
        self.ops.append(op)
        return op.output

    def conv(
        self, x: int, width: int, kernel: Size = 1, stride: Size = 1, groups: int = 1, bias: bool = True,
        *, dilation: Size = 1, padding: Size | None = None,
    ) -> int:  # fmt: skip
        if self.shapes[x][0] % groups or width % groups:
            raise ValueError(f"{groups} groups do not divide {self.shapes[x][0]} channels into {width}")
        sizes = {"kernel": plain(kernel), "stride": plain(stride), "dilation": plain(dilation)}
        return self._windowed("conv", x, width, groups=groups, bias=bias, padding=padding, **sizes)

    def conv_transpose(
        self, x: int, width: int, kernel: Size = 2, stride: Size = 2, groups: int = 1, bias: bool = True
    ) -> int:
        source = self.shapes[x]
        sides = tuple(n * s for n, s in zip(source[1:], each(stride, len(source) - 1), strict=True))
        shape, sizes = (width, *sides), {"kernel": plain(kernel), "stride": plain(stride)}
        return self._emit("conv_transpose", (x,), shape, groups=groups, bias=bias, **sizes)

    def avg_pool(self, x: int, kernel: Size, stride: Size = 1, *, padding: Size | None = None) -> int:
        return self._pool("avg_pool", x, kernel, stride, padding)

    def max_pool(self, x: int, kernel: Size, stride: Size = 1, *, padding: Size | None = None) -> int:
        return self._pool("max_pool", x, kernel, stride, padding)

    def _pool(self, kind: Kind, x: int, kernel: Size, stride: Size, padding: Size | None) -> int:
        width = self.shapes[x][0]
        return self._windowed(kind, x, width, kernel=plain(kernel), stride=plain(stride), padding=padding)

    def upsample(self, x: int, factor: int = 2, *, like: int | None = None, linear: bool = False) -> int:
        """`factor` times as large, or to the sides of tensor `like`."""
        width, *sides = self.shapes[x]
        wanted = tuple(factor * side for side in sides) if like is None else self.shapes[like][1:]
        return self._emit("upsample_linear" if linear else "upsample_nearest", (x,), (width, *wanted))

    def norm(self, x: int) -> int:
        return self._alike("norm", x)

    def layer_norm(self, x: int) -> int:
        return self._alike("layer_norm", x)

    def zero(self, x: int) -> int:
        return self._alike("zero", x)

    def linear(self, x: int, width: int, bias: bool = True) -> int:
        return self._emit("linear", (x,), (*self.shapes[x][:-1], width), bias=bias)

    def matmul(self, a: int, b: int) -> int:
        left, right = self.shapes[a], self.shapes[b]
        if left[:-2] != right[:-2] or left[-1] != right[-2]:
            raise ValueError(f"{left} and {right} cannot be multiplied as matrices")
        return self._emit("matmul", (a, b), (*left[:-1], right[-1]))

    def embedding(self, x: int, rows: int, width: int) -> int:
        return self._emit("embedding", (x,), (*self.shapes[x], width), rows=rows)

    def lstm(self, x: int, width: int) -> int:
        return self._emit("lstm", (x,), (self.shapes[x][0], width))

    def gru(self, x: int, width: int) -> int:
        return self._emit("gru", (x,), (self.shapes[x][0], width))

    def relu(self, x: int) -> int:
        return self._alike("relu", x)

    def sigmoid(self, x: int) -> int:
        return self._alike("sigmoid", x)

    def swish(self, x: int) -> int:
        return self._alike("swish", x)

    def hardsigmoid(self, x: int) -> int:
        return self._alike("hardsigmoid", x)

    def softmax(self, x: int, axis: int) -> int:
        return self._alike("softmax", x, axes=(axis % len(self.shapes[x]),))

    def argmax(self, x: int, axis: int = 0) -> int:
        shape = self.shapes[x]
        place = axis % len(shape)
        return self._emit("argmax", (x,), (*shape[:place], *shape[place + 1 :]), axes=(place,))

    def global_pool(self, x: int) -> int:
        return self._emit("global_pool", (x,), (self.shapes[x][0], *(1 for _ in self.shapes[x][1:])))

    def flatten(self, x: int) -> int:
        return self._emit("flatten", (x,), (prod(self.shapes[x]),))

    def reshape(self, x: int, shape: Shape) -> int:
        if prod(shape) != prod(self.shapes[x]):
            raise ValueError(f"{self.shapes[x]} has not as many numbers as {shape}")
        return self._emit("reshape", (x,), shape)

    def transpose(self, x: int, axes: tuple[int, ...] = (1, 0)) -> int:
        return self._emit("transpose", (x,), tuple(self.shapes[x][axis] for axis in axes), axes=axes)

    def add(self, a: int, b: int) -> int:
        return self._emit("add", (a, b), broadcast(self.shapes[a], self.shapes[b]))

    def mul(self, a: int, b: int) -> int:
        return self._emit("mul", (a, b), broadcast(self.shapes[a], self.shapes[b]))

    def concat(self, *inputs: int) -> int:
        sides = {self.shapes[x][1:] for x in inputs}
        if len(sides) != 1:
            raise ValueError(
                f"tensors of different sides cannot be one: {', '.join(str(self.shapes[x]) for x in inputs)}"
            )
        return self._emit("concat", inputs, (sum(self.shapes[x][0] for x in inputs), *sides.pop()))

    def take(self, x: int, channels: int) -> int:
        return self._emit("take", (x,), (channels, *self.shapes[x][1:]))

    def block(self, graph: Graph, *sources: int) -> tuple[int, ...]:
        """All of another graph, given these tensors as its inputs; its outputs."""
        given = tuple(self.shapes[source] for source in sources)
        wanted = tuple(graph.shapes[name] for name in graph.inputs)
        if given != wanted:
            said = [" and ".join(map(str, shapes)) for shapes in (wanted, given)]
            raise ValueError(f"a block that takes {said[0]} cannot follow one that gives {said[1]}")
        moved = dict(zip(graph.inputs, sources, strict=True))
        moved |= {op.output: index for index, op in enumerate(graph.ops, len(self.shapes))}
        self.shapes += [graph.shapes[op.output] for op in graph.ops]
        self.ops += [_moved(op, moved) for op in graph.ops]
        return tuple(moved[name] for name in graph.outputs)

    def graph(self, *outputs: int) -> Graph:
        """What was built; `outputs`: the tensors that are its outputs, by default the last op's."""
        return Graph(tuple(self.shapes), tuple(self.ops), outputs, self.inputs)


def _moved(op: Op, moved: dict[int, int]) -> Op:
    inputs = tuple([moved[name] for name in op.inputs])
    return Op(
        op.kind, inputs, moved[op.output], op.kernel, op.stride, op.groups, op.bias, op.dilation, op.padding, op.axes,
        op.rows,
    )  # fmt: skip


def chain(graphs: Iterable[Graph]) -> Graph:
    """One graph that runs `graphs` one after the other; each one's outputs are the next one's inputs."""
    builder, outputs = None, ()
    for graph in graphs:
        if builder is None:
            builder = GraphBuilder(*(graph.shapes[name] for name in graph.inputs))
            outputs = builder.inputs
        outputs = builder.block(graph, *outputs)
    if builder is None:
        raise ValueError("a network needs one block at least")
    return builder.graph(*outputs)


def joined(stem: Iterable[Graph], head: Graph, levels: Sequence[int]) -> Graph:
    """One graph that runs the blocks of `stem` one after the other and gives `head` what some of them make.

    levels: for each input of the head, in order, the block whose output it reads, from 0; -1 for the network's input.
    """
    first, *rest = stem
    builder = GraphBuilder(*(first.shapes[tensor] for tensor in first.inputs))
    made = [0, *builder.block(first, *builder.inputs)]
    for block in rest:
        made += builder.block(block, made[-1])
    return builder.graph(*builder.block(head, *(made[level + 1] for level in levels)))


def needed_ops(graph: Graph) -> tuple[Op, ...]:
    """The operators that the outputs depend on, in running order: what is left of a network in a file that ships."""
    wanted, needed = set(graph.outputs), []
    for op in reversed(graph.ops):
        if op.output in wanted:
            needed.append(op)
            wanted.update(op.inputs)
    return tuple(reversed(needed))


def whole_numbers(graph: Graph) -> frozenset[int]:
    """The tensors that hold indices, not measures: inputs of embeddings, and what an argmax gives."""
    read = {op.inputs[0] for op in graph.ops if op.kind == "embedding"}
    return frozenset(read | {op.output for op in graph.ops if op.kind == "argmax"})


def weight_shape(graph: Graph, op: Op) -> Shape:
    """The shape of the op's weight, () for an op without one."""
    return weight(op, graph.shapes[op.inputs[0]], graph.shapes[op.output])


def op_macs(graph: Graph, op: Op) -> int:
    """Multiply-adds of one operator for one input."""
    return work(op, graph.shapes[op.inputs[0]], graph.shapes[op.output]).macs


def op_params(graph: Graph, op: Op) -> int:
    """Weights and biases of one operator as deployed."""
    return params(op, graph.shapes[op.inputs[0]], graph.shapes[op.output])


def count_macs(graph: Graph) -> int:
    """Multiply-adds for one input."""
    return sum(op_macs(graph, op) for op in graph.ops)


def count_params(graph: Graph) -> int:
    """Weights and biases as deployed, with every batch norm folded into its convolution."""
    return sum(op_params(graph, op) for op in graph.ops)
