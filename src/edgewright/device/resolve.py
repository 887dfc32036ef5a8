"""Devices by name, for text that comes from people and plans."""

from edgewright.core.errors import BadInput
from edgewright.device.base import Device
from edgewright.device.cpu import Cpu


def devices() -> dict[str, type[Device]]:
    """Every device by name."""
    return {device.name: device for device in (Cpu,)}


def make_device(name: str, threads: int = 1) -> Device:
    """The device called `name`; an unknown name lists the choices."""
    known = devices()
    if name not in known:
        raise BadInput(f"unknown device '{name}'; choose from {', '.join(known)}")
    return known[name](threads)  # type: ignore[call-arg]
