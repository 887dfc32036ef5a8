"""A `Graph` as a runnable ONNX file with random weights: what is timed when no trained network exists yet."""

from collections.abc import Callable, Sequence
from math import prod, sqrt
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgewright.core.seed import derive
from edgewright.ir.counts import GATES
from edgewright.ir.graph import Graph, needed_ops, weight_shape, whole_numbers
from edgewright.ir.op import Op, pads
from edgewright.ir.sizes import Shape

OPSET = 18
IR_VERSION = 10


def to_onnx(graph: Graph, seed: int = 0) -> bytes:
    """Serialise `graph` as an ONNX model: opset 18, float32 (indices int64), batch 1.

    Its input is "input" and its output "logits"; of several, the inputs are "input0", "input1", ... and the outputs
    keep the names of their tensors. Weights are normal with standard deviation sqrt(2 / fan_in) and biases normal times
    0.01, from `seed` only, so that activations keep a normal size (denormal or infinite values would be timed
    differently). Tensor i of the graph is named "t<i>" and the node that makes it "n<i>": the names by which a profile
    is read back. Operators that no output depends on are left out.

    Checked against: a torch functional evaluation of the same weights (tests/ir/test_to_onnx.py).
    """
    writer = _Writer(graph, np.random.default_rng(derive(seed, "onnx_graph")))
    for op in needed_ops(graph):
        _NODES[op.kind](writer, op)
    whole = whole_numbers(graph)
    source, sink = (
        [
            helper.make_tensor_value_info(name, TensorProto.INT64 if index in whole else TensorProto.FLOAT, shape)
            for index, name, shape in tensors
        ]
        for tensors in (writer.inputs(), writer.outputs())
    )
    body = helper.make_graph(writer.nodes, "edgewright", source, sink, initializer=writer.weights)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return model.SerializeToString()


class _Writer:
    """The nodes and weights of one graph, and the names of its tensors."""

    def __init__(self, graph: Graph, rng: np.random.Generator) -> None:
        self.graph, self.rng = graph, rng
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.names = {index: f"t{index}" for index in range(len(graph.shapes))}
        alone = len(graph.inputs) == 1
        self.names |= {index: "input" if alone else f"input{n}" for n, index in enumerate(graph.inputs)}
        if len(graph.outputs) == 1 and graph.output not in graph.inputs:
            self.names[graph.output] = "logits"

    def inputs(self) -> list[tuple[int, str, Shape]]:
        """Of each input its tensor, name and shape."""
        return [(index, self.names[index], (1, *self.graph.shapes[index])) for index in self.graph.inputs]

    def outputs(self) -> list[tuple[int, str, Shape]]:
        """The same of each output; what is also an input is handed on under a name of its own."""
        found = []
        for number, index in enumerate(self.graph.outputs):
            name = self.names[index]
            if index in self.graph.inputs:
                name = "logits" if len(self.graph.outputs) == 1 else f"{name}_given"
                self.nodes.append(helper.make_node("Identity", [self.names[index]], [name], name=f"n{number}_given"))
            found.append((index, name, (1, *self.graph.shapes[index])))
        return found

    def node(self, op: Op, kind: str, more: Sequence[str] = (), **attributes: Any) -> None:
        """The op as one node that reads its tensors and `more`."""
        self.step(op, kind, [*(self.names[name] for name in op.inputs), *more], "", **attributes)

    def step(self, op: Op, kind: str, inputs: Sequence[str], part: str, **attributes: Any) -> str:
        """One of the nodes that an op takes; part: its name among them, "" for the last, which makes the op's tensor.
        The name of what it makes."""
        made = f"t{op.output}_{part}" if part else self.names[op.output]
        name = f"n{op.output}_{part}" if part else f"n{op.output}"
        self.nodes.append(helper.make_node(kind, inputs, [made], name=name, **attributes))
        return made

    def normal(self, name: str, shape: Shape, scale: float, mean: float = 0.0) -> str:
        return self.floats(name, np.float32(mean) + self.rng.standard_normal(shape, np.float32) * np.float32(scale))

    def floats(self, name: str, values: np.ndarray) -> str:
        data = values.astype(np.float32)
        self.weights.append(
            TensorProto(name=name, data_type=TensorProto.FLOAT, dims=data.shape, raw_data=data.tobytes())
        )
        return name

    def whole(self, name: str, values: Sequence[int]) -> str:
        self.weights.append(helper.make_tensor(name, TensorProto.INT64, (len(values),), values))
        return name

    def layer(self, op: Op, shape: Shape, fan_in: int) -> list[str]:
        """A weight of this shape, and the bias where there is one."""
        weight = self.normal(f"w{op.output}", shape, sqrt(2 / fan_in))
        return [weight, *([self.normal(f"b{op.output}", (self.width(op),), 0.01)] if op.bias else [])]

    def source(self, op: Op) -> Shape:
        return self.graph.shapes[op.inputs[0]]

    def shape(self, op: Op) -> Shape:
        return self.graph.shapes[op.output]

    def width(self, op: Op) -> int:
        """How many channels it makes: last of tokens, else first."""
        return self.shape(op)[-1 if op.kind == "linear" else 0]


def _windows(w: _Writer, op: Op) -> dict[str, Any]:
    source = w.source(op)
    kernel, stride, dilation = op.windows(len(source) - 1)
    around = pads(op, source)
    found = {"kernel_shape": kernel, "strides": stride, "pads": [*(b for b, _ in around), *(e for _, e in around)]}
    return found | ({"dilations": dilation} if op.dilation != 1 else {})


def _conv(w: _Writer, op: Op) -> None:
    shape = weight_shape(w.graph, op)
    w.node(op, "Conv", w.layer(op, shape, prod(shape[1:])), group=op.groups, **_windows(w, op))


def _conv_transpose(w: _Writer, op: Op) -> None:
    shape, options = weight_shape(w.graph, op), _windows(w, op)
    fan_in = max(1, shape[0] // op.groups * prod(shape[2:]) // prod(options["strides"]))
    around = options["pads"]
    if min(around) < 0:  # not cropped but added to, which ONNX says in other words
        options |= {"pads": [max(0, pad) for pad in around]}
        options |= {"output_padding": [max(0, -pad) for pad in around[len(around) // 2 :]]}
    w.node(op, "ConvTranspose", w.layer(op, shape, fan_in), group=op.groups, **options)


def _linear(w: _Writer, op: Op) -> None:
    """A vector's as one node; along the last axis of tokens a product and a sum, as exporters write it."""
    width, fan_in = weight_shape(w.graph, op)
    if len(w.source(op)) == 1:
        w.node(op, "Gemm", w.layer(op, (width, fan_in), fan_in), transB=1)
        return
    weight, *bias = w.layer(op, (fan_in, width), fan_in)
    made = w.step(op, "MatMul", [w.names[op.inputs[0]], weight], "product" if bias else "")
    if bias:
        w.step(op, "Add", [made, *bias], "")


def _embedding(w: _Writer, op: Op) -> None:
    w.step(op, "Gather", [w.normal(f"w{op.output}", weight_shape(w.graph, op), 1.0), w.names[op.inputs[0]]], "")


def _recurrent(w: _Writer, op: Op) -> None:
    """One direction, batch 1: (1, steps, C) is (steps, 1, C) to the operator."""
    (steps, channels), width = w.source(op), w.shape(op)[-1]
    gates, scale = GATES[op.kind] * width, sqrt(1 / width)
    made = w.step(op, "Transpose", [w.names[op.inputs[0]]], "turned", perm=[1, 0, 2])
    weights = [
        w.normal(f"w{op.output}", (1, gates, channels), scale),
        w.normal(f"r{op.output}", (1, gates, width), scale),
        w.normal(f"b{op.output}", (1, 2 * gates), 0.01),
    ]
    options = {"linear_before_reset": 1} if op.kind == "gru" else {}
    made = w.step(op, op.kind.upper(), [made, *weights], "steps", hidden_size=width, **options)
    w.step(op, "Reshape", [made, w.whole(f"shape{op.output}", (1, steps, width))], "")


def _norm(w: _Writer, op: Op) -> None:
    """A batch norm whose statistics are folded into its factor and shift: mean 0, variance 1."""
    width = w.shape(op)[0]
    still = w.floats(f"mean{op.output}", np.zeros(width)), w.floats(f"var{op.output}", np.ones(width))
    w.node(op, "BatchNormalization", [*_factors(w, op, width), *still], epsilon=0.0)


def _factors(w: _Writer, op: Op, width: int) -> tuple[str, str]:
    return w.normal(f"w{op.output}", (width,), 0.1, mean=1.0), w.normal(f"b{op.output}", (width,), 0.01)


def _upsample(mode: str) -> Callable[[_Writer, Op], None]:
    def node(w: _Writer, op: Op) -> None:
        places = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"} if mode == "nearest" else {}
        sizes = w.whole(f"size{op.output}", (1, *w.shape(op)))
        w.node(op, "Resize", ["", "", sizes], mode=mode, **places)

    return node


def _swish(w: _Writer, op: Op) -> None:
    source = w.names[op.inputs[0]]
    w.step(op, "Mul", [source, w.step(op, "Sigmoid", [source], "gate")], "")


def _take(w: _Writer, op: Op) -> None:
    bounds = {"start": 0, "end": w.shape(op)[0], "axis": 1}  # channels 0 to C_out of axis 1
    w.node(op, "Slice", [w.whole(f"{name}{op.output}", (value,)) for name, value in bounds.items()])


def _as(kind: str, **attributes: Any) -> Callable[[_Writer, Op], None]:
    """An operator that ONNX has as it is."""
    return lambda w, op: w.node(op, kind, **attributes)


_NODES: dict[str, Callable[[_Writer, Op], None]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "matmul": _as("MatMul"),
    "embedding": _embedding,
    "lstm": _recurrent,
    "gru": _recurrent,
    "norm": _norm,
    "layer_norm": lambda w, op: w.node(op, "LayerNormalization", _factors(w, op, w.shape(op)[-1])),
    "add": _as("Add"),
    "mul": _as("Mul"),
    "relu": _as("Relu"),
    "hardsigmoid": _as("HardSigmoid", alpha=1 / 6, beta=0.5),
    "swish": _swish,
    "sigmoid": _as("Sigmoid"),
    "softmax": lambda w, op: w.node(op, "Softmax", axis=op.axes[0] + 1),
    "avg_pool": lambda w, op: w.node(op, "AveragePool", count_include_pad=0, **_windows(w, op)),
    "max_pool": lambda w, op: w.node(op, "MaxPool", **_windows(w, op)),
    "global_pool": _as("GlobalAveragePool"),
    "upsample_nearest": _upsample("nearest"),
    "upsample_linear": _upsample("linear"),
    "flatten": _as("Flatten", axis=1),
    "reshape": lambda w, op: w.node(op, "Reshape", [w.whole(f"shape{op.output}", (1, *w.shape(op)))]),
    "transpose": lambda w, op: w.node(op, "Transpose", perm=[0, *(axis + 1 for axis in op.axes)]),
    "concat": _as("Concat", axis=1),
    "take": _take,
    "argmax": lambda w, op: w.node(op, "ArgMax", axis=op.axes[0] + 1, keepdims=0),
    "zero": lambda w, op: w.node(op, "Mul", [w.floats(f"zero{op.output}", np.zeros(1))]),
}
