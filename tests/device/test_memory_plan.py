"""Lifetimes by hand on small networks, liveness, and the arena that ONNX Runtime really takes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgewright.core.errors import BadInput
from edgewright.device.board.memory_plan import RULES, Rules, buffers, plan_memory
from edgewright.device.here.cpu import Cpu
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.ir.liveness import graph_peak_bytes, of_graph, of_onnx
from edgewright.ir.to_onnx import to_onnx


def inverted_residual() -> Graph:
    """4 channels of 6 x 5, widened to 12, depthwise, back to 4 and added to what came in; then one more convolution."""
    builder = GraphBuilder((3, 6, 5))
    x = builder.relu(builder.conv(0, 4, 3))  # tensors 1, 2
    y = builder.relu(builder.conv(x, 12))  # 3, 4
    y = builder.relu(builder.conv(y, 12, 3, 1, 12))  # 5, 6
    x = builder.add(builder.conv(y, 4), x)  # 7, 8
    builder.conv(x, 2)  # 9
    return builder.graph()


def lives(graph: Graph, rules: Rules) -> dict[object, tuple[int, int, int]]:
    """In pixels (of 30): channels, first, last."""
    return {b.name: (b.bytes // 30, b.first, b.last) for b in buffers(of_graph(graph, 1), rules)}


def test_lifetimes_when_activations_and_adds_are_fused() -> None:
    # Steps: conv+relu, conv+relu, depthwise+relu, conv+add (over what came in), conv.
    found = lives(inverted_residual(), RULES["plan"])
    assert found == {0: (3, 0, 0), 2: (4, 0, 4), 4: (12, 1, 2), 6: (12, 2, 3), 9: (2, 4, 4)}


def test_lifetimes_when_an_add_is_a_step_of_its_own() -> None:
    # conv+relu, conv+relu, depthwise+relu, conv, add (over the convolution's result), conv.
    found = lives(inverted_residual(), RULES["mcu"])
    assert found == {0: (3, 0, 0), 2: (4, 0, 4), 4: (12, 1, 2), 6: (12, 2, 3), 7: (4, 3, 5), 9: (2, 5, 5)}
    kept = lives(inverted_residual(), RULES["litert"])
    assert kept == found | {0: (3, 0, 5)}


def test_lifetimes_when_nothing_is_fused_or_in_place() -> None:
    found = lives(inverted_residual(), RULES["executorch"])
    assert found == {
        0: (3, 0, 0), 1: (4, 0, 1), 2: (4, 1, 7), 3: (12, 2, 3), 4: (12, 3, 4), 5: (12, 4, 5), 6: (12, 5, 6),
        7: (4, 6, 7), 8: (4, 7, 8), 9: (2, 8, 8),
    }  # fmt: skip


def test_a_depthwise_convolution_over_its_own_input_needs_one_channel_beside_it() -> None:
    found = lives(inverted_residual(), RULES["tinyengine"])
    assert found[4] == (12, 1, 3) and found[6, "channel"] == (1, 2, 2) and 6 not in found
    # Before: input of the block and both hidden tensors; now: one of them, and what is made of it.
    assert plan_memory(inverted_residual(), RULES["mcu"], number_bytes=1).bytes == 30 * (4 + 12 + 12)
    assert plan_memory(inverted_residual(), RULES["tinyengine"], number_bytes=1).bytes == 30 * (4 + 12 + 4)


def test_a_depthwise_convolution_with_another_reader_keeps_its_input() -> None:
    builder = GraphBuilder((4, 6, 5))
    y = builder.conv(0, 4, 3)
    builder.add(builder.conv(y, 4, 3, 1, 4), y)
    assert set(lives(builder.graph(), RULES["tinyengine"])) == {0, 1, 2}


def test_inputs_and_outputs_of_the_caller_take_no_room() -> None:
    found = lives(inverted_residual(), RULES["onnxruntime"])
    assert found == {2: (4, 0, 4), 4: (12, 1, 2), 6: (12, 2, 3)}


def test_mobilenet_v2_by_hand() -> None:
    """The first layers of MobileNetV2 at 224 px in int8: 16 and 96 channels of 112 x 112 are its peak (1372 KiB)."""
    builder = GraphBuilder((3, 224, 224))
    x = builder.relu(builder.conv(0, 32, 3, 2))
    x = builder.conv(builder.relu(builder.conv(x, 32, 3, 1, 32)), 16)
    y = builder.relu(builder.conv(x, 96))
    builder.conv(builder.relu(builder.conv(y, 96, 3, 2, 96)), 24)
    assert plan_memory(builder.graph(), RULES["tinyengine"], number_bytes=1).bytes == 1372 * 1024
    assert plan_memory(builder.graph(), RULES["mcu"], number_bytes=1).bytes == (96 * 112**2 + 96 * 56**2)


@pytest.mark.parametrize("kernel", [3, 5])
def test_the_bound_is_liveness(kernel: int) -> None:
    builder = GraphBuilder((3, 19, 14))
    x = builder.relu(builder.conv(0, 8, kernel, 2))
    for width in (24, 40):
        y = builder.relu(builder.conv(x, width))
        y = builder.mul(y, builder.hardsigmoid(builder.conv(builder.global_pool(y), width)))
        x = builder.add(builder.conv(builder.relu(builder.conv(y, width, kernel, 1, width)), 8), x)
    graph = builder.graph()
    arena = plan_memory(graph)
    assert arena.bound == graph_peak_bytes(graph) == arena.bytes
    assert plan_memory(to_onnx(graph)).bytes == arena.bytes
    assert plan_memory(to_onnx(graph), number_bytes=1).bytes == plan_memory(graph, number_bytes=1).bytes


def quantised(side: int) -> bytes:
    """Input, Q, DQ, convolution, Q, DQ, ReLU, Q, DQ; the pairs at the end of the file, where quantisers put them."""
    floats, ints = TensorProto.FLOAT, TensorProto.INT8
    scale = helper.make_tensor("scale", floats, (), (0.1,))
    zero = helper.make_tensor("zero", ints, (), (0,))
    weight = onnx.numpy_helper.from_array(np.ones((6, 2, 1, 1), np.int8), "weight_int8")
    pairs = [("input", "a"), ("conv", "b"), ("relu", "logits")]
    nodes = [
        helper.make_node("Conv", ["a_float", "weight"], ["conv"]),
        helper.make_node("Relu", ["b_float"], ["relu"]),
        helper.make_node("DequantizeLinear", ["weight_int8", "scale", "zero"], ["weight"]),
    ]
    for source, name in pairs:
        end = name if name == "logits" else f"{name}_float"
        nodes.append(helper.make_node("QuantizeLinear", [source, "scale", "zero"], [f"{name}_int8"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_int8", "scale", "zero"], [end]))
    ends = [helper.make_tensor_value_info(n, floats, (1, c, side, 5)) for n, c in (("input", 2), ("logits", 6))]
    body = helper.make_graph(nodes, "q", ends[:1], ends[1:], initializer=[scale, zero, weight])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def test_what_integer_kernels_hold_counts_a_byte() -> None:
    # Steps: rounding of the input, convolution with its ReLU in integers, and the output as floats again.
    found = {b.name: (b.bytes, b.first, b.last) for b in buffers(of_onnx(quantised(7)))}
    pixels = 7 * 5
    assert found == {
        "input": (4 * 2 * pixels, 0, 0),
        "a_int8": (2 * pixels, 0, 1),
        "logits_int8": (6 * pixels, 1, 2),
        "logits": (4 * 6 * pixels, 2, 2),
    }


def test_a_quantised_input_is_turned_once_more_where_the_runtime_does() -> None:
    found = {b.name: (b.bytes, b.first, b.last) for b in buffers(of_onnx(quantised(7)), RULES["onnxruntime"])}
    pixels = 7 * 5
    assert found == {
        "a_int8": (2 * pixels, 0, 1),
        ("a_int8", "turned"): (2 * pixels, 1, 2),
        "logits_int8": (6 * pixels, 2, 3),
    }


def test_a_cycle_is_bad_input() -> None:
    nodes = [helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2)) for name in "ab"]
    with pytest.raises(BadInput, match="cycle"):
        plan_memory(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:])))


def mobile(width: int, hidden: int, side: int, blocks: int) -> Graph:
    builder = GraphBuilder((3, side, side))
    x = builder.relu(builder.conv(0, width, 3, 2))
    for stride in (1, 2) * blocks:
        y = builder.relu(builder.conv(x, hidden))
        y = builder.conv(builder.relu(builder.conv(y, hidden, 3, stride, hidden)), width)
        x = builder.add(y, x) if stride == 1 else y
    builder.linear(builder.flatten(builder.global_pool(x)), 10)
    return builder.graph()


@pytest.mark.parametrize("graph", [mobile(16, 96, 96, 2), mobile(32, 64, 64, 1), mobile(16, 48, 80, 3)])
def test_the_arena_that_onnx_runtime_takes(graph: Graph) -> None:
    """Channels in multiples of 16: the runtime pads others."""
    real = Cpu().profile(to_onnx(graph), seconds=0, runs=2).arena_bytes()
    if real is None:
        pytest.skip("this runtime does not report its allocator")
    assert plan_memory(graph, RULES["onnxruntime"]).bytes == pytest.approx(real, rel=0.05)
    assert plan_memory(graph, Rules(inputs="outside", outputs_outside=True)).bytes <= real
