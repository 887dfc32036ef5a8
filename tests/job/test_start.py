"""A finished run as the start of another design, from end to end: on fewer digits than it learned."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tests.cli.commands import edgewright

from edgewright.core.run import RunFolder
from edgewright.export.load import load_model

COUNTS = ("--candidates", "6", "--epochs", "2", "--finalists", "3", "--workers", "1")


@pytest.fixture(scope="module")
def threes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Threes, fives and eights of the digits, 8 px, which the start tells from seven others."""
    digits = load_digits()
    kept = np.isin(digits.target, (3, 5, 8))
    x, y = (digits.images[kept] * 15).astype(np.uint8), np.searchsorted((3, 5, 8), digits.target[kept])
    file = tmp_path_factory.mktemp("data") / "threes.npz"
    np.savez(file, x_train=x[:360], y_train=y[:360], x_test=x[360:], y_test=y[360:])
    return file


@pytest.fixture(scope="module")
def started(digits_run: RunFolder, threes: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("runs") / "started"
    asked = ("--task", f"arrays:{threes}", "--macs", "2e6", "--start", digits_run.path, *COUNTS)
    found = edgewright("design", *asked, "--out", out, "--json", "--quiet")
    assert found.exit_code == 0, found.stderr
    return RunFolder(out)


def test_the_contest_is_in_the_result(started: RunFolder, digits_run: RunFolder) -> None:
    result = json.loads(started.result.read_text())
    sources = {one["start"] for one in result["contest"]}
    assert sources == {None, str(digits_run.path)}
    assert all(one["val"] is not None for one in result["contest"])
    if result["start"] is not None:
        assert result["start"]["source"] == str(digits_run.path)
        assert result["start"]["sha256"] == digits_run.read_result().files["model.safetensors"]
        assert result["start"]["kept"]["parts"]


def test_what_was_learned_is_worth_something(started: RunFolder) -> None:
    result = started.read_result()
    best = {start is None: 0.0 for start in (None, "")}
    for one in result.contest:
        best[one.start is None] = max(best[one.start is None], one.val or 0.0)
    assert best[False] >= best[True]  # two epochs of 360 images are little from scratch
    assert result.start is not None


def test_the_run_is_one_like_any_other(started: RunFolder, threes: Path, tmp_path: Path) -> None:
    assert sum(p.numel() for p in load_model(started.path).parameters()) > 0
    fewer = f"{0.6 * started.read_result().costs['macs'].value:.0f}"
    for command in (
        ("predict", started.path, f"arrays:{threes}", "--json"),
        ("compress", started.path, "--macs", fewer, "--max-drop", "30", "--minutes", "0.3", "--out", tmp_path / "c"),
        ("adapt", started.path, "--task", f"arrays:{threes}", "--minutes", "0.1", "--out", tmp_path / "a"),
        ("design", "--resume", started.path),
    ):
        found = edgewright(*command)
        assert found.exit_code in (0, 3), (command, found.stderr[-400:])
