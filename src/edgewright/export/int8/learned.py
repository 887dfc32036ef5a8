"""The int8 file of a network that learned to be one: its own steps and ranges, nothing calibrated anew."""

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from edgewright.compress.bits.qat import Rounded
from edgewright.core.errors import EdgewrightError
from edgewright.core.files import scratch
from edgewright.export.graph import inputs_of
from edgewright.export.int8.calibrators import minmax
from edgewright.export.int8.quantise import Int8Types, collect, layers, prepare, quantise, ranges, watching
from edgewright.export.onnx import export_onnx

SAME = 1e-4  # of a tensor's largest number: what float32 may differ by between two runtimes


def quantise_learned(
    net: Rounded, inputs: Tensor, metadata: Mapping[str, str] | None = None
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The float file of the learned network, and its int8 file in QDQ form, U8S8.

    The tensors of the file are told by their values on `inputs`: one that holds the numbers of a rounded tensor gets
    that one's range, and a weight its channels' steps. Tensors inside what the quantiser fuses (a convolution's before
    its ReLU) get the least and greatest values seen, which nothing reads.

    Args:
        inputs: a few real ones, (N, C, H, W).
    Errors: EdgewrightError where a rounded tensor or weight is not found in the file.
    Checked against: the network itself in PyTorch, to one step of the output (tests/export/test_learned.py).
    """
    with scratch() as folder:
        path = folder / "float.onnx"
        export_onnx(net.float_network(), tuple(inputs.shape[1:]), path, metadata)
        plain = onnx.load(path)
    ready = prepare(plain)
    one_by_one = [(inputs[i : i + 1].numpy(),) for i in range(len(inputs))]
    covered = ranges(collect(ready, one_by_one), minmax) | learned_ranges(net, ready, _telling(net, inputs))
    return plain, quantise(ready, covered, Int8Types(), steps=learned_steps(net, ready))


def learned_ranges(net: Rounded, ready: onnx.ModelProto, x: Tensor) -> dict[str, tuple[float, float]]:
    """By name in the file, the range of every tensor that holds the numbers of a rounded one, for all inputs x."""
    shown = [(_values(ready, one.numpy()), net.tensors(one)) for one in x.split(1)]
    found: dict[str, tuple[float, float]] = {}
    for index, (tensor, covered) in enumerate(shown[0][1]):
        names = [
            name for name in shown[0][0]
            if all(_same(values[name], tensors[index][0].numpy()) for values, tensors in shown)
        ]  # fmt: skip
        if not names:
            raise EdgewrightError(f"rounded tensor {index} of the network, {tuple(tensor.shape)}, is not in the file")
        found |= dict.fromkeys(names, covered)
    return found


def _telling(net: Rounded, inputs: Tensor) -> Tensor:
    """The inputs and one of noise over the range that they have: tensors that are alike for one image (gates that are
    shut for it) are not for another."""
    low, high = (end.detach().cpu() for end in next(iter(net.activations().values())).ends())
    noise = torch.rand(inputs[:1].shape, generator=torch.Generator().manual_seed(0))
    return torch.cat([inputs, low + (high - low) * noise])


def learned_steps(net: Rounded, ready: onnx.ModelProto) -> dict[str, np.ndarray]:
    """By name in the file, the steps of each weight's output channels."""
    read = {node.input[1] for node in ready.graph.node if node.name in set(layers(ready))}
    held = {one.name: numpy_helper.to_array(one) for one in ready.graph.initializer if one.name in read}
    found: dict[str, np.ndarray] = {}
    for layer, (weight, steps) in net.weights().items():
        names = [name for name, value in held.items() if _same(value, weight.numpy())]
        if not names:
            raise EdgewrightError(f"the weights of '{layer}' are not in the file as they were learned")
        found |= dict.fromkeys(names, steps.numpy())
    return found


def _values(ready: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """Of each float tensor, the input among them."""
    names, call = watching(ready)
    (source,) = inputs_of(ready)
    return {source.name: x} | dict(zip(names, call((x,)), strict=True))


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape:
        return False
    return bool(np.abs(one - other).max() <= SAME * max(float(np.abs(other).max()), 1e-30))
