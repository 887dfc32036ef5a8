"""What an ONNX file computes, operator by operator: for devices that are costed, not run."""

import math
from pathlib import Path

import onnx

from edgewright.core.errors import BadInput, one_line

NOT_RUN = ("Constant", "Identity", "Dropout")  # what no runtime spends time on


def read_work(model: bytes | Path) -> list[tuple[str, int]]:
    """Of every operator its kind ("dense", "pointwise", "depthwise", "linear", else the ONNX name) and multiply-adds.

    Free dimensions count as 1. A convolution is depthwise where each group has one input channel.
    Errors: BadInput for a file that ONNX cannot read, and for one whose shapes cannot be inferred.
    """
    where = "the model" if isinstance(model, bytes) else str(model)
    try:
        proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(str(model))
        graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph
    except FileNotFoundError:
        raise BadInput(f"{where}: no such file") from None
    except Exception as error:  # protobuf and ONNX raise kinds of their own
        raise BadInput(f"{where}: not an ONNX file whose shapes are known ({one_line(error)})") from None
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(max(1, dim.dim_value) for dim in value.type.tensor_type.shape.dim)
    return [_work(node, shapes) for node in graph.node if node.op_type not in NOT_RUN]


def _work(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> tuple[str, int]:
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return node.op_type, 0
    source, weight, result = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":
        macs = math.prod(result) * math.prod(weight[1:])
        if weight[1] == 1 and source[1] > 1:
            return "depthwise", macs
        return ("pointwise" if set(weight[2:]) == {1} else "dense"), macs
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return "linear", math.prod(result) * source[-2 if turned else -1]
