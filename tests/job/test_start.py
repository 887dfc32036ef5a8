"""A finished run as the start of another design, from end to end: on fewer digits than it learned."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from tests.cli.commands import edgewright as run

import edgewright
from edgewright.core.cost import Budget
from edgewright.core.run import RunFolder
from edgewright.core.study import Study
from edgewright.core.tensors import sides
from edgewright.export.load import load_model
from edgewright.start.resolve import find_starts, open_start
from edgewright.task.base import TaskSpec, normalise

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
def zoo(digits_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one start."""
    folder = tmp_path_factory.mktemp("zoo")
    shutil.copytree(digits_run.path, folder / "digits")
    return folder


def asked(threes: Path, zoo: Path) -> tuple[object, ...]:
    return ("--task", f"arrays:{threes}", "--macs", "2e6", "--start", zoo, *COUNTS)


@pytest.fixture(scope="module")
def started(threes: Path, zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """The run; while it is looked at, what it was started from is elsewhere."""
    out = tmp_path_factory.mktemp("runs") / "started"
    found = run("design", *asked(threes, zoo), "--out", out, "--json", "--quiet")
    assert found.exit_code == 0, found.stderr
    (zoo / "digits").rename(zoo.parent / "elsewhere")
    open_start.cache_clear()
    yield RunFolder(out)
    (zoo.parent / "elsewhere").rename(zoo / "digits")


def test_the_contest_is_in_the_result_and_the_plan_names_what_competed(
    started: RunFolder, digits_run: RunFolder, zoo: Path
) -> None:
    result, source = json.loads(started.result.read_text()), str(zoo / "digits")
    assert started.read_plan().start == source
    assert {one["start"] for one in result["contest"]} == {None, source}
    assert all(one["val"] is not None for one in result["contest"])
    start = result["start"]
    assert (start["source"], start["licence"]) == (source, "")
    assert start["sha256"] == digits_run.read_result().files["model.safetensors"]
    blocks = [block["name"] for block in result["blocks"]]
    assert [name for name, kept in start["kept"]["parts"].items() if kept] == [
        name for name in blocks if name not in ("rescale", "head")
    ]


def test_what_was_learned_is_worth_something(started: RunFolder) -> None:
    result = started.read_result()
    best = {
        fresh: max(one.val or 0.0 for one in result.contest if (one.start is None) == fresh) for fresh in (True, False)
    }
    assert best[False] >= best[True]  # two epochs of 360 images are little from scratch
    assert result.start is not None


def test_the_run_stands_when_its_start_is_gone(started: RunFolder, threes: Path) -> None:
    model, data = load_model(started.path), np.load(threes)
    spec = TaskSpec.parse(started.read_result().task, "")
    x = torch.from_numpy(data["x_test"])[:, None].float()
    answers = model(normalise(x, spec, sides(started.read_result().architecture["resolution"]))).argmax(1)
    told = json.loads(run("predict", started.path, f"arrays:{threes}", "--json").stdout)
    assert [int(one["class"]) for one in told] == answers.tolist()


@pytest.mark.parametrize("command", ["compress", "adapt"])
def test_what_comes_of_the_run_stands_alone_too(started: RunFolder, threes: Path, tmp_path: Path, command: str) -> None:
    fewer = f"{0.6 * started.read_result().costs['macs'].value:.0f}"
    options = {
        "compress": ("--macs", fewer, "--max-drop", "60", "--minutes", "0.3"),
        "adapt": ("--task", f"arrays:{threes}", "--minutes", "0.1"),
    }
    done = run(command, started.path, *options[command], "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    made = RunFolder(tmp_path / "out")
    assert made.read_result().start == started.read_result().start
    found = load_model(made.path)
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in load_file(made.model).items())
    assert run("bench", made.path).exit_code == 0
    (again,) = find_starts(str(made.path))
    assert open_start(again).make().state_dict().keys() == found.state_dict().keys()


def test_its_report_and_its_card_say_what_it_was_made_of(started: RunFolder, tmp_path: Path) -> None:
    page, start = started.report.read_text(), started.read_result().start
    assert start is not None
    assert "Who won" in page and "digits won" in page and "after their brief trainings" in page
    assert page.count('class="frame') == len(start["kept"]["parts"])
    shipped = run("export", started.path, "--choose", "--runtime", "onnxruntime", "--out", tmp_path / "out")
    assert shipped.exit_code == 0, shipped.stderr
    (card,) = (tmp_path / "out").rglob("MODEL_CARD.md")
    told = card.read_text()
    assert "Made from the network of an earlier run, which learned digits. Licence of these weights: not known" in told
    assert start["sha256"] in told


def test_a_finished_run_gives_its_result_without_its_start(started: RunFolder) -> None:
    done = run("design", "--resume", started.path, "--json")
    assert json.loads(done.stdout)["key"] == started.read_result().key


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(started: RunFolder, threes: Path, zoo: Path, tmp_path: Path) -> None:
    (zoo.parent / "elsewhere").rename(zoo / "digits")
    command = [sys.executable, "-m", "edgewright", "design", *map(str, asked(threes, zoo)), "--out", tmp_path / "out"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as running:
        while running.poll() is None and _finalists(tmp_path / "out") < 1:
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
    shutil.copytree(zoo / "digits", zoo / "another")  # which did not compete when the run was begun
    done = run("design", "--resume", tmp_path / "out")
    shutil.rmtree(zoo / "another")
    (zoo / "digits").rename(zoo.parent / "elsewhere")
    assert done.exit_code == 0, done.stderr
    resumed, whole = RunFolder(tmp_path / "out").read_result(), started.read_result()
    assert (resumed.key, resumed.metrics, resumed.contest) == (whole.key, whole.metrics, whole.contest)


def _finalists(out: Path) -> int:
    if not (out / "study.db").exists():
        return 0
    with Study(out / "study.db") as study:
        return len(study.notes("rung-0:"))


@pytest.mark.slow
def test_masks_are_learned_from_a_start_asked_for_in_python(digits_run: RunFolder, tmp_path: Path) -> None:
    """A network that told digits apart goes on to outline discs: another kind of task, another size, another head."""
    rng, (rows, columns) = np.random.default_rng(0), np.mgrid[:24, :32]
    for name in ("images", "masks"):
        (tmp_path / "discs" / name).mkdir(parents=True)
    for number in range(40):
        y, x, radius = rng.integers(6, 18), rng.integers(6, 26), rng.integers(3, 7)
        mask = ((rows - y) ** 2 + (columns - x) ** 2 <= radius**2).astype(np.uint8)
        pixels = (rng.normal(60, 20, mask.shape) + 110 * mask).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "discs" / "images" / f"{number:02}.png")
        Image.fromarray(mask).save(tmp_path / "discs" / "masks" / f"{number:02}.png")
    found = edgewright.design(
        task=f"segment:{tmp_path / 'discs'}", budget=Budget(macs=4e6), start=str(digits_run.path), candidates=4,
        finalists=2, epochs=2, workers=1, out=tmp_path / "run",
    )  # fmt: skip
    assert {one.start for one in found.contest} == {None, str(digits_run.path)}
    assert found.metrics.decides == "mean_iou"
    told = edgewright.predict(tmp_path / "run", [tmp_path / "discs" / "images" / "00.png"], out=tmp_path / "masks")
    assert Path(told[0]["mask"]).is_file()
