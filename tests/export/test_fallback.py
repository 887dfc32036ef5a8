"""The layer that suffers most is found, and as few as possible go back to float."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright.export.int8.fallback import groups, quantise_within, sensitivity
from edgewright.export.int8.quantise import Int8Types, best_ranges, layers, prepare, relative_error
from edgewright.export.running import outputs

SHAPE = (1, 2, 9, 7)


@pytest.fixture(scope="module")
def broken_in_the_middle() -> onnx.ModelProto:
    """Four convolutions; between the second and the third one channel is 3,000 times smaller than it is meant: 8 bits
    lose it, and the HardSwish there keeps it from being evened."""
    generator, node = np.random.default_rng(2), helper.make_node
    shapes = {"w0": (8, 2, 3, 3), "b0": (8,), "w1": (8, 8, 1, 1), "b1": (8,), "w2": (8, 8, 1, 1), "b2": (8,)}
    shapes |= {"w3": (6, 8, 1, 1), "b3": (6,)}
    weights = {
        name: (generator.uniform(-1, 1, shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        for name, shape in shapes.items()
    }
    weights["b0"] /= 8
    weights["w1"][7] /= 3000
    weights["b1"][7] /= 3000
    weights["w2"][:, 7] *= 3000
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["a0"]), node("Relu", ["a0"], ["r0"]), node("Conv", ["r0", "w1", "b1"], ["a1"]),
        node("HardSwish", ["a1"], ["r1"]), node("Conv", ["r1", "w2", "b2"], ["a2"]), node("Relu", ["a2"], ["r2"]),
        node("Conv", ["r2", "w3", "b3"], ["a3"]), node("GlobalAveragePool", ["a3"], ["p"]),
        node("Flatten", ["p"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "broken", [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def samples(count: int = 12) -> list[tuple[np.ndarray]]:
    return [(np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32),) for seed in range(count)]


def test_the_worst_layer_is_found(broken_in_the_middle) -> None:
    prepared = prepare(broken_in_the_middle)
    _, covered = best_ranges(prepared, samples(), Int8Types())
    damage = sensitivity(prepared, covered, Int8Types(), samples(6))
    names = layers(prepared)
    assert list(damage) == names
    assert max(names, key=lambda name: damage[name]) == names[2]
    assert damage[names[2]] > 10 * damage[names[3]]


def test_small_operators_go_with_the_layer_that_reads_them(broken_in_the_middle) -> None:
    prepared = prepare(broken_in_the_middle)
    kinds = {node.name: node.op_type for node in prepared.graph.node}
    found = [[kinds[name] for name in nodes] for nodes in groups(prepared).values()]
    assert found == [["Conv"], ["Conv", "Relu"], ["Conv", "Mul", "HardSigmoid"], ["Conv", "Relu"]]


def test_only_as_many_layers_as_needed_go_back(broken_in_the_middle) -> None:
    tried: list[float] = []

    def drop(model: onnx.ModelProto) -> float:
        tried.append(100 * relative_error(outputs(model, samples()), outputs(broken_in_the_middle, samples())))
        return tried[-1]

    found = quantise_within(broken_in_the_middle, samples(), Int8Types(), drop, max_drop=0.1)
    assert found.drop <= 0.1 < tried[0]
    # The lost channel lies between the second layer and the third; the others have done nothing.
    names = layers(prepare(broken_in_the_middle))
    assert names[2] in found.in_float
    assert set(found.in_float) <= set(names[1:3])
    assert f"{len(found.in_float)} of 4 layers in float" in found.note()
    assert "U8S8" in found.note()
    record = found.record()
    assert record["in_float"] == list(found.in_float) and list(record["damage"]) == names
    assert min(record["damage"][name] for name in found.in_float) > max(
        record["damage"][n] for n in (names[0], names[3])
    )


def test_nothing_goes_back_where_nothing_is_lost(broken_in_the_middle) -> None:
    found = quantise_within(broken_in_the_middle, samples(), Int8Types(), lambda _: 0.0, max_drop=0.0)
    assert found.in_float == () and found.record()["damage"] is None


@pytest.mark.parametrize("needed", [1, 2, 3, 4])
def test_the_fewest_are_found_by_halving(broken_in_the_middle, needed: int) -> None:
    def integer_layers(model: onnx.ModelProto) -> int:
        return sum(t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4 for t in model.graph.initializer)

    found = quantise_within(
        broken_in_the_middle, samples(4), Int8Types(), lambda model: float(integer_layers(model) > 4 - needed), 0.5
    )
    assert len(found.in_float) == needed


def test_a_drop_that_nothing_keeps_is_handed_back(broken_in_the_middle) -> None:
    found = quantise_within(broken_in_the_middle, samples(4), Int8Types(), lambda _: 7.0, max_drop=1.0)
    assert found.drop == 7.0
    assert len(found.in_float) == 4
