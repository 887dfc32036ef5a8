"""A network as memory sees it: its operators in running order, and the bytes of every activation between them.

Weights do not count. `fused` turns operators into the steps that a runtime takes: an activation, and where it can an
add, becomes part of the convolution before it. In an int8 file (QuantizeLinear and DequantizeLinear around float
operators) a tensor that is quantised as soon as it is made counts as what it is quantised to, as integer kernels have
it; only where such a pair turns the network's own input or output does it take a step.
"""

import heapq
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal

import onnx
from onnx import shape_inference

from edgewright.core.errors import BadInput, one_line
from edgewright.ir import counts
from edgewright.ir.graph import Graph, needed_ops, whole_numbers
from edgewright.ir.op import Op

FLOAT_BYTES = 4
INDEX_BYTES = 8  # of the classes that an argmax gives, of the words that an embedding reads
Role = Literal["conv", "conv+add", "elementwise", "add", "view", "quantise", "other"]


@dataclass(frozen=True, slots=True)
class Step:
    """One operator. `inputs` are activations only; `over`: inputs the output may be written over.   channel: of a
    depthwise convolution, the bytes of one channel of its input; 0 of everything else."""

    role: Role
    inputs: tuple[Hashable, ...]
    outputs: tuple[Hashable, ...]
    over: tuple[Hashable, ...] = ()
    channel: int = 0


@dataclass(frozen=True)
class Activations:
    """sizes: bytes by tensor.   steps: in running order.   inputs, outputs: of the network."""

    sizes: Mapping[Hashable, int]
    steps: tuple[Step, ...]
    inputs: tuple[Hashable, ...]
    outputs: tuple[Hashable, ...]


_ROLES: dict[str, Role] = {
    "conv": "conv",
    **dict.fromkeys(("relu", "hardsigmoid", "sigmoid", "swish", "norm", "mul"), "elementwise"),
    "add": "add",
    **dict.fromkeys(("flatten", "reshape"), "view"),
}
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")
_ONNX_ROLES: dict[str, Role] = {
    "Conv": "conv",
    "Add": "add",
    **dict.fromkeys(("Relu", "Clip", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh", "LeakyRelu", "Mul"), "elementwise"),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout"), "view"),
    "QuantizeLinear": "quantise",
}


def of_graph(graph: Graph, number_bytes: int = FLOAT_BYTES) -> Activations:
    """Of a `Graph`, with numbers of so many bytes; indices have INDEX_BYTES."""
    whole = whole_numbers(graph)
    sizes: dict[Hashable, int] = {
        index: prod(shape) * (INDEX_BYTES if index in whole else number_bytes)
        for index, shape in enumerate(graph.shapes)
    }

    def step(op: Op) -> Step:
        depthwise = op.kind == "conv" and counts.depthwise(op.groups, graph.shapes[op.inputs[0]][0])
        channel = number_bytes * prod(graph.shapes[op.inputs[0]][1:]) if depthwise else 0
        return _step(_ROLES.get(op.kind, "other"), op.inputs, (op.output,), channel)

    return Activations(sizes, tuple(map(step, needed_ops(graph))), graph.inputs, graph.outputs)


def of_onnx(model: bytes | Path | str | onnx.ModelProto, number_bytes: int = FLOAT_BYTES) -> Activations:
    """Of an ONNX model; free dimensions count as 1.   number_bytes: of a float32, for a network that will be converted.

    Errors: BadInput for what is no ONNX model, and for a tensor whose shape cannot be inferred.
    """
    return _OnnxReader(_inferred(read_onnx(model)), number_bytes).activations()


def read_onnx(model: bytes | Path | str | onnx.ModelProto) -> onnx.ModelProto:
    """Errors: BadInput for what is no ONNX model."""
    try:
        if isinstance(model, bytes):
            return onnx.load_model_from_string(model)
        return model if isinstance(model, onnx.ModelProto) else onnx.load_model(str(model))
    except FileNotFoundError:
        raise BadInput(f"{model}: no such file") from None
    except Exception as error:  # protobuf's and onnx's error classes differ between versions
        raise BadInput(f"not a readable ONNX model ({one_line(error)})") from None


def _inferred(model: onnx.ModelProto) -> onnx.GraphProto:
    """The graph with its shapes, and its nodes so that each comes after what it reads."""
    try:
        ordered = onnx.ModelProto()
        ordered.CopyFrom(model)
        nodes = _ordered(model.graph)
        del ordered.graph.node[:]
        ordered.graph.node.extend(nodes)
        return shape_inference.infer_shapes(ordered, data_prop=True).graph
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"not a readable ONNX model ({one_line(error)})") from None


def _ordered(body: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes in the file's order as far as each comes after its inputs: quantisers append theirs at the end."""
    makers = {name: index for index, node in enumerate(body.node) for name in node.output if name}
    waits = [{makers[name] for name in node.input if name in makers} for node in body.node]
    readers: dict[int, list[int]] = {}
    for index, before in enumerate(waits):
        for maker in before:
            readers.setdefault(maker, []).append(index)
    ready = [index for index, before in enumerate(waits) if not before]
    found = []
    while ready:
        index = heapq.heappop(ready)
        found.append(body.node[index])
        for reader in readers.get(index, ()):
            waits[reader].discard(index)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(found) < len(body.node):
        raise BadInput("not a readable ONNX model (its nodes form a cycle)")
    return found


class _OnnxReader:
    """Reads one inferred graph."""

    def __init__(self, body: onnx.GraphProto, number_bytes: int) -> None:
        self.body = body
        self.constants = {item.name for item in body.initializer}
        values = (*body.input, *body.value_info, *body.output)
        self.shapes = {value.name: _shape(value) for value in values}
        self.sizes: dict[Hashable, int] = {value.name: _bytes(value, number_bytes) for value in values}
        self.outputs = tuple(value.name for value in body.output)
        self.kept = {*self.outputs, *(value.name for value in body.input)}
        self.known = {item.name: tuple(item.dims) for item in body.initializer}
        self.names = self._integer_names()

    def activations(self) -> Activations:
        steps = [step for node in self.body.node if (step := self._step(node)) is not None]
        inputs = tuple(value.name for value in self.body.input if value.name not in self.constants)
        return Activations(self.sizes, tuple(steps), inputs, self.outputs)

    def _integer_names(self) -> dict[str, str]:
        """Of each float tensor that integer kernels never hold, the int8 tensor that stands for it."""
        readers: dict[str, int] = {}
        for node in self.body.node:
            for name in node.input:
                readers[name] = readers.get(name, 0) + 1
        names: dict[str, str] = {}
        for node in self.body.node:
            source, made = node.input[:1], node.output[0] if node.output else ""
            if node.op_type == "DequantizeLinear" and source[0] not in self.constants and made not in self.kept:
                names[made] = source[0]
            elif node.op_type == "QuantizeLinear" and {source[0], made}.isdisjoint(self.kept | names.keys()):
                names |= {source[0]: made} if readers[source[0]] == 1 else {}  # else it is needed as floats too
        return names

    def _name(self, name: str) -> str:
        return self.names.get(name, name)

    def _step(self, node: onnx.NodeProto) -> Step | None:
        rounds = node.op_type in _ROUNDING
        if node.op_type == "Constant" or (rounds and node.input[0] in self.constants):
            self.constants.update(node.output)
            return None
        inputs = tuple(self._name(name) for name in node.input if name and name not in self.constants)
        made = tuple(self._name(name) for name in node.output if name)
        if rounds and made == inputs[:1]:
            return None
        missing = [name for name in (*inputs, *made) if name not in self.sizes]
        if missing:
            raise BadInput(f"the model's tensor '{missing[0]}' has no shape that can be inferred")
        return _step(_ONNX_ROLES.get(node.op_type, "other"), inputs, made, self._channel(node))

    def _channel(self, node: onnx.NodeProto) -> int:
        shape = self.shapes.get(node.input[0], ()) if node.op_type == "Conv" else ()
        groups = next((int(a.i) for a in node.attribute if a.name == "group"), 1)
        return self.sizes[self._name(node.input[0])] // groups if len(shape) > 1 and groups == shape[1] > 1 else 0


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value if dim.HasField("dim_value") else 1 for dim in value.type.tensor_type.shape.dim)


def _bytes(value: onnx.ValueInfoProto, number_bytes: int) -> int:
    kind = value.type.tensor_type.elem_type
    one = number_bytes if kind == onnx.TensorProto.FLOAT else onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
    return prod(_shape(value)) * one


def _step(role: Role, inputs: tuple[Hashable, ...], outputs: tuple[Hashable, ...], channel: int = 0) -> Step:
    return Step(role, inputs, outputs, inputs if role in ("elementwise", "add", "view") else (), channel)


def fused(steps: Sequence[Step], keep: Sequence[Hashable], adds: bool = True) -> list[Step]:
    """The steps as a runtime runs them: a convolution swallows an add that reads it and the activation after that.

    Only where nothing else reads the tensor that disappears; tensors in `keep` (the network's outputs) never do.
    adds: whether it swallows adds, as ONNX Runtime does; LiteRT and microcontrollers run an add on its own.
    """
    readers: dict[Hashable, int] = {}
    for step in steps:
        for name in step.inputs:
            readers[name] = readers.get(name, 0) + 1
    result: list[Step] = []
    maker: dict[Hashable, int] = {}
    for step in steps:
        host = _host(step, result, maker, readers, keep) if adds or step.role != "add" else None
        if host is None:
            maker |= {name: len(result) for name in step.outputs}
            result.append(step)
            continue
        into = result[host]
        others = tuple(name for name in step.inputs if name not in into.outputs)
        # After an add only an activation can follow into it, after an activation nothing.
        role: Role = "conv+add" if step.role == "add" else "other"
        # What the convolution itself reads cannot be written over while it runs.
        over = into.over + tuple(name for name in others if name not in into.inputs)
        result[host] = replace(into, role=role, inputs=into.inputs + others, outputs=step.outputs, over=over)
        maker |= dict.fromkeys(step.outputs, host)
    return result


def _host(step: Step, result: list[Step], maker: dict, readers: dict, keep: Sequence[Hashable]) -> int | None:
    """The index of the convolution that can swallow `step`, if any: the latest, so that its other input is there."""
    if step.role not in ("add", "elementwise") or (step.role == "elementwise" and len(step.inputs) != 1):
        return None
    open_roles = ("conv",) if step.role == "add" else ("conv", "conv+add")
    hosts = [
        maker[name]
        for name in step.inputs
        if name in maker and readers[name] == 1 and name not in keep and result[maker[name]].role in open_roles
    ]
    if not hosts:
        return None
    host = max(hosts)
    if step.role == "add":
        ready = all(maker.get(name, -1) <= host for name in step.inputs)
        return host if ready else None
    return host
