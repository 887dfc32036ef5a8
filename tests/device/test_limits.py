"""Reasons why a network does not fit a board: counted by hand, each with its number or its node."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewright.core.errors import BadInput
from edgewright.device.board.board import Board
from edgewright.device.board.limits import arena_of, refusals
from edgewright.device.board.target import Target
from edgewright.ir.from_onnx import number_type
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.ir.to_onnx import to_onnx


def target(**said: object) -> Target:
    base = {"name": "board", "summary": "A board.", "source": "here", "runtime": "tflite-micro", "types": ["int8"]}
    return Target.parse(base | said, "board.yaml")


@pytest.fixture
def network() -> Graph:
    """3 channels of 9 x 7 to 20, gated, added to what came in, to 5 classes; weights 3 x 20, 20 x 20 and 20 x 5."""
    builder = GraphBuilder((3, 9, 7))
    x = builder.relu(builder.conv(0, 20))
    y = builder.mul(builder.conv(x, 20), builder.sigmoid(builder.global_pool(x)))
    x = builder.swish(builder.add(y, x))
    builder.linear(builder.flatten(builder.global_pool(x)), 5)
    return builder.graph()


PIXELS = 9 * 7
# At the second convolution, which an add does not follow at once: its input, the gate, and what it makes.
PEAK = PIXELS * (20 + 20) + 20
WEIGHTS = 3 * 20 + 20 * 20 + 20 * 5 + 4 * (20 + 20 + 5)


def test_memory_and_flash_to_the_byte(network: Graph) -> None:
    model = to_onnx(network)
    assert arena_of(target(), model, kind="int8").bytes == PEAK
    fits = target(ram_kb=PEAK / 1024, flash_kb=WEIGHTS / 1024)
    assert refusals(fits, model, kind="int8") == []
    small = target(ram_kb=(PEAK - 1) / 1024, flash_kb=(WEIGHTS - 1) / 1024, name="small")
    flash, ram = refusals(small, model, kind="int8")
    assert flash == "needs 0.8 KB of flash, small has 0.7 KB"
    assert ram == "needs 2.5 KB of RAM for activations (most at 't4'), small has 2.4 KB"
    assert len(refusals(fits, model, kind="int8", size_bytes=WEIGHTS + 1)) == 1


def test_a_type_that_it_does_not_take_is_named(network: Graph) -> None:
    assert refusals(target(), to_onnx(network)) == ["board computes in int8, not in fp32"]
    assert refusals(target(types=["fp32"]), to_onnx(network)) == []
    assert arena_of(target(types=["fp32"]), to_onnx(network)).bytes == 4 * PEAK


def test_every_forbidden_node_is_named(network: Graph) -> None:
    model = to_onnx(network)
    gate, added = refusals(target(forbidden=["sigmoid", "add"]), model, kind="int8")
    assert gate == "board cannot run node 'n5', a 'Sigmoid': its file forbids sigmoid"
    assert added == "board cannot run node 'n7', a 'Add': its file forbids add"
    (gate,) = refusals(target(forbidden=["swish"]), model, kind="int8")
    assert "a 'Sigmoid': its file forbids swish" in gate


def test_an_add_is_an_operator_of_its_own_on_a_microcontroller() -> None:
    builder = GraphBuilder((2, 9, 7))
    x = builder.conv(0, 6)
    builder.add(builder.conv(builder.conv(x, 4), 6), x)
    graph = builder.graph()
    assert Board(target()).costs(graph)["peak_memory"].value == PIXELS * (6 + 4 + 6)
    assert arena_of(target(), to_onnx(graph), kind="int8").bytes == PIXELS * (6 + 4 + 6)
    assert Board(target(runtime="onnxruntime")).costs(graph)["peak_memory"].value == PIXELS * (6 + 4)


def test_an_integer_network_is_given_integers() -> None:
    scale = helper.make_tensor("scale", TensorProto.FLOAT, (), (0.1,))
    zero = helper.make_tensor("zero", TensorProto.INT8, (), (0,))
    weight = onnx.numpy_helper.from_array(np.ones((6, 2, 1, 1), np.int8), "weight_int8")
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weight_int8", "scale", "zero"], ["weight"]),
        helper.make_node("Conv", ["x", "weight"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "scale", "zero"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "scale", "zero"], ["z"]),
        helper.make_node("GlobalAveragePool", ["z"], ["logits"]),
    ]
    ends = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 2, 9, 7)),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 6, 1, 1)),
    ]
    body = helper.make_graph(nodes, "q", ends[:1], ends[1:], initializer=[scale, zero, weight])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert number_type(model) == "int8"
    assert arena_of(target(), model).bytes == (2 + 6) * PIXELS
    assert refusals(target(ram_kb=0.5, flash_kb=1), model) == []


def test_what_is_no_model_is_bad_input() -> None:
    with pytest.raises(BadInput, match="not a readable ONNX model"):
        refusals(target(), b"nonsense")
