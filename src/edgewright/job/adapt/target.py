"""The memory that a target leaves a training step: its RAM, less what running the network takes there."""

import tempfile
from pathlib import Path

from edgewright.core.errors import BadInput, BudgetInfeasible
from edgewright.core.progress import say
from edgewright.device.base import Device
from edgewright.device.resolve import make_device
from edgewright.export.onnx import export_onnx
from edgewright.ir.network import FLOAT_BYTES
from edgewright.job.adapt.ground import AdaptGround


def check_device(name: str | None) -> None:
    """Errors: BadInput for an unknown device, and for one whose RAM nobody has said."""
    if name is not None:
        _with_ram(name)


def _with_ram(name: str) -> Device:
    device = make_device(name)
    if "peak_memory" not in device.ceilings():
        raise BadInput(f"--device {name}: its RAM is not known; give --memory-mb, or a board whose file has ram_kb")
    return device


def within_target(ground: AdaptGround) -> AdaptGround:
    """With the target's room as the ceiling of a step's memory, where a target was named; else as it is.

        room = RAM - peak activations in float32 - weights in float32, where the target has no flash to hold them

    Errors: BadInput for a ceiling above the room; BudgetInfeasible where running the network leaves none.
    """
    asked = ground.plan
    if asked.device is None:
        return ground
    device = _with_ram(asked.device)
    limits = device.ceilings()
    ram = int(limits["peak_memory"])
    with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(ground.model, tuple(ground.example.shape[1:]), path)
        running = device.peak_bytes(path, "fp32")
    numbers = sum(parameter.numel() for parameter in ground.model.parameters())
    weights = 0 if "size" in limits else FLOAT_BYTES * numbers
    room = ram - running - weights
    held = f" and {_kb(weights)} its weights" if weights else ""
    told = f"{device.name} has {ram / 1024:,.0f} KB of RAM, of which running this network takes {_kb(running)}{held}"
    if room <= 0:
        raise BudgetInfeasible(f"{told} in float32: nothing is left to train in; take a smaller network or resolution")
    if asked.memory_bytes is not None and asked.memory_bytes > room:
        raise BadInput(
            f"{told}: {_kb(room)} are left for a training step, and {_kb(asked.memory_bytes)} were asked for"
        )
    if asked.memory_bytes is None:
        say(f"{told} in float32: a training step may take the other {_kb(room)}")
        ground.plan = asked.model_copy(update={"memory_bytes": room})
    return ground


def _kb(count: int) -> str:
    return f"{count / 1024:,.1f} KB"
