import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from edgewright.core.data import read_yaml
from edgewright.core.errors import BadInput, EdgewrightError
from edgewright.core.files import write_text, written_whole
from edgewright.core.run import RunFolder


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), written_whole(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_a_file_is_for_whom_the_umask_lets(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "text")
        with written_whole(tmp_path / "b") as part:
            save_file({"w": torch.zeros(3)}, part)
        with RunFolder(tmp_path / "run").locked():
            pass
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == dict.fromkeys(("a", "b", ".lock"), mode)


def test_a_full_disk_is_one_sentence(tmp_path):
    with pytest.raises(EdgewrightError, match="disk is full"), written_whole(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_yaml_builds_no_objects(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("a: !!python/object/apply:os.system ['touch HACKED']\n")
    with pytest.raises(BadInput, match="not valid YAML"):
        read_yaml(path)


HOLDER = """
import sys, time
from pathlib import Path
from edgewright.core.run import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_folder_is_held_by_one_process_and_freed_by_its_death(tmp_path):
    run = RunFolder(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(run.path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(BadInput, match="another process"), run.locked():
            pass
        holder.kill()
    with run.locked():
        pass


def test_a_full_disk_seen_by_safetensors_is_one_sentence(tmp_path):
    with pytest.raises(EdgewrightError, match="disk is full"), written_whole(tmp_path / "a"):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_disk_too_full_to_begin_is_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.open", full)
    with pytest.raises(EdgewrightError, match="disk is full"):
        write_text(tmp_path / "a", "")


def test_what_a_killed_process_left_half_written_is_swept(tmp_path):
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    litter = [tmp_path / ".model.onnx.ab12.part", run.checkpoints / ".data.safetensors.cd34.part"]
    for path in (*litter, run.plan):
        path.touch()
    run.sweep()
    assert not any(path.exists() for path in litter)
    assert run.plan.exists()


def test_a_write_that_fails_names_its_file(tmp_path):
    with (
        pytest.raises(EdgewrightError, match=r"a: cannot be written \(File too large\)"),
        written_whole(tmp_path / "a"),
    ):
        raise OSError(errno.EFBIG, "File too large")
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.open", refuse)  # root may write everywhere
    with pytest.raises(BadInput, match=r"run: cannot be written \(Read-only"), RunFolder(tmp_path / "run").locked():
        pass


def test_workers_elsewhere_find_the_checkpoints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert RunFolder(Path("runs/a")).checkpoints == tmp_path / "runs" / "a" / "checkpoints"
