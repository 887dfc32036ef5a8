"""Runs of version 0.1 (schema 1) are read by every command: a designed, an adapted and a compressed one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import edgewright
from edgewright.core.run import RunFolder

NAMES = ("digits", "digits-adapted", "digits-small")


@pytest.fixture(scope="module")
def old(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies, as commands hold the folder that they read."""
    return Path(shutil.copytree(shared_data / "old_runs", tmp_path_factory.mktemp("old") / "runs"))


@pytest.mark.parametrize("name", NAMES)
def test_they_are_read(name: str, old: Path) -> None:
    folder = RunFolder(old / name)
    written = json.loads(folder.result.read_text())
    result = folder.read_result()
    assert written["schema"] == 1
    assert result.metrics.test["accuracy"] == written["metrics"]["test_accuracy"]
    assert result.costs["latency"].value == written["costs"]["latency"]["value"]
    model = edgewright.load_model(folder.path)
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, len(written["classes"]))


@pytest.mark.parametrize("name", NAMES)
def test_predict_and_bench(name: str, old: Path) -> None:
    (told,) = edgewright.predict(old / name, [old / "digit.png"])
    assert told["file"].endswith("digit.png") and 0 < told["probability"] <= 1
    report = edgewright.bench(old / name, runs=200)
    assert report.costs["macs"] == RunFolder(old / name).read_result().costs["macs"]


def test_a_finished_adaptation_gives_its_result(old: Path) -> None:
    from edgewright.job.adapt.run import resume
    from edgewright.report.parts.adaptation import write_adaptation

    written, result = _gone_on_with(old / "digits-adapted", "adapt.json", resume)
    assert {"before": result.figure.before, "after": result.figure.after} == written["accuracy"]
    assert (result.figure.name, result.val.value) == ("accuracy", written["val_accuracy"])
    assert [look.val.value for look in result.tuned.looks] == [
        look["val_accuracy"] for look in written["tuned"]["history"]
    ]
    assert "inv, adapted from digits" in write_adaptation(old / "adapted.html", result).read_text()


def test_a_finished_compression_gives_its_result(old: Path) -> None:
    from edgewright.job.compress.run import resume
    from edgewright.report.parts.compression import write_compression

    written, result = _gone_on_with(old / "digits-small", "compressed.json", resume)
    assert (result.before.test, result.after.val) == (
        written["before"]["test_accuracy"], written["after"]["val_accuracy"],
    )  # fmt: skip
    assert [trial.figure for trial in result.trials] == [trial["accuracy"] for trial in written["trials"]]
    assert "digits, compressed from digits" in write_compression(old / "small.html", result).read_text()


def _gone_on_with(folder: Path, file: str, resume: Callable[[Path], Any]) -> tuple[dict[str, Any], Any]:
    """What was written, and what --resume gives: the samples were put away without their reports."""
    (folder / "report.html").write_text("")
    written = json.loads((folder / file).read_text())
    result = resume(folder)
    assert (written["schema"], result.schema_version, result.seconds) == (1, 2, written["seconds"])
    assert result.export.same == 100 * written["export"]["top1_agreement"]
    return written, result


@pytest.mark.parametrize("name", ["digits", "digits-small"])  # the third one's data are not there
def test_export(name: str, old: Path, tmp_path: Path) -> None:
    from edgewright.export.ship.ship import ship

    shipped = ship(old / name, runtimes=["onnxruntime"], kinds=["fp32"], max_drop=5.0, out=tmp_path / "out")
    assert shipped.choice.candidates[0].kind == "fp32"


def test_adapt_and_compress(old: Path, new_tasks: dict[str, str], tmp_path: Path) -> None:
    found = edgewright.adapt(old / "digits", task=new_tasks["inverted"], out=tmp_path / "mine", epochs=1)
    assert found.figure.after > 0 and RunFolder(tmp_path / "mine").read_result().schema_version == 2
    macs = 0.8 * RunFolder(old / "digits").read_result().costs["macs"].value
    small = edgewright.compress_run(
        old / "digits", out=tmp_path / "small", macs=macs, max_drop=60.0, epochs=1, steps=("prune",)
    )
    assert small.after.costs["macs"].value <= macs
