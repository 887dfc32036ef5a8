"""A `Graph` as a runnable ONNX file with random weights: what is timed when no trained network exists yet."""

from math import prod, sqrt

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgewright.core.graph import Graph, Op, weight_shape
from edgewright.core.seed import derive

OPSET = 18
IR_VERSION = 10
_PLAIN = {"add": "Add", "mul": "Mul", "relu": "Relu", "global_pool": "GlobalAveragePool"}
_BOUNDS = ("start", "end", "axis")


def to_onnx(graph: Graph, seed: int = 0) -> bytes:
    """Serialise `graph` as an ONNX model: opset 18, float32, batch 1, tensor "input" to tensor "logits".

    Weights are normal with standard deviation sqrt(2 / fan_in) and biases normal times 0.01, from `seed` only, so that
    activations keep a normal size (denormal or infinite values would be timed differently). Tensor i of the graph is
    named "t<i>" and the node that makes it "n<i>": the names by which a profile is read back.

    Checked against: a torch functional evaluation of the same weights (tests/device/test_onnx_graph.py).
    """
    rng = np.random.default_rng(derive(seed, "onnx_graph"))
    last = graph.ops[-1].output if graph.ops else 0
    names = ["input", *(f"t{index}" for index in range(1, len(graph.shapes)))]
    nodes, weights = [], []
    if graph.ops:
        names[last] = "logits"
    else:
        nodes.append(helper.make_node("Identity", ["input"], ["logits"], name="n0"))
    for op in graph.ops:
        weights.extend(_weights(graph, op, rng))
        nodes.append(_node(graph, op, names))
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, *graph.input_shape))
    sink = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, *graph.shapes[last]))
    body = helper.make_graph(nodes, "edgewright", [source], [sink], initializer=weights)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return model.SerializeToString()


def _weights(graph: Graph, op: Op, rng: np.random.Generator) -> list[onnx.TensorProto]:
    if op.kind == "take":
        bounds = zip(_BOUNDS, (0, graph.shapes[op.output][0], 1), strict=True)  # channels 0 to C_out of axis 1
        return [helper.make_tensor(f"{part}{op.output}", TensorProto.INT64, (1,), (value,)) for part, value in bounds]
    shape = weight_shape(graph, op)
    if not shape:
        return []
    weight = rng.standard_normal(shape, dtype=np.float32) * np.float32(sqrt(2 / prod(shape[1:])))
    bias = rng.standard_normal(shape[0], dtype=np.float32) * np.float32(0.01)
    return [
        TensorProto(name=f"w{op.output}", data_type=TensorProto.FLOAT, dims=shape, raw_data=weight.tobytes()),
        TensorProto(name=f"b{op.output}", data_type=TensorProto.FLOAT, dims=shape[:1], raw_data=bias.tobytes()),
    ]


def _node(graph: Graph, op: Op, names: list[str]) -> onnx.NodeProto:
    inputs, output, name = [names[i] for i in op.inputs], [names[op.output]], f"n{op.output}"
    parameters = [f"w{op.output}", f"b{op.output}"]
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
