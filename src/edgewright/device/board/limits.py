"""Does a network fit a target? Memory, flash, types and operators by what the target's file says; nothing is run."""

import math
from dataclasses import replace
from pathlib import Path

import onnx

from edgewright.device.board.arena import Arena
from edgewright.device.board.memory_plan import RULES, Rules, plan_memory
from edgewright.device.board.target import BYTES, Target, Type
from edgewright.ir.from_onnx import kinds, loaded, number_type, weight_bytes
from edgewright.ir.liveness import Activations, of_onnx

KERNELS = {"x-cube-ai": "mcu", "tflite-micro": "mcu"}  # runtimes whose adds are operators of their own
BIAS_BYTES = 4  # of an int8 network: its sums have 32 bits


def rules_for(target: Target) -> Rules:
    """How memory is counted there."""
    return RULES[KERNELS.get(target.runtime, "plan")]


def refusals(
    target: Target,
    model: bytes | Path | str | onnx.ModelProto,
    *,
    kind: Type | None = None,
    size_bytes: int | None = None,
) -> list[str]:
    """Why a target cannot run an ONNX model: a sentence for each reason, none where it fits.

    Args:
        kind: the type in which it will run, where the target's tool converts the file; None: the file's own.
        size_bytes: of the file that ships, where known; None: the weights, in that type.

    Errors: BadInput for what is no ONNX model, and for a tensor whose shape cannot be inferred.
    """
    model = loaded(model)
    runs = kind or number_type(model)
    found = [] if runs in target.types else [f"{target.name} computes in {', '.join(target.types)}, not in {runs}"]
    found += forbidden_nodes(target, model)
    size = flash_bytes(model, runs) if size_bytes is None else size_bytes
    if target.flash_kb is not None and size > 1024 * target.flash_kb:
        found.append(f"needs {_kb(size)} of flash, {target.name} has {_told(target.flash_kb)}")
    if target.ram_kb is not None:
        arena = arena_of(target, model, kind=runs)
        if arena.bytes > 1024 * target.ram_kb:
            need = f"needs {_kb(arena.bytes)} of RAM for activations (most at '{_name(arena)}')"
            found.append(f"{need}, {target.name} has {_told(target.ram_kb)}")
    return found


def _kb(count: int) -> str:
    """Rounded up: what is needed is never said to be less."""
    return f"{math.ceil(count / 102.4) / 10:,.1f} KB"


def _told(limit: float) -> str:
    return f"{limit:,.0f} KB" if limit == int(limit) else f"{math.floor(10 * limit) / 10:,.1f} KB"


def _name(arena: Arena) -> str:
    """The tensor that is made where the most bytes are alive."""
    made = [buffer for buffer in arena.buffers if buffer.first == arena.peak_step]
    return str(max(made, key=lambda buffer: buffer.bytes).name).removesuffix("_QuantizeLinear_Output")


def arena_of(target: Target, model: bytes | Path | str | onnx.ModelProto, *, kind: Type | None = None) -> Arena:
    """The arena of activations there; in int8, inputs are whole numbers too."""
    model = loaded(model)
    own, runs = number_type(model), kind or number_type(model)
    network = of_onnx(model, BYTES["fp32" if own == "int8" else runs])  # floats of an int8 file stay floats
    return plan_memory(_whole_inputs(network) if runs == "int8" else network, rules_for(target))


def _whole_inputs(network: Activations) -> Activations:
    """Without the rounding of inputs: what they are rounded to is what the network is given."""
    rounded = {
        step.inputs[0]: step.outputs[0]
        for step in network.steps
        if step.role == "quantise" and step.inputs[0] in network.inputs
    }
    steps = tuple(step for step in network.steps if step.outputs[0] not in rounded.values())
    inputs = tuple(rounded.get(name, name) for name in network.inputs)
    alone = not any(name in step.inputs for step in steps for name in rounded)
    return replace(network, steps=steps, inputs=inputs) if alone else network


def flash_bytes(model: onnx.ModelProto, kind: Type) -> int:
    """Bytes of the constants in `kind`, of an int8 file as they are; in int8, biases have 32 bits."""
    floats = BYTES["fp32" if number_type(model) == "int8" else kind]
    return weight_bytes(model, floats, BIAS_BYTES if floats == BYTES["int8"] else floats)


def forbidden_nodes(target: Target, model: onnx.ModelProto) -> list[str]:
    """A sentence for each node whose operator the target's file forbids."""
    return [
        f"{target.name} cannot run node {name}, a '{operator}': its file forbids {kind}"
        for name, operator, kind in kinds(model)
        if kind in target.forbidden
    ]
