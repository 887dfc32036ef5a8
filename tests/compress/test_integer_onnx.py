"""The integer graph in ONNX Runtime gives the simulation's codes, bit by bit."""

import numpy as np
import onnxruntime
import pytest

from compress.networks import images, lived_in, mobile
from compress.test_integer_only import Residual
from edgewright.compress.base import apply
from edgewright.compress.bits.integer import IntegerNetwork
from edgewright.compress.bits.integer_only import quantise
from edgewright.compress.bits.integer_onnx import as_onnx
from edgewright.compress.planner import plan


def in_runtime(network: IntegerNetwork, codes: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = as_onnx(network, len(codes)).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"codes": codes})[0])


@pytest.mark.parametrize("bits", [8, 4, {"one": 3, "down": 6}], ids=["8", "4", "mixed"])
def test_every_operator_bit_by_bit(bits) -> None:
    network = quantise(lived_in(Residual(3)), images(16, 3, 11, 8), bits=bits)
    codes = network.codes(2 * images(50, 3, 11, 8, seed=7).numpy())
    assert codes.min() < 0, "with signs"
    assert np.array_equal(in_runtime(network, codes), network.run(codes))


def test_a_merged_mobile_network_bit_by_bit() -> None:
    model, x = lived_in(mobile()), images(6, 3, 18, 22)
    folded = apply(model, plan(model, x, ["fold_batch_norm"]), x)
    network = quantise(folded, x)
    codes = network.codes(images(9, 3, 18, 22, seed=5).numpy())
    assert np.array_equal(in_runtime(network, codes), network.run(codes))


def test_the_graph_has_no_floats() -> None:
    model = as_onnx(quantise(lived_in(Residual(3)), images(4, 3, 11, 8)))
    assert not {tensor.data_type for tensor in model.graph.initializer} & {1, 10, 11, 16}
    assert {"ConvInteger", "MatMulInteger"} <= {node.op_type for node in model.graph.node}
