"""The whole way, in real processes."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.commands import edgewright
from edgewright.core.run import RunFolder
from edgewright.core.study import Study
from edgewright.job.design.training import RANDOM

pytestmark = pytest.mark.slow

PLAN = ("--task", "digits", "--macs", "3e5", "--candidates", "24", "--finalists", "2", "--epochs", "2")


def process(*arguments: object, **options) -> subprocess.Popen:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "edgewright", *map(str, arguments)]
    return subprocess.Popen(command, text=True, **options)


def design(*arguments: object) -> str:
    """What it printed, of a process that came to its end."""
    with process("design", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        printed, errors = running.communicate()
    assert running.returncode == 0, errors
    return printed


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """A whole run of the main job on the digits, made once, by the command line in a process of its own."""
    out = tmp_path_factory.mktemp("run") / "digits"
    design(*PLAN, "--out", out)
    return out


def test_the_run_folder_holds_what_is_promised(finished_run):
    names = {path.name for path in finished_run.iterdir()}
    promised = {"plan.yaml", "env.json", "study.db", "architecture.json", "model.safetensors", "model.onnx"}
    assert promised | {"result.json", "report.html", "checkpoints"} <= names
    result = RunFolder(finished_run).read_result()
    kept = [path.name for path in (finished_run / "checkpoints").iterdir()]
    assert kept == [f"final-{result.key}.safetensors"]
    assert result.search.evaluated == 24
    assert result.costs["macs"].value <= 3e5
    assert result.budget.broken(result.costs) == []
    assert result.costs["latency"].how == "measured"
    assert result.export.same == 100
    assert [output.name for output in result.export.outputs] == ["logits"]
    assert result.metrics.decides == "accuracy"
    assert result.metrics.on_test > 60  # two epochs; ten classes
    assert set(result.metrics.test) == set(result.metrics.val) == {"accuracy", "balanced_accuracy", "macro_f1"}
    recall = result.metrics.each["recall"]
    assert list(recall) == list("0123456789")
    assert sum(recall.values()) / 10 == pytest.approx(result.metrics.test["balanced_accuracy"])
    assert result.costs["size"].value == (finished_run / "model.onnx").stat().st_size


def test_the_parts_of_the_network_add_up(finished_run):
    result = RunFolder(finished_run).read_result()
    assert sum(block.macs for block in result.blocks) == result.costs["macs"].value
    assert sum(block.params for block in result.blocks) == result.costs["params"].value
    with Study(finished_run / "study.db") as study:
        chosen = next(c for c in study.candidates() if c.key == result.key)
    assert sum(block.latency_ms for block in result.blocks) == pytest.approx(chosen.costs["latency"].value)


def test_a_ray_cluster_gives_the_same_network(finished_run, tmp_path):
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    printed = design(*PLAN, "--ray", "local", "--out", tmp_path / "ray", "--json")
    again, first = json.loads(printed), RunFolder(finished_run).read_result()
    assert (again["key"], again["metrics"]) == (first.key, first.metrics.model_dump())


def test_a_finished_run_resumes_to_its_result(finished_run):
    done = edgewright("design", "--resume", finished_run, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["key"] == RunFolder(finished_run).read_result().key


def test_a_finished_run_that_lost_its_model_is_not_shown_as_whole(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    (tmp_path / "run" / "model.onnx").unlink()
    done = edgewright("design", "--resume", tmp_path / "run")
    assert done.exit_code == 2
    assert "model.onnx: missing" in done.stderr


@pytest.fixture(scope="module")
def killed_run(tmp_path_factory) -> Path:
    """The same plan by another number of workers, killed twice and gone on with, compared with random networks."""
    out = tmp_path_factory.mktemp("run") / "killed"
    begin = (*PLAN, "--workers", "1", "--compare-random", "--out", out)
    for share, arguments in ((0.35, begin), (0.8, ("--resume", out))):
        with process("design", *arguments, stderr=subprocess.DEVNULL) as running:
            wait_for(int(24 * share), out, running)
            running.send_signal(signal.SIGKILL)
    done = edgewright("design", "--resume", out)
    assert done.exit_code == 0, done.stderr
    return out


def test_killed_twice_and_resumed_equals_uninterrupted(finished_run, killed_run):
    """The same plan gives the same network, and the same scores on the way."""
    resumed, whole = RunFolder(killed_run).read_result(), RunFolder(finished_run).read_result()
    assert (resumed.key, resumed.metrics) == (whole.key, whole.metrics)
    with Study(finished_run / "study.db") as one, Study(killed_run / "study.db") as two:
        assert [(c.key, c.scores) for c in one.candidates()] == [(c.key, c.scores) for c in two.candidates()]


def test_a_comparison_with_random_networks_changes_nothing_and_says_what_its_trainings_say(finished_run, killed_run):
    told = RunFolder(killed_run).read_result().random
    assert RunFolder(finished_run).read_result().random is None
    assert told is not None and told.chosen is not None
    with Study(finished_run / "study.db") as one, Study(killed_run / "study.db") as two:
        alone = one.read_note(f"rung-0:{told.key}")["val"]  # where nothing was compared
        drawn = [found["val"] for found in two.notes("random:").values()]
    average = sum(drawn) / len(drawn)
    assert told.networks == len(drawn) == RANDOM
    assert (told.chosen, told.average, told.best) == pytest.approx((alone, average, max(drawn)))
    assert told.improvement == pytest.approx(100 * (alone - average) / average)
    assert (
        f"{told.improvement:+.1f} % over the average of {RANDOM} random networks"
        in (killed_run / "report.html").read_text()
    )


def wait_for(wanted: int, out: Path, running: subprocess.Popen) -> None:
    """Until so many networks are scored."""
    deadline = time.monotonic() + 120
    while _scored(out) < wanted and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _scored(out) >= wanted and running.poll() is None


def _scored(out) -> int:
    if not (out / "study.db").exists():
        return 0
    with Study(out / "study.db") as study:
        return len(study.candidates())


def hears_ctrl_c() -> None:
    """Tests that a shell runs in the background inherit that the signal is ignored, and Python leaves it so."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_says_how_to_go_on(tmp_path):
    out = tmp_path / "stopped"
    many = ("--candidates", "5000")  # so that it is not done before it is stopped
    heard = {"stderr": subprocess.PIPE, "preexec_fn": hears_ctrl_c}
    with process("design", *PLAN, *many, "--out", out, **heard) as running:
        wait_for(3, out, running)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert f"edgewright design --resume {out}" in errors
    assert "Traceback" not in errors


def test_an_altered_file_is_refused(finished_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    data = bytearray((copy / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx").write_bytes(bytes(data))
    done = edgewright("bench", copy)
    assert done.exit_code == 2
    assert "altered" in done.stderr


def test_bench_measures_again(finished_run):
    done = edgewright("bench", finished_run, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)
