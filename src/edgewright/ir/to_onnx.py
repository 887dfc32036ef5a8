"""A `Graph` as a runnable ONNX file with random weights: what is timed when no trained network exists yet."""

from math import prod, sqrt

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgewright.core.seed import derive
from edgewright.ir.graph import Graph, Op, needed_ops, weight_shape

OPSET = 18
IR_VERSION = 10
_PLAIN = {"add": "Add", "mul": "Mul", "relu": "Relu", "sigmoid": "Sigmoid", "global_pool": "GlobalAveragePool"}
_BOUNDS = ("start", "end", "axis")


def to_onnx(graph: Graph, seed: int = 0) -> bytes:
    """Serialise `graph` as an ONNX model: opset 18, float32, batch 1, tensor "input" to tensor "logits".

    Weights are normal with standard deviation sqrt(2 / fan_in) and biases normal times 0.01, from `seed` only, so that
    activations keep a normal size (denormal or infinite values would be timed differently). Tensor i of the graph is
    named "t<i>" and the node that makes it "n<i>": the names by which a profile is read back. Operators that the output
    does not depend on are left out.

    Checked against: a torch functional evaluation of the same weights (tests/device/test_onnx_graph.py).
    """
    rng = np.random.default_rng(derive(seed, "onnx_graph"))
    last = graph.output
    names = ["input", *(f"t{index}" for index in range(1, len(graph.shapes)))]
    nodes, weights = [], []
    if last:
        names[last] = "logits"
    else:
        nodes.append(helper.make_node("Identity", ["input"], ["logits"], name="n0"))
    for op in needed_ops(graph):
        weights.extend(_weights(graph, op, rng))
        nodes.extend(_nodes(op, names))
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, *graph.input_shape))
    sink = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, *graph.shapes[last]))
    body = helper.make_graph(nodes, "edgewright", [source], [sink], initializer=weights)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return model.SerializeToString()


def _weights(graph: Graph, op: Op, rng: np.random.Generator) -> list[onnx.TensorProto]:
    if op.kind == "take":
        bounds = zip(_BOUNDS, (0, graph.shapes[op.output][0], 1), strict=True)  # channels 0 to C_out of axis 1
        return [helper.make_tensor(f"{part}{op.output}", TensorProto.INT64, (1,), (value,)) for part, value in bounds]
    if op.kind == "zero":
        return [helper.make_tensor(f"zero{op.output}", TensorProto.FLOAT, (1,), (0.0,))]
    if op.kind == "norm":
        return _norm_weights(graph.shapes[op.output][0], op.output, rng)
    shape = weight_shape(graph, op)
    if not shape:
        return []
    weight = rng.standard_normal(shape, dtype=np.float32) * np.float32(sqrt(2 / prod(shape[1:])))
    bias = rng.standard_normal(shape[0], dtype=np.float32) * np.float32(0.01)
    return [_floats(f"w{op.output}", weight), *([_floats(f"b{op.output}", bias)] if op.bias else [])]


def _norm_weights(width: int, output: int, rng: np.random.Generator) -> list[onnx.TensorProto]:
    """A batch norm whose statistics are folded into its factor and shift: mean 0, variance 1."""
    factor = np.float32(1) + rng.standard_normal(width, dtype=np.float32) * np.float32(0.1)
    shift = rng.standard_normal(width, dtype=np.float32) * np.float32(0.01)
    still = (np.zeros(width, np.float32), np.ones(width, np.float32))
    named = zip(("w", "b", "mean", "var"), (factor, shift, *still), strict=True)
    return [_floats(f"{part}{output}", values) for part, values in named]


def _floats(name: str, values: np.ndarray) -> onnx.TensorProto:
    return TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.shape, raw_data=values.tobytes())


def _nodes(op: Op, names: list[str]) -> list[onnx.NodeProto]:
    if op.kind != "swish":
        return [_node(op, names)]
    source, gate, output = names[op.inputs[0]], f"t{op.output}_gate", names[op.output]
    return [
        helper.make_node("Sigmoid", [source], [gate], name=f"n{op.output}_gate"),
        helper.make_node("Mul", [source, gate], [output], name=f"n{op.output}"),
    ]


def _node(op: Op, names: list[str]) -> onnx.NodeProto:
    inputs, output, name = [names[i] for i in op.inputs], [names[op.output]], f"n{op.output}"
    parameters = [f"w{op.output}", *([f"b{op.output}"] if op.bias else [])]
    if op.kind == "conv":
        return helper.make_node(
            "Conv",
            inputs + parameters,
            output,
            name=name,
            kernel_shape=[op.kernel] * 2,
            strides=[op.stride] * 2,
            pads=[op.kernel // 2] * 4,
            group=op.groups,
        )
    if op.kind == "avg_pool":
        return helper.make_node(
            "AveragePool",
            inputs,
            output,
            name=name,
            kernel_shape=[op.kernel] * 2,
            strides=[op.stride] * 2,
            pads=[(op.kernel - 1) // 2] * 4,
            ceil_mode=1,
            count_include_pad=0,
        )
    if op.kind == "norm":
        statistics = [f"{part}{op.output}" for part in ("mean", "var")]
        return helper.make_node("BatchNormalization", inputs + parameters + statistics, output, name=name, epsilon=0.0)
    if op.kind == "zero":
        return helper.make_node("Mul", [*inputs, f"zero{op.output}"], output, name=name)
    if op.kind == "linear":
        return helper.make_node("Gemm", inputs + parameters, output, name=name, transB=1)
    if op.kind == "hardsigmoid":
        return helper.make_node("HardSigmoid", inputs, output, name=name, alpha=1 / 6, beta=0.5)
    if op.kind == "flatten":
        return helper.make_node("Flatten", inputs, output, name=name, axis=1)
    if op.kind == "concat":
        return helper.make_node("Concat", inputs, output, name=name, axis=1)
    if op.kind == "take":
        return helper.make_node("Slice", inputs + [f"{part}{op.output}" for part in _BOUNDS], output, name=name)
    return helper.make_node(_PLAIN[op.kind], inputs, output, name=name)
