"""Where things are kept, for users with a home, without one, and with one that cannot be written."""

import os
from pathlib import Path

import pytest

from edgewright.core import home
from edgewright.core.errors import BadInput
from edgewright.core.home import cache_folder, devices_folder, kept_devices, user_path
from edgewright.device.few.added import added_devices, load_device
from edgewright.device.resolve import make_device
from edgewright.task.load import load_task


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("EDGEWRIGHT_CACHE", "EDGEWRIGHT_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    home._cache_in.cache_clear()
    yield
    home._cache_in.cache_clear()


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user: no HOME, no entry in passwd."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)


def test_below_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "edgewright"
    assert devices_folder() == tmp_path / ".config" / "edgewright" / "devices"
    assert user_path("~/a") == tmp_path / "a"


def test_where_the_variables_say(monkeypatch, tmp_path, homeless):
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("EDGEWRIGHT_DEVICES", str(tmp_path / "d"))
    assert (cache_folder(), devices_folder()) == (tmp_path / "c", tmp_path / "d")


def test_without_a_home_tables_are_kept_for_a_while_and_one_line_says_so(homeless, tmp_path, capsys):
    folder = cache_folder()
    assert folder.parent == tmp_path and os.access(folder, os.W_OK)
    assert cache_folder() == folder
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(folder) in said and "EDGEWRIGHT_CACHE" in said


@pytest.mark.parametrize("where", ["file", "{}/file"])
def test_a_home_that_is_none(monkeypatch, tmp_path, where):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", where.format(tmp_path))
    folder = cache_folder()
    assert folder.parent == tmp_path and os.access(folder, os.W_OK)
    home._cache_in.cache_clear()
    assert cache_folder() == folder  # another process of this user finds the same tables


def test_a_name_that_somebody_else_holds_is_not_used(homeless, tmp_path):
    (tmp_path / "edgewright-54321").symlink_to(tmp_path / "theirs")
    assert cache_folder() != tmp_path / "edgewright-54321"
    assert not (tmp_path / "theirs").exists()


def test_without_a_home_there_are_no_devices_of_ones_own(homeless):
    assert kept_devices(".json") == [] and added_devices() == ()
    with pytest.raises(BadInput, match="EDGEWRIGHT_DEVICES"):
        devices_folder()
    with pytest.raises(BadInput, match="no device 'pi' was added"):
        load_device("pi")
    assert make_device("cpu").name == "cpu"


def test_a_path_in_the_home_of_nobody_is_one_sentence(homeless):
    for path in ("~/photos", "~nobody-of-this-name/photos"):
        with pytest.raises(BadInput, match="write the whole path"):
            load_task(f"images:{path}")
