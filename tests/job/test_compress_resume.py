"""Compressions that were cut, or came to nothing: what is gone on with, and what is left behind."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compress_toys import MACS, OPTIONS, interrupt, on_test, weights
from safetensors.torch import load_file

import edgewright
from edgewright.core.errors import BadInput, BudgetInfeasible, DeviceLost, EdgewrightError, GateFailed
from edgewright.core.run import RunFolder
from edgewright.core.study import Study
from edgewright.device.here.cpu import Cpu
from edgewright.device.measure import Latency
from edgewright.job.compress import files as compress_files
from edgewright.job.compress import run as job
from edgewright.job.compress.run import compress_run
from edgewright.train import loop
from edgewright.train.step import Learner


def test_a_finished_compression_resumes_to_its_result(pruned, tmp_path: Path) -> None:
    folder, result = pruned
    assert job.resume(folder.path) == result
    copy = RunFolder(Path(shutil.copytree(folder.path, tmp_path / "copy")))
    copy.rewrites.write_text(copy.rewrites.read_text() + " ")
    with pytest.raises(BadInput, match=r"compress.json: altered"):
        job.resume(copy.path)
    with pytest.raises(BadInput, match=r"compress.json: altered"):
        edgewright.load_model(copy.path)


def test_cut_at_the_end_and_resumed(digits_run, pruned, known, tmp_path, monkeypatch) -> None:
    """Nothing is decided or learned anew."""
    out = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(job, "ship", interrupt)
        with pytest.raises(KeyboardInterrupt):
            compress_run(digits_run.path, out=out, **OPTIONS)
    assert RunFolder(out).resumed_by == f"edgewright compress --resume {out}"
    with pytest.raises(BadInput, match="edgewright compress has not finished here; edgewright compress --resume"):
        edgewright.load_model(out)
    monkeypatch.setattr(job, "decide", interrupt)
    monkeypatch.setattr(Learner, "learn", interrupt)
    result = job.resume(out)
    assert result.trials[1].costs["macs"] == pruned[1].trials[1].costs["macs"]
    assert on_test(edgewright.load_model(out)) == pytest.approx(result.after.test)


def test_the_file_that_ships_is_named_though_it_was_measured_anew(
    digits_run, by_weights, tmp_path: Path, monkeypatch
) -> None:
    """Cut before it shipped; resumed, the same files take a little longer. The curve has each of them once, as now."""
    out, ceiling = tmp_path / "cut", 0.5 * weights(digits_run.onnx) / 1e5
    with monkeypatch.context() as patch:
        patch.setattr(job, "ship", interrupt)
        with pytest.raises(KeyboardInterrupt):
            compress_run(digits_run.path, out=out, latency_ms=ceiling, max_drop=5.0)
    before = compress_files.timed
    monkeypatch.setattr(
        compress_files,
        "timed",
        lambda *given: [Latency.by_law(1.01 * latency.median_ms).model_copy(
            update={"runs": 40, "samples": tuple(1.01 * one for one in latency.samples)})
            for latency in before(*given)],
    )  # fmt: skip
    result = job.resume(out)
    verdicts = {trial.name: trial.verdict for trial in result.trials}
    assert len(verdicts) == len(result.trials)
    assert [name for name, verdict in verdicts.items() if verdict == "handed out"] == ["exact rewrites, int8"]
    assert verdicts["as it was"] == "what is to be compressed"
    assert next(t for t in result.trials if t.verdict == "handed out").costs == result.after.costs


@pytest.mark.parametrize("error", [BadInput, BudgetInfeasible, GateFailed, loop.Diverged])
def test_no_error_that_is_final_leaves_anything_behind(error, digits_run, known, tmp_path, monkeypatch) -> None:
    def fail(*_):
        raise error("not so")

    monkeypatch.setattr(job, "learn", fail)
    with pytest.raises(error, match="not so"):
        compress_run(digits_run.path, out=tmp_path / "x", **OPTIONS)
    assert not (tmp_path / "x").exists()
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "mine.txt").touch()
    with pytest.raises(error, match="not so"):
        compress_run(digits_run.path, out=tmp_path / "y", **OPTIONS)
    assert [path.name for path in (tmp_path / "y").iterdir() if path.name != ".lock"] == ["mine.txt"]


@pytest.mark.parametrize("error", [EdgewrightError, DeviceLost])
def test_what_a_disk_or_a_device_ended_is_gone_on_with(error, digits_run, known, tmp_path, monkeypatch) -> None:
    def fail(*_):
        raise error("free some space, then resume")

    monkeypatch.setattr(job, "learn", fail)
    with pytest.raises(error, match="free some space"):
        compress_run(digits_run.path, out=tmp_path / "x", **OPTIONS)
    assert RunFolder(tmp_path / "x").resumed_by is not None


def test_changed_data_or_weights_are_not_gone_on_with(digits_run, known, tmp_path, monkeypatch) -> None:
    source = RunFolder(Path(shutil.copytree(digits_run.path, tmp_path / "source")))
    monkeypatch.setattr(job, "learn", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compress_run(source.path, out=tmp_path / "cut", **OPTIONS)
    with Study(tmp_path / "cut" / "study.db") as study:
        identity = study.read_note("identity")
        study.note("identity", {**identity, "data": "other"})
    with pytest.raises(BadInput, match="the network or the data changed"):
        job.resume(tmp_path / "cut")
    with Study(tmp_path / "cut" / "study.db") as study:  # with the old data back, it is gone on with
        study.note("identity", identity)
    with pytest.raises(KeyboardInterrupt):
        job.resume(tmp_path / "cut")


def test_latencies_of_another_device_are_not_gone_on_with(digits_run, known, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(job, "learn", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compress_run(digits_run.path, out=tmp_path / "cut", **OPTIONS, latency_ms=100.0)
    monkeypatch.setattr(Cpu, "identity", lambda self: {"name": "cpu", "cpu": "another"})
    with pytest.raises(BadInput, match=r"begun on another device \(cpu .*, here another\)"):
        job.resume(tmp_path / "cut")


KILLED = """
import os, signal, sys
from edgewright.job.compress.run import compress_run
from edgewright.train import loop

def save_and_die(run, save=loop._Run._save):
    save(run)
    if 1.5 < run.epochs:
        os.kill(os.getpid(), signal.SIGKILL)

loop.CHECKPOINT_SECONDS = 0.0
loop._Run._save = save_and_die
source, out, macs = sys.argv[1:]
compress_run(source, out=out, macs=float(macs), max_drop=60.0, epochs=4, steps=("prune",))
"""


def test_killed_and_resumed_equals_uninterrupted(digits_run, tmp_path: Path) -> None:
    """SIGKILL in the middle of the training; from the same measurements the weights are the same to the bit."""
    out, whole = tmp_path / "killed", tmp_path / "whole"
    checkpoint = out / "checkpoints" / "train.safetensors"
    done = subprocess.run([sys.executable, "-c", KILLED, str(digits_run.path), str(out), str(MACS)], check=False)
    assert done.returncode == -signal.SIGKILL and checkpoint.exists()
    shutil.copytree(out, whole)
    (whole / "checkpoints" / checkpoint.name).unlink()
    results = [job.resume(place) for place in (out, whole)]
    assert results[0].after.val == results[1].after.val
    one, other = (load_file(place / "model.safetensors") for place in (out, whole))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
