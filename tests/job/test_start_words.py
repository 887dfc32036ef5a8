"""What is said of starts before a run is begun, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cli.commands import edgewright
from edgewright.core.run import RunFolder
from edgewright.start.resolve import find_starts
from edgewright.start.sources import run as runs


def dry(tmp_path: Path, channels: int, *options: object):
    rng, y = np.random.default_rng(0), np.arange(60) % 3
    x = rng.integers(0, 256, (60, 9, 12, channels), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", x_train=x[:45], y_train=y[:45], x_test=x[45:], y_test=y[45:])
    return edgewright("design", "--task", f"arrays:{tmp_path / 'data.npz'}", "--dry-run", *options)


def test_a_ceiling_below_the_least_says_which_and_how_much(digits_run: RunFolder, tmp_path: Path) -> None:
    told = dry(tmp_path, 1, "--macs", "100", "--params", "1e6", "--start", digits_run.path)
    assert told.exit_code == 3
    assert "the macs ceiling of 100 MACs cannot be met: the least this space can do is about" in told.stderr


def test_the_least_is_that_of_all_who_compete(digits_run: RunFolder, tmp_path: Path) -> None:
    """A start that cannot be made so small does not stop networks from scratch, and is said; nor the other way."""
    (start,) = find_starts(str(digits_run.path))
    found = {}
    for macs in (4e3, 8e3, 1.6e4, 3.2e4, 6.4e4, 1e6):
        told = dry(tmp_path, 1, "--macs", macs, "--start", digits_run.path)
        found[macs] = (told.exit_code, f"{start.source}: cannot be made to fit" in told.stderr)
    assert found[1e6] == (0, False)
    assert (0, True) in found.values() or (3, True) not in found.values()


def test_a_licence_that_forbids_commercial_use_is_said_before_the_run(
    digits_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = dry(tmp_path, 1, "--macs", "1e6", "--start", digits_run.path)
    assert "licence" not in told.stderr
    found = runs.find(digits_run.path).model_copy(update={"licence": "cc-by-nc-4.0"})
    monkeypatch.setattr(runs, "find", lambda _: found)
    told = dry(tmp_path, 1, "--macs", "1e6", "--start", digits_run.path)
    assert told.exit_code == 0, told.stderr
    assert "digits: its licence, cc-by-nc-4.0, forbids commercial use, and so of what is made of it" in told.stderr


def test_other_channels_are_said_or_refused(digits_run: RunFolder, tmp_path: Path) -> None:
    told = dry(tmp_path, 3, "--macs", "1e6", "--start", digits_run.path)
    assert told.exit_code == 0, told.stderr
    assert "learned from grey maps, and these are colour: it is given the mean of the colours" in told.stderr
    told = dry(tmp_path, 4, "--macs", "1e6", "--start", digits_run.path)
    assert told.exit_code == 2
    assert "cannot be started from: the start takes maps of 1 channels, and the task's have 4" in told.stderr


def test_of_several_starts_one_that_cannot_be_used_is_left_out(digits_run: RunFolder, tmp_path: Path) -> None:
    for name in ("good", "bad"):
        shutil.copytree(digits_run.path, tmp_path / "zoo" / name)
    bad = tmp_path / "zoo" / "bad" / "architecture.json"
    bad.write_text(bad.read_text().replace('"space"', '"spice"'))
    result = tmp_path / "zoo" / "bad" / "result.json"
    changed = json.loads(result.read_text())
    changed["files"]["model.safetensors"] = changed["files"]["model.onnx"]  # another digest
    shutil.copy(tmp_path / "zoo" / "bad" / "model.onnx", tmp_path / "zoo" / "bad" / "model.safetensors")
    result.write_text(json.dumps(changed))
    told = dry(tmp_path, 1, "--macs", "1e6", "--start", tmp_path / "zoo")
    assert told.exit_code == 0, told.stderr
    assert "left out: " in told.stderr and "bad" in told.stderr
    assert dry(tmp_path, 1, "--macs", "1e6", "--start", tmp_path / "zoo" / "bad").exit_code == 2


def test_two_inputs(digits_run: RunFolder, tmp_path: Path) -> None:
    rng, y = np.random.default_rng(0), np.arange(60) % 3
    x, more = rng.integers(0, 256, (60, 9, 12, 1), dtype=np.uint8), rng.normal(size=(60, 4)).astype(np.float32)
    parts = {"train": slice(45), "test": slice(45, None)}
    arrays = {}
    for part, cut in parts.items():
        arrays |= {f"x_{part}.image": x[cut], f"x_{part}.meta": more[cut], f"y_{part}": y[cut]}
    np.savez(tmp_path / "two.npz", **arrays)
    asked = ("--task", f"arrays:{tmp_path / 'two.npz'}", "--macs", "1e6", "--start", digits_run.path, "--dry-run")
    told = edgewright("design", *asked)
    assert told.exit_code == 2
    assert "takes one map, and this task has" in told.stderr


@pytest.mark.parametrize("start", ["nowhere", ","])
def test_no_start(tmp_path: Path, start: str) -> None:
    told = dry(tmp_path, 1, "--macs", "1e6", "--start", start)
    assert told.exit_code == 2
    assert len([line for line in told.stderr.splitlines() if line.startswith("edgewright: ")]) == 1
