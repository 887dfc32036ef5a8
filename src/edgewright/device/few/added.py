"""Devices that a user added from samples: one JSON file each, by name."""

import re
from pathlib import Path

from edgewright.core.data import Frozen, read_json
from edgewright.core.errors import BadInput
from edgewright.core.files import write_text
from edgewright.core.home import devices_folder, kept_devices
from edgewright.device.few.transfer import TransferModel


class AddedDevice(Frozen):
    """What `edgewright device add` keeps. `space`: the one whose networks `model` predicts."""

    name: str
    space: str
    model: TransferModel


def save_device(device: AddedDevice) -> Path:
    """Write it, in the place of an earlier one of this name; the file."""
    path = _path(device.name)
    write_text(path, device.to_json())
    return path


def load_device(name: str) -> AddedDevice:
    """The added device of that name; BadInput, with the names there are, where it was not added."""
    _check(name)
    if name not in added_devices():
        raise BadInput(f"no device '{name}' was added; added are: {', '.join(added_devices()) or 'none'}")
    path = _path(name)
    return AddedDevice.parse(read_json(path), str(path))


def added_devices() -> tuple[str, ...]:
    """Names of the devices that were added."""
    return tuple(path.stem for path in kept_devices(".json"))


def _path(name: str) -> Path:
    _check(name)
    return devices_folder() / f"{name}.json"


def _check(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise BadInput(f"device name '{name}': use letters, digits, dots, dashes and underscores only")
