"""Channels of very unequal size evened out between two layers, so that one scale fits the tensor between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from edgewright.export.running import Sample, call_of

EVENED_ON = 16  # samples by which the channels' sizes are told
MOST_SCALE = 1e4  # further apart than this, a channel says next to nothing


@dataclass(frozen=True)
class Pair:
    """Two convolutions by name, and the tensor that the second reads; between them is a ReLU or nothing."""

    first: str
    second: str
    between: str


def equalise(prepared: onnx.ModelProto, samples: Sequence[Sample]) -> onnx.ModelProto | None:
    r"""The same function with evened channels; None where there are no two layers to even.

        W1_i <- W1_i / s_i,   b1_i <- b1_i / s_i,   W2_{:,i} <- s_i W2_{:,i},      s_i = sqrt(a_i / r_i)

    a_i: largest size of channel i between the layers, over `samples`; r_i = max |W2_{:,i}|; s is divided by its
    geometric mean. Exact, because relu(x / s) = relu(x) / s for s > 0; only where nothing else reads what lies
    between. Where the second is depthwise, s_i = a_i: its weights have a scale for each channel and lose nothing.
    Differs from the paper: a_i in place of max |W1_i|, since our weights have a scale for each output channel anyway
    and it is the tensor between that has but one; no bias absorption; ReLU6 is left alone, which is not scale-free.
    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
    arXiv:1906.04721. Checked against: the function is unchanged, and a network that int8 ruined is repaired
    (tests/export/test_equalise.py).
    """
    pairs = find_pairs(prepared)
    if not pairs:
        return None
    sizes = _sizes(prepared, pairs, samples[:EVENED_ON])
    model = onnx.ModelProto()
    model.CopyFrom(prepared)
    for pair in pairs:
        _even(model, pair, sizes[pair.between])
    return model


def find_pairs(model: onnx.ModelProto) -> list[Pair]:
    """Convolutions that follow each other, each layer at most once as the first and once as the second."""
    body = model.graph
    weights = {tensor.name for tensor in body.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {value.name: [] for value in body.output}
    for node in body.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kept = {value.name for value in body.output}
    uses = {name: len(nodes) for name, nodes in readers.items()}
    found = []
    for node in body.node:
        if node.op_type != "Conv" or any(uses.get(name, 0) > 1 or name not in weights for name in node.input[1:]):
            continue
        tensor, after = node.output[0], readers.get(node.output[0], [])
        if len(after) == 1 and after[0].op_type == "Relu" and tensor not in kept:
            tensor, after = after[0].output[0], readers.get(after[0].output[0], [])
        if len(after) != 1 or after[0].op_type != "Conv" or tensor in kept or after[0].input[0] != tensor:
            continue
        second = after[0]
        if second.input[1] in weights and uses[second.input[1]] == 1 and _groups(second) in (1, None):
            found.append(Pair(node.name, second.name, tensor))
    return [pair for pair in found if _evenable(model, pair)]


def _groups(node: onnx.NodeProto) -> int | None:
    """1 for a dense convolution, None for one that may be depthwise."""
    return 1 if next((a.i for a in node.attribute if a.name == "group"), 1) == 1 else None


def _evenable(model: onnx.ModelProto, pair: Pair) -> bool:
    """Whether the second is dense over the first's channels, or depthwise."""
    first, second = (_weight(model, name, 1)[1] for name in (pair.first, pair.second))
    dense = _groups(_node(model, pair.second)) == 1
    return second.shape[1] == len(first) if dense else second.shape[:2] == (len(first), 1)


def _sizes(model: onnx.ModelProto, pairs: Sequence[Pair], samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """For each tensor between, the largest size of each channel (C,)."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names = list(dict.fromkeys(pair.between for pair in pairs))
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    call = call_of(watched)
    found: dict[str, np.ndarray] = {}
    for sample in samples:
        for name, value in zip(names, call(sample), strict=True):
            tensor = np.abs(value)
            most: np.ndarray = tensor.max(axis=tuple(axis for axis in range(tensor.ndim) if axis != 1))
            found[name] = np.maximum(found[name], most) if name in found else most
    return found


def _even(model: onnx.ModelProto, pair: Pair, sizes: np.ndarray) -> None:
    """One pair, in place."""
    held, second = _weight(model, pair.second, 1)
    dense = _groups(_node(model, pair.second)) == 1
    reach = np.abs(second).max(axis=(0, *range(2, second.ndim)) if dense else tuple(range(1, second.ndim)))
    live = (sizes > 0) & (reach > 0)
    if live.sum() < 2:
        return
    scale = np.ones(len(sizes))
    scale[live] = np.sqrt(sizes[live] / reach[live]) if dense else sizes[live]
    scale[live] /= np.exp(np.log(scale[live]).mean())
    scale = np.clip(scale, 1 / MOST_SCALE, MOST_SCALE)
    column = (1, -1) if dense else (-1, 1)
    _put(held, second * scale.reshape(*column, *[1] * (second.ndim - 2)))
    for index in range(1, len(_node(model, pair.first).input)):
        held, first = _weight(model, pair.first, index)
        _put(held, first / scale.reshape(-1, *[1] * (first.ndim - 1)))


def _node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def _weight(model: onnx.ModelProto, name: str, index: int) -> tuple[onnx.TensorProto, np.ndarray]:
    wanted = _node(model, name).input[index]
    held = next(tensor for tensor in model.graph.initializer if tensor.name == wanted)
    return held, numpy_helper.to_array(held)


def _put(held: onnx.TensorProto, values: np.ndarray) -> None:
    held.CopyFrom(numpy_helper.from_array(values.astype(np.float32), held.name))
