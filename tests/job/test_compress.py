"""A run's network compressed, end to end."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from compress_toys import MACS, OPTIONS, interrupt, on_test, weights
from PIL import Image

import edgewright
from edgewright.compress.planner import look, read_plan
from edgewright.core.cost import cost
from edgewright.core.data import read_json
from edgewright.core.errors import BadInput, GateFailed
from edgewright.core.files import sha256
from edgewright.core.metric import Score
from edgewright.core.run import RunFolder
from edgewright.device.measure import Latency
from edgewright.export.int8 import fallback
from edgewright.export.int8.quantise import best_ranges
from edgewright.export.ship.ship import ship as export_chosen
from edgewright.export.ship.show import read_provenance
from edgewright.job.adapt.run import adapt
from edgewright.job.compress import files as compress_files
from edgewright.job.compress import run as job
from edgewright.job.compress import ship as compress_ship
from edgewright.job.compress import train as compress_train
from edgewright.job.compress.decide import NothingKeeps
from edgewright.job.compress.ground import session_call, survey
from edgewright.job.compress.plan import CompressPlan
from edgewright.job.compress.result import CompressResult
from edgewright.job.compress.run import compress_run
from edgewright.task.load import load_task
from edgewright.train import loop


def test_the_ceiling_is_kept_and_little_is_lost(pruned, digits_run) -> None:
    folder, result = pruned
    before = digits_run.read_result()
    assert result.after.costs["macs"].value <= MACS < result.before.costs["macs"].value == before.costs["macs"].value
    assert result.before.test == pytest.approx(before.metrics.on_test)
    assert result.before.test - result.after.test <= OPTIONS["max_drop"]
    assert result.after.costs["size"].value == folder.onnx.stat().st_size < digits_run.onnx.stat().st_size
    assert result.way == "pruned" and result.widths + result.dropped != ()


def test_what_is_told_is_what_the_folder_holds(pruned) -> None:
    """The network is rebuilt from the architecture, the rewrites and the weights, and is what the file computes."""
    folder, result = pruned
    model = edgewright.load_model(folder.path)
    assert on_test(model) == pytest.approx(result.after.test)
    counted = look(model, torch.zeros(1, 1, 8, 8)).after
    assert counted.macs == result.after.costs["macs"].value
    assert sum(p.numel() for p in model.parameters()) == result.after.costs["params"].value == counted.params
    plan = read_plan(read_json(folder.rewrites), "compress.json")
    assert plan.before.macs == result.before.costs["macs"].value and plan.after.macs == counted.macs
    x = torch.rand(5, 1, 8, 8)
    call = session_call(folder.onnx)
    found = np.concatenate([call([x[i : i + 1].numpy()])[0] for i in range(5)])
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-4)
    assert CompressResult.parse(json.loads((folder.path / "compressed.json").read_text()), "") == result


def test_the_file_says_what_it_was_made_from_and_that_it_is_whole(pruned, digits_run) -> None:
    folder, result = pruned
    found = read_provenance(folder.onnx)
    assert found.kept == "as recorded" and found.facts is not None and found.task == "digits"
    assert found.facts["source_sha256"] == sha256(digits_run.onnx)
    assert found.facts["source_weights_sha256"] == read_provenance(digits_run.onnx).weights_sha256
    assert found.facts["winner"]["metric"] == result.after.val
    assert f"accuracy      {result.after.val:.2f} %" in found.text()
    assert str(digits_run.path) not in json.dumps(found.facts)


def test_widths_are_those_of_the_layers(pruned, digits_run) -> None:
    folder, result = pruned
    old, new = edgewright.load_model(digits_run.path), edgewright.load_model(folder.path)
    for row in result.widths:
        assert old.get_submodule(row.layer).out_channels == row.before
        assert new.get_submodule(row.layer).out_channels == row.after
    for block in result.dropped:
        assert not list(new.get_submodule(block).parameters())


def test_the_trade_curve_has_all_that_was_tried(pruned) -> None:
    _, result = pruned
    assert result.trials[0].name == "as it was" and result.trials[0].figure == result.before.val
    assert [trial.verdict for trial in result.trials].count("handed out") == 1
    assert result.trials[-1].verdict == "handed out" and result.trials[-1].figure == result.after.val
    untrained = [trial for trial in result.trials if trial.figure is None]
    assert untrained and any(trial.costs["macs"].value <= MACS for trial in untrained)


def test_a_compressed_run_is_a_run(pruned, tmp_path: Path) -> None:
    folder, result = pruned
    task = load_task("digits")
    for index in range(20):
        Image.fromarray(task.test.inputs[index, 0].numpy(), mode="L").save(tmp_path / f"{index:02}.png")
    told = [int(found["class"]) for found in edgewright.predict(folder.path, [tmp_path])]
    assert np.mean(np.array(told) == task.test.targets[:20].numpy()) > 0.7
    report = edgewright.bench(folder.path, runs=200)
    assert not report.broken and report.costs["macs"] == result.after.costs["macs"]
    assert report.costs["size"] == result.after.costs["size"]
    assert report.costs["peak_memory"] == result.after.costs["peak_memory"]
    assert folder.read_result().metrics.on_test == result.after.test


def test_a_compressed_run_is_adapted(pruned, new_tasks, tmp_path: Path) -> None:
    folder, result = pruned
    found = adapt(folder.path, task=new_tasks["other"], out=tmp_path / "mine", epochs=1)
    assert found.new_head is not None
    assert found.old_task is not None
    assert found.old_task.before == pytest.approx(result.after.test)
    model = edgewright.load_model(tmp_path / "mine")
    counted = look(model, torch.zeros(1, 1, 8, 8)).after
    assert found.costs["macs"].value == counted.macs < MACS and found.costs["params"].value == counted.params
    again = adapt(tmp_path / "mine", task=new_tasks["inverted"], out=tmp_path / "again", epochs=1)
    assert again.old_task is not None and again.old_task.before == pytest.approx(found.figure.after)


def test_a_compressed_run_is_compressed_again(pruned, tmp_path: Path) -> None:
    """Its rewrites come after those that were there."""
    folder, first = pruned
    out = tmp_path / "again"
    second = compress_run(folder.path, out=out, **{**OPTIONS, "macs": 90_000, "max_drop": 60.0, "epochs": 2})
    assert second.before.test == pytest.approx(first.after.test)
    assert second.before.costs["macs"] == first.after.costs["macs"]
    assert second.after.costs["macs"].value <= 90_000
    assert on_test(edgewright.load_model(out)) == pytest.approx(second.after.test)
    earlier, all_ = (read_json(RunFolder(place).rewrites)["rewrites"] for place in (folder.path, out))
    assert all_[: len(earlier)] == earlier and len(all_) > len(earlier)


def test_int8_alone_is_enough(digits_run, by_weights, tmp_path: Path, monkeypatch) -> None:
    """What needs no training comes first; the file that ships is int8, the float one stays beside it."""
    monkeypatch.setattr("edgewright.job.compress.run.learn", interrupt)
    ceiling = 0.5 * weights(digits_run.onnx) / 1e5
    result = compress_run(digits_run.path, out=tmp_path / "out", latency_ms=ceiling, max_drop=5.0)
    folder = RunFolder(tmp_path / "out")
    assert result.after.type == "int8" and not result.learned and result.way == "exact rewrites"
    assert result.after.costs["latency"].value <= ceiling < result.before.costs["latency"].value
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(folder.onnx).graph.node)
    assert not any(node.op_type == "QuantizeLinear" for node in onnx.load(folder.float_onnx).graph.node)
    assert result.after.costs["peak_memory"].value < result.before.costs["peak_memory"].value
    assert on_test(edgewright.load_model(folder.path)) == pytest.approx(result.before.test)
    task, ground = load_task("digits"), survey(job.resolved(CompressPlan.parse(_asked(folder.path), "")), tmp_path)
    assert ground.figure_before == pytest.approx(result.after.val)
    assert len(task.val) == len(ground.samples.comparison)
    chosen = export_chosen(folder.path, max_drop=5.0, runtimes=["onnxruntime"], out=tmp_path / "export")
    assert chosen.choice.candidates[0].kind == "fp32"  # and not int8 made of int8


def test_where_int8_loses_too_much_it_is_learned(digits_run, by_weights, tmp_path: Path, monkeypatch) -> None:
    """Calibration is spoiled, so that int8 as it is made afterwards is useless; the network learns to be it instead."""

    def spoiled(*given):
        name, covered = best_ranges(*given)
        return name, {tensor: (low / 40, high / 40) for tensor, (low, high) in covered.items()}

    monkeypatch.setattr(fallback, "best_ranges", spoiled)
    ceiling = 0.5 * weights(digits_run.onnx) / 1e5
    result = compress_run(
        digits_run.path, out=tmp_path / "out", latency_ms=ceiling, max_drop=5.0, epochs=4, steps=("quantise",)
    )
    folder = RunFolder(tmp_path / "out")
    verdicts = {trial.name: trial.verdict for trial in result.trials}
    assert "times the ceiling" in verdicts["exact rewrites, int8"]  # nearly all layers went back to float
    assert result.way == "rounded to int8" and result.after.type == "int8" and "learned" in result.after.note
    assert result.before.test - result.after.test <= 5.0
    assert result.after.costs["latency"].value <= ceiling
    assert on_test(edgewright.load_model(folder.path)) == pytest.approx(result.after.test, abs=1.0)
    assert read_provenance(folder.onnx).kept == "as recorded"
    assert edgewright.load_model(folder.path)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def _asked(path: Path) -> dict:
    return {"source": str(path), "budget": {"macs": 1e9}}


def test_a_network_that_keeps_the_ceilings_is_not_touched(digits_run, by_weights, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"keeps all ceilings as it is \(207 k MACs\).*ask for less"):
        compress_run(digits_run.path, out=tmp_path / "x", macs=1e6, steps=())
    assert not (tmp_path / "x").exists()


def test_ceilings_that_nothing_keeps_leave_nothing_behind(digits_run, by_weights, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("edgewright.job.compress.run.learn", interrupt)
    with pytest.raises(NothingKeeps, match=r"nothing keeps the ceilings: nearest is .* times the ceiling") as caught:
        compress_run(digits_run.path, out=tmp_path / "x", **{**OPTIONS, "macs": 500})
    assert len(caught.value.trials) >= 2 and caught.value.exit_code == 3
    assert not (tmp_path / "x").exists()


def test_an_accuracy_that_nothing_keeps_leaves_nothing_behind(digits_run, known, tmp_path: Path) -> None:
    with pytest.raises(NothingKeeps, match=r"fp32 loses .* points on val, 0 allowed") as caught:
        compress_run(digits_run.path, out=tmp_path / "x", **{**OPTIONS, "max_drop": 0.0, "epochs": 1})
    assert caught.value.trials[-1].name == "pruned, taught again, fp32"
    assert not (tmp_path / "x").exists()


def test_what_the_test_images_refuse_is_not_handed_out(digits_run, known, tmp_path, monkeypatch) -> None:
    """Val chose it; the held-out images have the last word."""
    scores = {of_run: Score(name="accuracy", value=value) for of_run, value in ((True, 90.0), (False, 79.0))}
    monkeypatch.setattr(compress_ship, "held_out", lambda _, path: {"accuracy": scores[path == digits_run.onnx]})
    with pytest.raises(GateFailed, match=r"359 held-out test samples 11.00 points are lost \(90.00 to 79.00 %\), 8"):
        compress_run(digits_run.path, out=tmp_path / "x", **OPTIONS)
    assert not (tmp_path / "x").exists()


def test_what_breaks_a_ceiling_when_it_is_measured_is_not_handed_out(digits_run, known, tmp_path, monkeypatch) -> None:
    real = job.files_of
    monkeypatch.setattr(job, "files_of", lambda *given: [_grown(file) for file in real(*given)])
    with pytest.raises(GateFailed, match=r"does not keep its word when it is measured \(fp32: macs is 9 M MACs"):
        compress_run(digits_run.path, out=tmp_path / "x", **{**OPTIONS, "max_drop": 90.0, "epochs": 1})
    assert not (tmp_path / "x").exists()


def _grown(file: compress_files.File) -> compress_files.File:
    return replace(file, costs={**file.costs, "macs": cost("macs", 9e6, "analytic")})


def test_int8_that_is_slower_is_no_way(digits_run, by_weights, monkeypatch, tmp_path: Path) -> None:
    """It would be smaller, and could learn; but it is never handed out, so nothing may be spent on it."""
    by_type = compress_files.timed

    def slow_int8(ground, files):
        slower = [any(node.op_type == "QuantizeLinear" for node in onnx.load(file).graph.node) for file in files]
        return [Latency.by_law(latency.median_ms * (9 if slow else 1))
                for latency, slow in zip(by_type(ground, files), slower, strict=True)]  # fmt: skip

    monkeypatch.setattr(compress_files, "timed", slow_int8)
    size = 0.5 * digits_run.onnx.stat().st_size / 2**20
    asked = {"source": str(digits_run.path), "budget": {"size_mb": size}, "max_drop": 8.0}
    asked["steps"] = ["quantise", "prune"]
    _, decided = job.dry_run(job.resolved(CompressPlan.parse(asked, "")))
    assert not decided.ready and [(way.name, way.type) for way in decided.ways] == [("pruned", "fp32")]


def test_a_small_ceiling_on_the_size_counts_what_the_file_says_of_itself(
    digits_run, by_weights, tmp_path: Path
) -> None:
    ceiling = 0.75 * digits_run.onnx.stat().st_size
    result = compress_run(
        digits_run.path, out=tmp_path / "x", size_mb=ceiling / 2**20, max_drop=60.0, epochs=1, steps=("prune",)
    )
    assert (tmp_path / "x" / "model.onnx").stat().st_size <= ceiling and result.way == "pruned"


def test_a_run_that_ships_int8_is_fitted_to_a_board_by_its_float_file(digits_run, by_weights, tmp_path: Path) -> None:
    ceiling = 0.5 * weights(digits_run.onnx) / 1e5
    compress_run(digits_run.path, out=tmp_path / "int8", latency_ms=ceiling, max_drop=5.0, steps=("quantise",))
    asked = {"source": str(tmp_path / "int8"), "budget": {"macs": MACS}, "device": "stm32f746"}
    ground = survey(job.resolved(CompressPlan.parse(asked, "")), tmp_path)
    own = compress_files.as_it_was(ground)
    assert own.path == RunFolder(tmp_path / "int8").float_onnx and own.kind == "fp32"
    assert own.costs["size"].value > 0.2 * digits_run.onnx.stat().st_size


def test_one_way_that_diverges_leaves_the_other(digits_run, decided, monkeypatch, tmp_path: Path) -> None:
    real, way = compress_train.train, decided.ways[0]

    def train(ground, way, *given):
        if way.name == "bad":
            raise loop.Diverged("bad: the loss is not finite")
        return real(ground, way, *given)

    monkeypatch.setattr(compress_train, "train", train)
    ways = (way.model_copy(update={"name": "bad"}), way)
    monkeypatch.setattr(job, "decide", lambda *_: (decided.model_copy(update={"ways": ways}), []))
    result = compress_run(digits_run.path, out=tmp_path / "x", **{**OPTIONS, "epochs": 6, "max_drop": 60.0})
    assert [learning.name for learning in result.learned] == [way.name, way.name]
    assert result.learned[0].trained.epochs == 1  # a fifth of those that were asked for
