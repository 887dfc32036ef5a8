"""Peak activation memory by liveness: how many bytes of tensors are alive at once while a network runs.

Convention: float32, batch 1. At every operator the tensors alive are counted: the network's input until its last use,
every intermediate result from the operator that makes it to its last use, and outputs to the end. Weights do not count.
An operator that the runtime fuses (activation or residual add after a convolution) or does in place (element by element
over an input that nothing else reads) needs no buffer of its own; a reshape is its input under another name.

Against the bytes that ONNX Runtime 1.31 held on x86 (`profile.runtime_peak_bytes`): within 10 % for convolutional
networks whose widths are multiples of 16; up to 15 % more is held where widths are padded to 16; up to 2.1 times as
much in networks with squeeze-excite, whose gated tensor the runtime keeps in two layouts and whose dead buffers its
planner holds for later tensors. The plan is what a runtime without such copies needs.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal

import onnx
from onnx import shape_inference

from edgewright.core.errors import BadInput
from edgewright.core.graph import Graph, needed_ops

FLOAT_BYTES = 4
Role = Literal["conv", "conv+add", "elementwise", "add", "view", "other"]


@dataclass(frozen=True, slots=True)
class Step:
    """One operator as memory sees it. `inputs` are activations only; `over`: inputs the output may be written over."""

    role: Role
    inputs: tuple[Hashable, ...]
    outputs: tuple[Hashable, ...]
    over: tuple[Hashable, ...] = ()


def peak_bytes(
    sizes: Mapping[Hashable, int],
    steps: Sequence[Step],
    inputs: Sequence[Hashable],
    outputs: Sequence[Hashable],
) -> int:
    """The most bytes alive at once. `sizes`: bytes by tensor; `steps` in running order.

    An output takes over the buffer of a tensor in `over` when that tensor has the same size, is not an input of the
    network, and this step is the only one that reads it last (for a fused add: its last reader).
    Checked against: a brute-force count, and ONNX Runtime's allocator (tests/device/test_memory.py).
    """
    last_use = {name: index for index, step in enumerate(steps) for name in step.inputs}
    last_use |= dict.fromkeys(outputs, len(steps))
    live = sum(sizes[name] for name in set(inputs))
    peak = live
    for index, step in enumerate(steps):
        dying = [name for name in dict.fromkeys(step.inputs) if last_use[name] == index]
        free_for_taking = [name for name in step.over if name in dying and name not in inputs]
        for output in step.outputs:
            taken = next((name for name in free_for_taking if sizes[name] == sizes[output]), None)
            if taken is None:
                live += sizes[output]
            else:
                free_for_taking.remove(taken)
                dying.remove(taken)
        peak = max(peak, live)
        unread = [name for name in step.outputs if name not in last_use]
        live -= sum(sizes[name] for name in (*dying, *unread))
    return peak


def graph_peak_bytes(graph: Graph) -> int:
    """Peak activation bytes of a `Graph` (convention at the top of this file)."""
    roles: dict[str, Role] = {
        "conv": "conv",
        "relu": "elementwise",
        **dict.fromkeys(("hardsigmoid", "sigmoid", "swish", "norm"), "elementwise"),
        "mul": "elementwise",
        "add": "add",
        "flatten": "view",
    }
    steps = [_step(roles.get(op.kind, "other"), op.inputs, (op.output,)) for op in needed_ops(graph)]
    sizes: dict[Hashable, int] = {index: FLOAT_BYTES * prod(shape) for index, shape in enumerate(graph.shapes)}
    last = graph.output
    return peak_bytes(sizes, fused(steps, (last,)), (0,), (last,))


_ROUNDING = ("QuantizeLinear", "DequantizeLinear")
_ONNX_ROLES: dict[str, Role] = {
    "Conv": "conv",
    "Add": "add",
    **dict.fromkeys(("Relu", "Clip", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh", "LeakyRelu", "Mul"), "elementwise"),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout"), "view"),
}


def onnx_peak_bytes(model: bytes | Path | str | onnx.ModelProto) -> int:
    """Peak activation bytes of an ONNX model (convention at the top of this file); free dimensions count as 1."""
    try:
        if isinstance(model, bytes):
            model = onnx.load_model_from_string(model)
        elif not isinstance(model, onnx.ModelProto):
            model = onnx.load_model(str(model))
        body = shape_inference.infer_shapes(model, data_prop=True).graph
    except FileNotFoundError:
        raise BadInput(f"{model}: no such file") from None
    except Exception as error:  # protobuf's and onnx's error classes differ between versions
        raise BadInput(f"not a readable ONNX model ({' '.join(str(error).split())})") from None
    constants = {item.name for item in body.initializer}
    constants |= {name for node in body.node if node.op_type == "Constant" for name in node.output}
    sizes: dict[Hashable, int] = {
        value.name: _value_bytes(value) for value in (*body.input, *body.value_info, *body.output)
    }
    alias = _quantised(body, constants)
    steps = []
    for node in body.node:
        if node.op_type == "Constant" or (node.op_type in _ROUNDING and node.output[0] in alias):
            continue
        inputs = tuple(alias.get(name, name) for name in node.input if name and name not in constants)
        missing = [name for name in (*inputs, *node.output) if name and name not in sizes]
        if missing:
            raise BadInput(f"the model's tensor '{missing[0]}' has no shape that can be inferred")
        made = tuple(alias.get(name, name) for name in node.output if name)
        steps.append(_step(_ONNX_ROLES.get(node.op_type, "other"), inputs, made))
    sources = tuple(value.name for value in body.input if value.name not in constants)
    sinks = tuple(alias.get(value.name, value.name) for value in body.output)
    return peak_bytes(sizes, fused(steps, sinks), sources, sinks)


def _quantised(body: onnx.GraphProto, constants: set[str]) -> dict[str, str]:
    """In a network in QDQ form, tensors by the name of the integers that runtimes keep in their place: what is only
    read to be rounded is made as integers at once, and rounding back is part of the operator that reads.

    Constants that are rounded back are added to `constants`.
    """
    alias: dict[str, str] = {}
    readers = Counter(name for node in body.node for name in node.input)
    sources = {value.name for value in body.input}
    for node in body.node:
        if node.op_type not in _ROUNDING:
            continue
        source, result = node.input[0], node.output[0]
        if source in constants:
            constants.add(result)
            alias[result] = source
        elif node.op_type == "DequantizeLinear":
            alias[result] = alias.get(source, source)
        elif readers[source] == 1 and source not in sources:
            alias[source] = alias[result] = result
    return alias


def _value_bytes(value: onnx.ValueInfoProto) -> int:
    kind = value.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else 1 for dim in kind.shape.dim]
    return prod(shape) * onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize


def _step(role: Role, inputs: tuple[Hashable, ...], outputs: tuple[Hashable, ...]) -> Step:
    return Step(role, inputs, outputs, inputs if role in ("elementwise", "add", "view") else ())


def fused(steps: Sequence[Step], keep: Sequence[Hashable]) -> list[Step]:
    """The steps as the runtime runs them: a convolution swallows an add that reads it and the activation after that.

    Only where nothing else reads the tensor that disappears; tensors in `keep` (the network's outputs) never do.
    """
    readers: dict[Hashable, int] = {}
    for step in steps:
        for name in step.inputs:
            readers[name] = readers.get(name, 0) + 1
    result: list[Step] = []
    maker: dict[Hashable, int] = {}
    for step in steps:
        host = _host(step, result, maker, readers, keep)
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
