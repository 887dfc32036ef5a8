"""A network's activations in one arena: lifetimes by a runtime's rules, then a place for each.

A tensor is alive from the step that makes it to the last that reads it; inputs from the start, outputs to the end. What
a step writes over one of its inputs shares that input's buffer. `RULES` says what is known of each runtime:

    plan          what is needed: activations and adds fused into convolutions, the rest in place where it can be
    onnxruntime   the same; inputs and outputs are the caller's; an input that is quantised is then turned to channels
                  last; placed as the network runs, in multiples of 256 bytes
    litert        adds on their own, inputs kept to the end; greedy by size, in multiples of 64 bytes
    executorch    without a delegate: nothing fused, nothing in place; greedy, in multiples of 16 bytes
    mcu           activations fused, adds on their own and in place
    tinyengine    the same, and depthwise convolutions over their own input, with one channel beside it

Where ONNX Runtime departs from these rules (float32 channels that are no multiple of 16, squeeze-excite, cells whose
branches it reorders), its arena was up to a fifth larger or a quarter smaller than foretold.

Depthwise in place (MCUNet): an output channel reads one input channel only, so it is made in a buffer of one channel
and then takes that channel's room; the output is no larger than the input.

Source: Pisarchyk and Lee, MLSys 2020, arXiv:2001.03288 (arenas); Lin et al., "MCUNet", NeurIPS 2020, arXiv:2007.10319
(depthwise in place). Checked against: lifetimes by hand, liveness (`ir.liveness`), ONNX Runtime's arena
(tests/device/test_memory_plan.py); LiteRT's and ExecuTorch's (benchmarks/memory_plan.py).
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import onnx

from edgewright.device.board.arena import Arena, Buffer, Order, place
from edgewright.ir.graph import Graph
from edgewright.ir.liveness import Activations, Step, fused, of_graph, of_onnx
from edgewright.ir.network import FLOAT_BYTES


@dataclass(frozen=True)
class Rules:
    """fuse: what a convolution takes in.   in_place: whether operators write over what they read last.
    depthwise_in_place: whether depthwise convolutions do.   inputs: of the network: "freed" after their last reader,
    "kept" to the end, or "outside" of the arena.   outputs_outside: of the arena.   turned: a quantised input is copied
    once more.   align: every size and offset is a multiple of it.   order: of placing."""

    fuse: Literal["all", "activations", "nothing"] = "all"
    in_place: bool = True
    depthwise_in_place: bool = False
    inputs: Literal["freed", "kept", "outside"] = "freed"
    outputs_outside: bool = False
    turned: bool = False
    align: int = 1
    order: Order = "best"


RULES: Mapping[str, Rules] = {
    "plan": Rules(),
    "onnxruntime": Rules(inputs="outside", outputs_outside=True, turned=True, align=256, order="execution"),
    "litert": Rules("activations", inputs="kept", align=64, order="size"),
    "executorch": Rules("nothing", in_place=False, align=16, order="size"),
    "mcu": Rules("activations"),
    "tinyengine": Rules("activations", depthwise_in_place=True),
}


def plan_memory(
    network: Graph | bytes | Path | str | onnx.ModelProto | Activations,
    rules: Rules = RULES["plan"],
    *,
    number_bytes: int = FLOAT_BYTES,
) -> Arena:
    """The arena of a network, a `Graph` or an ONNX model, batch 1.

    Args:
        rules: one of `RULES`, or your own.
        number_bytes: of a number of a `Graph`, or of a float32 in the model: 1 for a network that will be int8.

    Errors: BadInput for what is no ONNX model, and for a tensor whose shape cannot be inferred.
    """
    if isinstance(network, Graph):
        network = of_graph(network, number_bytes)
    elif not isinstance(network, Activations):
        network = of_onnx(network, number_bytes)
    return place(buffers(network, rules), order=rules.order, align=rules.align)


def buffers(network: Activations, rules: Rules = RULES["plan"]) -> tuple[Buffer, ...]:
    """Every buffer of the network, in the order in which they are first needed, named for the tensor it is made for."""
    steps = list(network.steps)
    if rules.turned:
        network, steps = _turned(network, steps)
    if rules.fuse != "nothing":
        steps = fused(steps, network.outputs, adds=rules.fuse == "all")
    return _Lifetimes(network, steps, rules).found()


def _turned(network: Activations, steps: list[Step]) -> tuple[Activations, list[Step]]:
    """With a copy of what each input is quantised to, which its readers read."""
    first = {step.outputs[0]: step for step in steps if step.role == "quantise" and step.inputs[0] in network.inputs}
    copies: dict[Hashable, Hashable] = {name: (name, "turned") for name in first}
    sizes = dict(network.sizes) | {copy: network.sizes[name] for name, copy in copies.items()}
    found = []
    for step in steps:
        found.append(
            replace(
                step,
                inputs=tuple(copies.get(name, name) for name in step.inputs),
                over=tuple(copies.get(name, name) for name in step.over),
            )
        )
        if step.outputs[0] in copies:
            found.append(Step("other", step.outputs, (copies[step.outputs[0]],)))
    return replace(network, sizes=sizes), found


class _Lifetimes:
    """Walks the steps once. rooms: by tensor, the tensor whose buffer it lies in."""

    def __init__(self, network: Activations, steps: list[Step], rules: Rules) -> None:
        self.network, self.steps, self.rules = network, steps, rules
        end = len(steps) - 1 if steps else 0
        self.last = {name: index for index, step in enumerate(steps) for name in step.inputs}
        self.last |= dict.fromkeys(network.outputs, end)
        if rules.inputs == "kept":
            self.last |= dict.fromkeys(network.inputs, end)
        self.rooms: dict[Hashable, Hashable] = {}
        self.buffers: dict[Hashable, Buffer] = {}

    def found(self) -> tuple[Buffer, ...]:
        for name in dict.fromkeys(self.network.inputs):
            self._open(name, 0)
        for index, step in enumerate(self.steps):
            self._make(index, step)
        outside = {*self.network.inputs} if self.rules.inputs == "outside" else set()
        if self.rules.outputs_outside:
            outside |= {self.rooms[name] for name in self.network.outputs}
        return tuple(buffer for name, buffer in self.buffers.items() if name not in outside)

    def _open(self, name: Hashable, index: int) -> None:
        self.rooms[name] = name
        self.buffers[name] = Buffer(name, self.network.sizes[name], index, self.last.get(name, index))

    def _make(self, index: int, step: Step) -> None:
        over = step.over if self.rules.in_place or step.role == "view" else ()
        dying = [name for name in over if self.last[name] == index and name not in self.network.inputs]
        for name in step.outputs:
            size = self.network.sizes[name]
            taken = next((n for n in dying if self._fits(self.rooms[n], n, size)), None)
            if taken is not None:
                dying.remove(taken)
                self._take_over(name, taken, index)
            elif self._depthwise(index, step, size):
                self._take_over(name, step.inputs[0], index)
                self.buffers[name, "channel"] = Buffer((name, "channel"), step.channel, index, index)
            else:
                self._open(name, index)

    def _fits(self, room: Hashable, name: Hashable, size: int) -> bool:
        return self.network.sizes[name] == size <= self.buffers[room].bytes

    def _depthwise(self, index: int, step: Step, size: int) -> bool:
        return (
            self.rules.depthwise_in_place
            and step.channel > 0
            and self.last[step.inputs[0]] == index
            and size <= self.network.sizes[step.inputs[0]]
        )

    def _take_over(self, name: Hashable, taken: Hashable, index: int) -> None:
        room = self.rooms[name] = self.rooms[taken]
        last = max(self.buffers[room].last, self.last.get(name, index))
        self.buffers[room] = replace(self.buffers[room], last=last)
