"""Where does a candidate part from its source? The tensors between the layers of both, compared one after the other.

To be seen, a tensor is made an output, and a runtime does not fuse across outputs: what only its fused kernels do wrong
is not found so, and then nothing is named.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from torch import nn

from edgewright.core.quiet import silent
from edgewright.core.tensors import ask
from edgewright.export.graph import inputs_of
from edgewright.export.int8.quantise import LAYERS, float_tensors
from edgewright.export.onnx import fold_batch_norms, prepared
from edgewright.export.running import Sample, Says, tree_of

LOOKED_AT = 8  # samples
# |y' - y| / |y| of one tensor above which it has departed; int8's own rounding brings up to 0.1 in a good network.
LIMITS = {"fp32": 1e-3, "bf16": 0.05, "int8": 0.2}


@dataclass(frozen=True)
class Layer:
    """How far one layer's output is from the source's: cosine, relative error |y' - y| / |y|, largest difference."""

    operator: str
    name: str
    cosine: float
    error: float
    max_abs_difference: float

    def text(self) -> str:
        return f"{self.operator} '{self.name}' (cosine {self.cosine:.2f}, off by up to {self.max_abs_difference:.3g})"


@dataclass(frozen=True)
class Divergence:
    """first: the first layer, in running order, that departs beyond its type's limit; None where none does.
    furthest: the one with the largest relative error.   compared: how many tensors were.
    """

    first: Layer | None
    furthest: Layer
    compared: int

    def text(self) -> str:
        if self.first is not None:
            return f"diverges first at {self.first.text()}"
        return f"no layer departs by itself, the furthest off is {self.furthest.text()}"


class Pair(NamedTuple):
    """A tensor of the source, the same one of the candidate, and the layer that makes it."""

    source: str
    found: str
    operator: str
    layer: str


def pairs(source: onnx.ModelProto, candidate: onnx.ModelProto, named: onnx.ModelProto | None = None) -> list[Pair]:
    """Tensors that both have by one name, in running order; of a quantised candidate as its next layer reads them.

    named: the network whose names of nodes a user knows, where that is not `source`.
    A tensor is said to be its layer's: where a norm or an activation is folded into a convolution, the convolution's.
    """
    read = {node.input[0]: node.output[0] for node in candidate.graph.node if node.op_type == "QuantizeLinear"}
    back = {node.input[0]: node.output[0] for node in candidate.graph.node if node.op_type == "DequantizeLinear"}
    made = {name for node in candidate.graph.node for name in node.output}
    both = [name for name in float_tensors(source) if name in made]
    found = {name: back.get(read.get(name, ""), name) for name in both}
    makers = {name: node for node in source.graph.node for name in node.output}
    makers |= {name: node for node in (named or source).graph.node for name in node.output}
    return [Pair(name, found[name], *_layer(name, makers, set(both))) for name in both]


def _layer(name: str, makers: Mapping[str, onnx.NodeProto], compared: set[str]) -> tuple[str, str]:
    """The operator that a tensor is due to, and its name: itself, or the layer before it that nobody looked at."""
    node, seen = makers[name], {name}
    while node.op_type not in LAYERS:
        before = [maker for text in node.input if text not in compared | seen and (maker := makers.get(text))]
        if len(before) != 1:
            break
        seen |= set(before[0].output)
        node = before[0]
    return node.op_type, node.name or node.output[0]


def tapped(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with the tensors `names`, float32, for its outputs."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    known = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    del made.graph.output[:]
    plain = onnx.TypeProto(tensor_type=onnx.TypeProto.Tensor(elem_type=onnx.TensorProto.FLOAT))
    made.graph.output.extend(known.get(name) or onnx.ValueInfoProto(name=name, type=plain) for name in names)
    return made


def of_module(module: nn.Module, model: onnx.ModelProto) -> tuple[list[Pair], Says]:
    """The outputs of a PyTorch network's layers, with the tensors of an ONNX file of ours that hold the same.

    Its nodes are called as the modules are (`name_nodes`); a module that is called twice is left out, and one that
    gives anything but a tensor.
    """
    ready, names = prepared(module), [spec.name for spec in inputs_of(model)]
    zeros = [np.zeros([size or 1 for size in spec.shape], spec.dtype) for spec in inputs_of(model)]
    with silent():
        fold_batch_norms(ready, tree_of(names, zeros))
    leaves = {name: leaf for name, leaf in ready.named_modules() if not list(leaf.children()) and name}
    last = {node.name: node for node in model.graph.node}
    last |= {name: node for node in model.graph.node if (name := node.name.rpartition(".")[0]) in leaves}
    calls: dict[str, list[np.ndarray]] = {}
    found: list[Pair] = []

    def call(sample: Sample) -> list[np.ndarray]:
        calls.clear()
        hooks = [leaf.register_forward_hook(_keeper(calls, name)) for name, leaf in leaves.items() if name in last]
        try:
            with torch.no_grad():
                ask(ready, tree_of(names, sample))
        finally:
            for hook in hooks:
                hook.remove()
        return [calls[pair.layer][0] for pair in found]

    call(zeros)
    once = {name for name, outputs in calls.items() if len(outputs) == 1}
    order = {node.name: index for index, node in enumerate(model.graph.node)}
    found += sorted(
        (Pair(name, last[name].output[0], type(leaves[name]).__name__, name) for name in once),
        key=lambda pair: order[last[pair.layer].name],
    )
    return found, call


def _keeper(calls: dict[str, list[np.ndarray]], name: str) -> Callable[..., None]:
    def keep(module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            calls.setdefault(name, []).append(output.numpy())

    return keep


def diverge(
    pairs: Sequence[Pair], source: Says, candidate: Says, samples: Sequence[Sample], kind: str
) -> Divergence | None:
    """Both run on the first LOOKED_AT samples; their tensors come in the order of `pairs`. None without any.

        error = |y' - y| / |y|,  cosine = <y, y'> / (|y| |y'|)       over all values of all samples

    Checked against: networks one layer of which was altered (tests/export/test_diverge.py).
    """
    sums = [_Sums() for _ in pairs]
    for sample in samples[:LOOKED_AT]:
        for total, expected, found in zip(sums, source(sample), candidate(sample), strict=True):
            total.add(expected, found)
    rows = [total.layer(pair) for total, pair in zip(sums, pairs, strict=True) if total.alike]
    if not rows:
        return None
    first = next((row for row in rows if not row.error <= LIMITS[kind]), None)
    return Divergence(first, max(rows, key=lambda row: row.error), len(rows))


class _Sums:
    """What two tensors have in common, gathered sample by sample."""

    def __init__(self) -> None:
        self.dot = self.one = self.other = self.gap = self.largest = 0.0
        self.alike = True

    def add(self, expected: np.ndarray, found: np.ndarray) -> None:
        self.alike &= expected.shape == found.shape
        if not self.alike:
            return
        y, z = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
        self.dot += float(y @ z)
        self.one += float(y @ y)
        self.other += float(z @ z)
        self.gap += float((z - y) @ (z - y))
        self.largest = max(self.largest, float(np.abs(z - y).max(initial=0.0)))

    def layer(self, pair: Pair) -> Layer:
        norms = np.sqrt(self.one * self.other)
        cosine = self.dot / norms if norms > 0 else float(self.gap == 0)
        error = np.sqrt(self.gap / self.one) if self.one > 0 else (0.0 if self.gap == 0 else np.inf)
        finite = bool(np.isfinite(error))
        return Layer(
            pair.operator, pair.layer, float(cosine) if finite else 0.0, float(error) if finite else np.inf,
            self.largest if finite else np.inf,
        )  # fmt: skip
