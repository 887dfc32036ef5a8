"""One operator of a network as data: its options, the text that tells it from others, its weight and what it counts.

A new kind of operator is a word in `Kind`, a line in `Op`, what it has of a weight, multiply-adds and biases at the end
of this file, a method of `graph.GraphBuilder` and its nodes in `to_onnx`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edgewright.ir import counts
from edgewright.ir.sizes import Pads, Shape, Size, centred, covering, cropped, each, text

Kind = Literal[
    "conv", "conv_transpose", "linear", "matmul", "embedding", "lstm", "gru", "norm", "layer_norm", "add", "mul",
    "relu", "hardsigmoid", "swish", "sigmoid", "softmax", "avg_pool", "max_pool", "global_pool", "upsample_nearest",
    "upsample_linear", "flatten", "reshape", "transpose", "concat", "take", "argmax", "zero",
]  # fmt: skip
WINDOWED = frozenset({"conv", "conv_transpose", "avg_pool", "max_pool"})
CHANNELS_LAST = frozenset({"linear", "matmul", "embedding", "lstm", "gru", "layer_norm"})


@dataclass(frozen=True, slots=True)
class Op:
    """One operator. Tensors are named by their index into `Graph.shapes`; every op makes one tensor.

    Images and series (C, H, W), (C, L): channels first.
    conv: inputs (x,), weight (C_out, C_in / groups, *kernel), `padding` on both sides, by default
        dilation * (kernel // 2), bias (batch norm folded in) unless `bias` is false.
    conv_transpose: inputs (x,), weight (C_in, C_out / groups, *kernel), cropped to `stride` times the size of x.
    norm: inputs (x,), a batch norm that no convolution takes in: a factor and a shift for each channel.
    avg_pool, max_pool: inputs (x,), over the pixels that exist.   global_pool ((C, H, W) to (C, 1, 1)).
    upsample_nearest, upsample_linear: inputs (x,), to the sides of the output; pixels are squares, their corners meet.
    concat: inputs (a, b, ...) one after the other along C.   take: the first C_out channels of inputs (x,).

    Tokens (tokens, C): channels last.
    linear: inputs (x,), weight (C_out, C_in), bias, along the last axis, also of a vector (C,).
    matmul: inputs (a, b), (..., M, K) times (..., K, N).   layer_norm: along the last axis, a factor and a shift.
    embedding: inputs (x,), whole numbers; one of `rows` rows of C for each.
    lstm, gru: inputs (x,), (steps, C) to (steps, H), weights (gates H, C) and (gates H, H), two biases (gates H).

    Of any shape: add, mul: inputs (a, b), sides of 1 are broadcast.   relu, hardsigmoid (clip(x / 6 + 1 / 2, 0, 1)),
    sigmoid, swish (x sigmoid(x)).   softmax: along `axes`.   argmax: along `axes`, which goes.
    flatten (to (C,)), reshape (to the shape of the output).   transpose: axis i of the output is axis axes[i] of x.
    zero: zeros of the shape of inputs (x,), whatever x is.
    """

    kind: Kind
    inputs: tuple[int, ...]
    output: int
    kernel: Size = 1
    stride: Size = 1
    groups: int = 1
    bias: bool = True
    dilation: Size = 1
    padding: Size | None = None
    axes: tuple[int, ...] = ()
    rows: int = 0

    def windows(self, axes: int) -> tuple[Shape, Shape, Shape]:
        """Its kernel, stride and dilation along each of so many axes."""
        return each(self.kernel, axes), each(self.stride, axes), each(self.dilation, axes)


def said(op: Op, shape: Shape) -> str:
    """One operator; what has its default is not said, so that a text is as it was before there were more options."""
    words = f"{op.kind}{','.join(map(str, op.inputs))}>{op.output}:{'x'.join(map(str, shape))}"
    if op.kind in WINDOWED:
        words += f"k{text(op.kernel)}s{text(op.stride)}g{op.groups}"
    words += "" if op.dilation == 1 else f"d{text(op.dilation)}"
    words += "" if op.padding is None else f"p{text(op.padding)}"
    words += f"a{','.join(map(str, op.axes))}" if op.axes else ""
    words += f"r{op.rows}" if op.rows else ""
    return words + ("" if op.bias else "n")


def pads(op: Op, source: Shape) -> Pads:
    """Of a convolution or pooling, what is added before and after each axis of `source`, (C, sides); of a transposed
    convolution what is cropped, less than 0 where rows are added at the end."""
    axes = len(source) - 1
    kernel, stride, dilation = op.windows(axes)
    if op.padding is not None:
        return tuple((pad, pad) for pad in each(op.padding, axes))
    if op.kind == "conv":
        return centred(kernel, dilation)
    return cropped(kernel, stride) if op.kind == "conv_transpose" else covering(source[1:], kernel, stride)


Shaped = Callable[[Op, Shape, Shape], Shape]  # of an operator, what it reads and what it makes
Worked = Callable[[Op, Shape, Shape, Shape], counts.Work]  # of its weight, what it reads and what it makes
Counted = Callable[[Shape, Shape], int]  # of its weight and what it makes


def _recurrent(op: Op, source: Shape, output: Shape) -> Shape:
    return (counts.GATES[op.kind] * output[-1], source[-1] + output[-1])


_WEIGHTS: dict[str, Shaped] = {
    "conv": lambda op, x, y: (y[0], x[0] // op.groups, *each(op.kernel, len(x) - 1)),
    "conv_transpose": lambda op, x, y: (x[0], y[0] // op.groups, *each(op.kernel, len(x) - 1)),
    "linear": lambda op, x, y: (y[-1], x[-1]),
    "embedding": lambda op, x, y: (op.rows, y[-1]),
    "lstm": _recurrent,
    "gru": _recurrent,
}
_WORK: dict[str, Worked] = {
    "conv": lambda op, w, x, y: counts.convolution(w, y, op.groups),
    "conv_transpose": lambda op, w, x, y: counts.transposed(w, x, op.groups),
    "linear": lambda op, w, x, y: counts.product(x[-1], y, w),
    "matmul": lambda op, w, x, y: counts.product(x[-1], y),
    "embedding": lambda op, w, x, y: counts.fetch(w),
    "lstm": lambda op, w, x, y: counts.recurrence([w], x[0]),
    "gru": lambda op, w, x, y: counts.recurrence([w], x[0]),
}
_BIASES: dict[str, Counted] = {
    "conv": lambda w, y: y[0],
    "conv_transpose": lambda w, y: y[0],
    "linear": lambda w, y: y[-1],
    "lstm": lambda w, y: 2 * w[0],
    "gru": lambda w, y: 2 * w[0],
    "norm": lambda w, y: 2 * y[0],
    "layer_norm": lambda w, y: 2 * y[-1],
}


def weight(op: Op, source: Shape, output: Shape) -> Shape:
    """The shape of its weight, () where it has none; of a recurrence both weights side by side."""
    shape = _WEIGHTS.get(op.kind)
    return shape(op, source, output) if shape else ()


def work(op: Op, source: Shape, output: Shape) -> counts.Work:
    """What it computes for one input."""
    count = _WORK.get(op.kind)
    return count(op, weight(op, source, output), source, output) if count else counts.NOTHING


def params(op: Op, source: Shape, output: Shape) -> int:
    """Weights and biases as deployed; a norm on its own has two a channel."""
    shape, biases = weight(op, source, output), _BIASES.get(op.kind)
    return counts.numbers(shape) + (biases(shape, output) if biases and op.bias else 0)
