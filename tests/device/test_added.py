"""Added devices on disk."""

from pathlib import Path

import numpy as np
import pytest

from edgewright.core.errors import BadInput
from edgewright.device.few.added import AddedDevice, added_devices, load_device, save_device
from edgewright.device.few.transfer import fit

MODEL = fit(range(6), [1.0, 2.0, 3.0, 4.0, 5.0, 6.5], np.arange(9.0)[:, None])


def test_a_device_comes_back_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_DEVICES", str(tmp_path / "devices"))
    assert added_devices() == ()
    device = AddedDevice(name="pi-4.b", space="nb201", model=MODEL)
    assert save_device(device) == tmp_path / "devices" / "pi-4.b.json"
    assert added_devices() == ("pi-4.b",)
    assert load_device("pi-4.b") == device
    assert load_device("pi-4.b").model.predict() == pytest.approx(np.arange(9) + 1, rel=0.15)


def test_names_that_are_no_names_and_devices_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_DEVICES", str(tmp_path))
    with pytest.raises(BadInput, match="no device 'pi' was added; added are: none"):
        load_device("pi")
    for name in ("", "../pi", "a/b", ".hidden"):
        with pytest.raises(BadInput, match="use letters, digits"):
            save_device(AddedDevice(name=name, space="nb201", model=MODEL))
    (tmp_path / "pi.json").write_text("{}")
    with pytest.raises(BadInput, match=r"pi.json: 'name'"):
        load_device("pi")
