"""The ONNX file of a graph computes what torch computes with the same weights."""

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from edgewright.device.here.runtime import input_for, open_session, run
from edgewright.ir.graph import Graph, GraphBuilder, count_params
from edgewright.ir.to_onnx import to_onnx


def every_op() -> Graph:
    """Every kind of op, strides, groups, squeeze-excite broadcast and odd, non-square sides."""
    builder = GraphBuilder((3, 13, 10))
    x = builder.relu(builder.conv(0, 12, 3, 2))
    y = builder.relu(builder.conv(x, 24))
    y = builder.relu(builder.conv(y, 24, 5, 1, 24))
    gate = builder.relu(builder.conv(builder.global_pool(y), 8))
    y = builder.mul(y, builder.hardsigmoid(builder.conv(gate, 24)))
    x = builder.add(builder.conv(y, 12), x)
    x = builder.conv(builder.concat(builder.take(x, 7), y, builder.take(y, 1)), 20, 7, 2, 4)
    y = builder.swish(builder.norm(builder.avg_pool(builder.avg_pool(x, 3), 2, 2)))
    x = builder.add(builder.conv(y, 20, 1, bias=False), builder.mul(builder.zero(y), builder.sigmoid(y)))
    builder.linear(builder.flatten(builder.global_pool(x)), 5)
    return builder.graph()


def by_torch(graph: Graph, model: onnx.ModelProto, array: np.ndarray) -> np.ndarray:
    weights = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in model.graph.initializer}
    tensors = {0: torch.from_numpy(array)}
    for op in graph.ops:
        values = [tensors[i] for i in op.inputs]
        w, b = weights.get(f"w{op.output}"), weights.get(f"b{op.output}")
        tensors[op.output] = {
            "conv": lambda v=values, w=w, b=b, op=op: F.conv2d(v[0], w, b, op.stride, op.kernel // 2, 1, op.groups),
            "linear": lambda v=values, w=w, b=b: F.linear(v[0], w, b),
            "add": lambda v=values: v[0] + v[1],
            "mul": lambda v=values: v[0] * v[1],
            "relu": lambda v=values: F.relu(v[0]),
            "hardsigmoid": lambda v=values: F.hardsigmoid(v[0]),
            "sigmoid": lambda v=values: v[0].sigmoid(),
            "swish": lambda v=values: F.silu(v[0]),
            "norm": lambda v=values, w=w, b=b: v[0] * w[:, None, None] + b[:, None, None],
            "avg_pool": lambda v=values, op=op: F.avg_pool2d(
                v[0], op.kernel, op.stride, (op.kernel - 1) // 2, ceil_mode=True, count_include_pad=False
            ),
            "zero": lambda v=values: torch.zeros_like(v[0]),
            "global_pool": lambda v=values: v[0].mean((2, 3), keepdim=True),
            "flatten": lambda v=values: v[0].flatten(1),
            "concat": lambda v=values: torch.cat(v, dim=1),
            "take": lambda v=values, c=graph.shapes[op.output][0]: v[0][:, :c],
        }[op.kind]()
        assert tuple(tensors[op.output].shape[1:]) == graph.shapes[op.output]
    return tensors[graph.output].numpy()


def test_equals_torch_at_odd_sizes() -> None:
    graph = every_op()
    data = to_onnx(graph, seed=3)
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    session = open_session(data)
    array = input_for(session, seed=1)
    expected = by_torch(graph, model, array)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(run(session, array), expected, rtol=1e-4, atol=1e-5)


def test_file_holds_the_counted_parameters_and_is_repeatable() -> None:
    graph = every_op()
    model = onnx.load_model_from_string(to_onnx(graph))
    weights = [w for w in model.graph.initializer if w.name[0] in "wb" and w.data_type == onnx.TensorProto.FLOAT]
    assert sum(int(np.prod(w.dims)) for w in weights) == count_params(graph)
    assert to_onnx(graph, seed=1) == to_onnx(graph, seed=1) != to_onnx(graph, seed=2)


def test_the_output_need_not_be_the_last_operator() -> None:
    builder = GraphBuilder((3, 7, 5))
    wanted = builder.conv(0, 4, 3)
    builder.relu(builder.avg_pool(wanted, 3))
    graph = builder.graph(wanted)
    data = to_onnx(graph)
    session = open_session(data)
    array = input_for(session, seed=1)
    model = onnx.load_model_from_string(data)
    np.testing.assert_allclose(run(session, array), by_torch(graph, model, array), rtol=1e-4, atol=1e-5)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    builder = GraphBuilder((3, 7, 5))
    builder.relu(0)
    session = open_session(to_onnx(builder.graph(0)))
    assert np.array_equal(run(session, array), array)


@pytest.mark.parametrize("last", ["conv", "add"])
def test_a_lone_block_has_its_own_output(last: str) -> None:
    builder = GraphBuilder((8, 7, 5))
    x = builder.conv(0, 8, 3)
    if last == "add":
        builder.add(x, 0)
    session = open_session(to_onnx(builder.graph()))
    assert session.get_outputs()[0].name == "logits"
    assert run(session, input_for(session)).shape == (1, 8, 7, 5)
