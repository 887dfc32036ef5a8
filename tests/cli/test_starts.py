"""`edgewright starts`: what could be gone on from here."""

import json
import shutil
from pathlib import Path

import pytest

from cli.commands import edgewright
from edgewright.core.run import RunFolder


@pytest.fixture(autouse=True)
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def test_runs_here_and_in_runs_are_listed_once(
    digits_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(digits_run.path, tmp_path / "runs" / "digits")
    monkeypatch.chdir(tmp_path)
    found = json.loads(edgewright("starts", "--json").stdout)
    digest = digits_run.read_result().files["model.safetensors"]
    (row,) = found
    assert (row["name"], row["source"], row["licence"]) == ("digits", "runs/digits", "")
    assert (row["trained_on"], row["input"], row["sha256"]) == ("digits", "1x8x8", digest)
    assert row["size"] == digits_run.model.stat().st_size
    assert json.loads(edgewright("starts", "runs", "--json").stdout) == found
    text = edgewright("starts").stdout
    assert text.startswith("runs/digits\n")
    assert "1x8x8, trained on digits" in text


def test_nothing_here_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = edgewright("starts")
    assert shown.exit_code == 0
    assert "nothing to start from here: no finished run" in shown.stdout
    assert json.loads(edgewright("starts", "--json").stdout) == []
    wrong = edgewright("starts", "nowhere")
    assert wrong.exit_code == 2
    assert "nowhere: no such folder" in wrong.stderr
