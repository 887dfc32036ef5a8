"""Devices by name, for text that comes from people and plans."""

from pathlib import Path

from edgewright.core.errors import BadInput
from edgewright.device.base import Device
from edgewright.device.board.board import Board
from edgewright.device.board.target import Target, read_target, targets
from edgewright.device.here.cpu import Cpu


def devices() -> dict[str, type[Device] | Target]:
    """Every device by name: what is here, then the boards that files describe."""
    return {Cpu.name: Cpu, **targets()}


def make_device(name: str, threads: int = 1) -> Device:
    """The device called `name`, or described in the file `name`.yaml; an unknown name lists the choices."""
    if name.endswith((".yaml", ".yml")):
        return Board(read_target(Path(name)), threads)
    known = devices()
    if name not in known:
        raise BadInput(f"unknown device '{name}'; choose from {', '.join(known)}, or name a target's YAML file")
    found = known[name]
    return Board(found, threads) if isinstance(found, Target) else found(threads)  # type: ignore[call-arg]
