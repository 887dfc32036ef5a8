"""Eight samples at once must be answered as one by one; a network that cannot take eight is known as such."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewright.export.choose.batch import BATCH, BatchGate, compare_again, compare_batches, stacked, takes_batches
from edgewright.export.choose.candidates import Judge, build_all
from edgewright.export.choose.samples import Samples
from edgewright.export.running import gathered, outputs
from edgewright.export.runtimes.base import Network, Program
from edgewright.export.runtimes.onnxruntime_adapter import OnnxRuntime

SHAPE = (1, 3, 12, 20)


def arrays(count: int, shape=SHAPE) -> list[tuple[np.ndarray]]:
    return [(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32),) for seed in range(count)]


def graph(*nodes: onnx.NodeProto, **constants: np.ndarray) -> onnx.ModelProto:
    """x (1, 4, 6) to y through `nodes`."""
    body = helper.make_graph(
        list(nodes), "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 6))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def taken(model: onnx.ModelProto, count: int = 11) -> bool:
    samples = arrays(count, (1, 4, 6))
    return takes_batches(model, samples, outputs(model, samples))


@pytest.mark.parametrize("count", [1, 3, 8, 19, 100])
def test_samples_in_batches_are_the_samples(count: int) -> None:
    samples = arrays(count)
    found = stacked(samples)
    assert all(batch.shape == (BATCH, *SHAPE[1:]) for (batch,) in found) and len(found) <= 4
    for index, sample in enumerate(np.concatenate([batch for (batch,) in found])):
        assert (sample == samples[index % count][0]).all()


def test_a_network_of_a_run_takes_batches_and_stays_as_it_was(network: onnx.ModelProto) -> None:
    before = network.SerializeToString(deterministic=True)
    assert any(node.op_type == "Reshape" for node in network.graph.node)  # whose shape says a batch of 1
    assert takes_batches(network, arrays(11), outputs(network, arrays(11)))
    assert network.SerializeToString(deterministic=True) == before


def test_shapes_of_constant_nodes_are_changed_too() -> None:
    shape = helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(np.array([1, 24])))
    assert taken(graph(shape, helper.make_node("Reshape", ["x", "s"], ["y"])))


def test_a_network_that_mixes_its_samples_takes_one() -> None:
    mean = helper.make_node("ReduceMean", ["x", "a"], ["m"])
    assert not taken(graph(mean, helper.make_node("Sub", ["x", "m"], ["y"]), a=np.array([0])))


def test_a_network_whose_shapes_hold_the_batch_takes_one() -> None:
    nodes = (
        helper.make_node("Reshape", ["x", "s"], ["r"]), helper.make_node("Neg", ["r"], ["n"]),
        helper.make_node("Reshape", ["n", "t"], ["y"]),
    )  # fmt: skip
    assert not taken(graph(*nodes, s=np.array([4, 6]), t=np.array([1, 24])))


def test_reshapes_of_constants_are_left_alone() -> None:
    nodes = helper.make_node("Reshape", ["w", "s"], ["r"]), helper.make_node("Mul", ["x", "r"], ["y"])
    assert taken(graph(*nodes, w=np.arange(6, dtype=np.float32), s=np.array([1, 1, 6])))


def test_what_may_move() -> None:
    expected = np.array([[4.0, 1], [0, 2]])
    alone = expected + np.array([[0.0, 0.1], [0, 0]])
    same = compare_batches(["y"], lambda batch: [np.tile(alone, (4, 1))], arrays(2), [alone], [expected])
    assert (same.size, same.max_abs_difference, same.refusal()) == (8, 0, None)
    assert same.allowed == pytest.approx(0.1 + 4e-3)
    moved = compare_batches(["y"], lambda batch: [np.tile(alone[::-1], (4, 1))], arrays(2), [alone], [expected])
    assert moved.refusal() == "gives other answers in batches of 8: output 'y' differs by up to 4"
    assert BatchGate(8, float("nan"), 1.0).refusal() is not None


def test_a_file_must_not_remember() -> None:
    samples, last = arrays(5), [0.0]

    def forgetful(sample) -> list[np.ndarray]:
        return [sample[0][:, :2, 0, 0]]

    def remembering(sample) -> list[np.ndarray]:
        last.append(float(sample[0][0, 0, 0, 0]))
        return [forgetful(sample)[0] + last[-2]]

    expected = gathered(map(forgetful, samples))
    assert compare_again(["y"], forgetful, samples, expected, expected).max_abs_difference == 0
    alone = gathered(map(remembering, samples))
    assert "another order" in (compare_again(["y"], remembering, samples, alone, alone).refusal() or "")


def test_a_runtime_that_is_wrong_in_batches_is_refused(network: onnx.ModelProto, tmp_path: Path) -> None:
    class Wrong(OnnxRuntime):
        def open(self, path, threads=1, shape=None):
            program = super().open(path, threads, shape)
            many = (program.inputs[0].shape[0] or 1) > 1
            return Program(lambda x: [np.roll(y, many, 0) for y in program.call(x)], program.inputs)

    given = Network(network, calibration=arrays(10))
    judge = Judge(given, Samples(arrays(10), arrays(20), None), 100.0, None)
    for runtime, refused in ((OnnxRuntime(), None), (Wrong(), "gives other answers in batches of 8")):
        for row in build_all([(runtime, "fp32"), (runtime, "int8")], given, judge, tmp_path):
            assert row.batch is not None and row.batch.size == 8
            assert (row.refused is None) if refused is None else (row.refused or "").startswith(refused)
