"""Peak activation memory by liveness: how many bytes of tensors are alive at once while a network runs.

Convention: float32, batch 1. At every operator the tensors alive are counted: the network's inputs until their last
use, every intermediate result from the operator that makes it to its last use, and outputs to the end. Weights do not
count. An operator that the runtime fuses (activation or residual add after a convolution) or does in place (element by
element over an input that nothing else reads) needs no buffer of its own; a reshape is its input under another name.

Against the bytes that ONNX Runtime 1.31 held on x86 (`profile.runtime_peak_bytes`): within 10 % for convolutional
networks whose widths are multiples of 16; up to 15 % more is held where widths are padded to 16; up to 2.1 times as
much in networks with squeeze-excite, whose gated tensor the runtime keeps in two layouts and whose dead buffers its
planner holds for later tensors. The plan is what a runtime without such copies needs.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgewright.ir import from_onnx
from edgewright.ir.graph import Graph
from edgewright.ir.network import FLOAT_BYTES, Network, Node, from_graph

Role = Literal["conv", "conv+add", "elementwise", "add", "view", "quantise", "other"]


@dataclass(frozen=True, slots=True)
class Step:
    """One operator as memory sees it. `inputs` are activations only; `over`: inputs the output may be written over.
    channel: of a depthwise convolution, the bytes of one channel of its input; 0 of everything else."""

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


_ROLES: dict[str, Role] = {  # of kinds, and of what ONNX has beside them; all else is "other"
    "conv": "conv",
    "add": "add",
    **dict.fromkeys(("relu", "hardsigmoid", "sigmoid", "swish", "norm", "mul", "Tanh", "LeakyRelu"), "elementwise"),
    **dict.fromkeys(("flatten", "reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout"), "view"),
    "QuantizeLinear": "quantise",
}
_IN_PLACE = ("elementwise", "add", "view")


def activations(network: Network) -> Activations:
    """What memory sees of a network."""

    def step(node: Node) -> Step:
        role = _ROLES.get(node.kind, "other")
        alone = role == "conv" and node.work is not None and node.work.layer == "depthwise"
        channel = network.sizes[node.inputs[0]] // node.groups if alone else 0
        return Step(role, node.inputs, node.outputs, node.inputs if role in _IN_PLACE else (), channel)

    return Activations(network.sizes, tuple(map(step, network.nodes)), network.inputs, network.outputs)


def of_graph(graph: Graph, number_bytes: int = FLOAT_BYTES) -> Activations:
    """Of a `Graph`, with numbers of so many bytes."""
    return activations(from_graph(graph, number_bytes))


def of_onnx(model: from_onnx.Model, number_bytes: int = FLOAT_BYTES) -> Activations:
    """Of an ONNX model; free dimensions count as 1.   number_bytes: of a float32, for a network that will be converted.

    Errors: BadInput for what is no ONNX model, and for a tensor whose shape cannot be inferred.
    """
    return activations(from_onnx.read(model, number_bytes))


def peak_bytes(
    sizes: Mapping[Hashable, int],
    steps: Sequence[Step],
    inputs: Sequence[Hashable],
    outputs: Sequence[Hashable],
) -> int:
    """The most bytes alive at once. `sizes`: bytes by tensor; `steps` in running order.

    An output takes over the buffer of a tensor in `over` when that tensor has the same size, is not an input of the
    network, and this step is the only one that reads it last (for a fused add: its last reader).
    Checked against: a brute-force count, and ONNX Runtime's allocator (tests/ir/test_liveness.py).
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


def graph_peak_bytes(graph: Graph, *, adds: bool = True, number_bytes: int = FLOAT_BYTES) -> int:
    """Peak activation bytes of a `Graph` (convention at the top of this file).

    adds: whether convolutions swallow adds; false for the kernels of microcontrollers.   number_bytes: of a number.
    """
    seen = of_graph(graph, number_bytes)
    return peak_bytes(seen.sizes, fused(seen.steps, seen.outputs, adds), seen.inputs, seen.outputs)


def onnx_peak_bytes(model: from_onnx.Model) -> int:
    """Peak activation bytes of an ONNX model (convention at the top of this file); free dimensions count as 1.

    Errors: BadInput for what is no ONNX model, and for a tensor whose shape cannot be inferred.
    """
    seen = of_onnx(model)
    return peak_bytes(seen.sizes, fused(seen.steps, seen.outputs), seen.inputs, seen.outputs)


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
