"""Our int8: bit-exact against integers by hand, the types that were asked for, the best calibrator, refusals."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright.core.errors import BadInput, EdgewrightError
from edgewright.device.here.instructions import flags, has_bf16, has_vnni, is_x86
from edgewright.export.int8.quantise import (
    Int8Types,
    best_ranges,
    collect,
    layers,
    prepare,
    quantise,
    relative_error,
    types_here,
)
from edgewright.export.running import outputs


def inputs(count: int = 12, shape: tuple[int, ...] = (1, 2, 5, 7)) -> list[tuple[np.ndarray]]:
    return [(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32),) for seed in range(count)]


def one_convolution(weight: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 5, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 3, 5])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


WEIGHT = np.random.default_rng(9).standard_normal((3, 2, 3, 3)).astype(np.float32) * np.array(
    [0.01, 1, 30], dtype=np.float32
).reshape(3, 1, 1, 1)


def test_a_convolution_in_integers_by_hand() -> None:
    prepared = prepare(one_convolution(WEIGHT))
    covered = {"x": (-3.0, 2.5), "y": (-90.0, 110.0)}
    made = quantise(prepared, covered, Int8Types())
    (x,) = inputs(1)[0]
    # Activations: U8 with a zero point; weights: S8, symmetric, one scale for each output channel.
    s_x, s_y = np.float32(5.5) / np.float32(255), np.float32(200) / np.float32(255)
    z_x, z_y = round(3.0 / float(s_x)), round(90.0 / float(s_y))
    s_w = (np.abs(WEIGHT).max((1, 2, 3)) / np.float32(127)).astype(np.float32)
    q_w = np.round(WEIGHT / s_w.reshape(3, 1, 1, 1)).astype(np.int64)
    q_x = np.clip(np.round(x / s_x) + z_x, 0, 255).astype(np.int64) - z_x
    total = np.zeros((1, 3, 3, 5), dtype=np.int64)
    for row in range(3):
        for column in range(3):
            patch = q_x[:, :, row : row + 3, column : column + 5]
            total += np.einsum("nchw,oc->nohw", patch, q_w[:, :, row, column])
    real = total * (s_x * s_w).reshape(1, 3, 1, 1)
    expected = (np.clip(np.round(real / s_y) + z_y, 0, 255) - z_y) * s_y
    (found,) = outputs(made, [(x,)])
    assert np.abs(found - expected).max() <= 1.01 * s_y  # a half may be rounded either way
    assert np.mean(np.abs(found - expected) > 1e-4) < 0.05


def test_types_are_those_asked_for() -> None:
    prepared = prepare(one_convolution(WEIGHT))
    for types, kind in ((Int8Types(), TensorProto.UINT8), (Int8Types(signed=True), TensorProto.INT8)):
        made = quantise(prepared, {"x": (-3, 3), "y": (-90, 90)}, types)
        held = {tensor.name: tensor for tensor in made.graph.initializer}
        assert held["x_zero_point"].data_type == kind
        weight = numpy_helper.to_array(held["w_quantized"])
        assert weight.dtype == np.int8
        assert (np.abs(weight).max((1, 2, 3)) == 127).all()  # each channel uses the whole range: a scale of its own
    narrow = quantise(prepared, {"x": (-3, 3), "y": (-90, 90)}, Int8Types(narrow=True))
    weight = numpy_helper.to_array(next(t for t in narrow.graph.initializer if t.name == "w_quantized"))
    assert np.abs(weight).max() <= 64


def test_this_machines_types_follow_its_instructions() -> None:
    types = types_here()
    assert types.signed is not is_x86()
    assert types.narrow is (is_x86() and not has_vnni())
    assert has_bf16() in (True, False) and isinstance(flags(), frozenset)


def test_quantising_leaves_the_network_as_it_was(network) -> None:
    prepared = prepare(network)
    before = prepared.SerializeToString()
    name, covered = best_ranges(prepared, inputs(shape=(1, 3, 12, 20)), Int8Types())
    made = quantise(prepared, covered, Int8Types())
    assert prepared.SerializeToString() == before
    assert name in ("minmax", "percentile", "mse", "entropy")
    samples = inputs(5, (1, 3, 12, 20))
    assert relative_error(outputs(made, samples), outputs(network, samples)) < 1e-3


def test_preparing_keeps_the_function_and_names_every_node(network) -> None:
    prepared = prepare(network)
    samples = inputs(3, (1, 3, 12, 20))
    assert outputs(prepared, samples)[0] == pytest.approx(outputs(network, samples)[0], rel=1e-4, abs=1e-5)
    names = [node.name for node in prepared.graph.node]
    assert all(names) and len(set(names)) == len(names)
    assert len(layers(prepared)) == 4


def test_nodes_can_stay_in_float_or_be_the_only_ones(network) -> None:
    prepared = prepare(network)
    _, covered = best_ranges(prepared, inputs(shape=(1, 3, 12, 20)), Int8Types())
    first, *others = layers(prepared)

    def integer_weights(model: onnx.ModelProto) -> int:
        return sum(tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1 for tensor in model.graph.initializer)

    assert integer_weights(quantise(prepared, covered, Int8Types())) == 4
    assert integer_weights(quantise(prepared, covered, Int8Types(), in_float=[first])) == 3
    assert integer_weights(quantise(prepared, covered, Int8Types(), only=[first])) == 1
    assert others


def test_ranges_are_those_of_the_tensors(network) -> None:
    prepared = prepare(network)
    samples = inputs(4, (1, 3, 12, 20))
    found = collect(prepared, samples)
    assert found["input"].highest == max(array.max() for (array,) in samples)
    logits = np.asarray(outputs(prepared, samples)[0])
    assert found["logits"].lowest == pytest.approx(logits.min(), rel=1e-4)


def test_without_data_or_with_what_is_no_number(network) -> None:
    prepared = prepare(network)
    with pytest.raises(BadInput, match="calibration data is empty"):
        collect(prepared, [])
    with pytest.raises(EdgewrightError, match="not finite on the calibration data, and int8 has no number for it"):
        collect(prepared, [(np.full((1, 3, 12, 20), np.nan, dtype=np.float32),)])


def test_relative_error_of_what_is_no_number() -> None:
    assert relative_error([np.array([np.nan])], [np.array([1.0])]) == float("inf")
    assert relative_error([np.array([3.0, 0])], [np.array([0, 5.0])]) == pytest.approx(34 / 25)


def test_relative_error_of_several_outputs_and_of_whole_numbers() -> None:
    found, expected = [np.array([3.0, 0]), np.array([1, 2, 3, 4])], [np.array([0, 5.0]), np.array([1, 2, 3, 7])]
    assert relative_error(found, expected) == pytest.approx((34 / 25 + 1 / 4) / 2)
