"""A trained network adapted to new data, end to end."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import edgewright
from edgewright.backward.account import measure_kept, total
from edgewright.backward.plans.training_plan import applied
from edgewright.core.errors import BadInput, BudgetInfeasible
from edgewright.core.run import RunFolder
from edgewright.job.adapt import run as job
from edgewright.job.adapt.ground import old_task, survey
from edgewright.job.adapt.plan import AdaptPlan
from edgewright.job.adapt.run import AdaptResult, adapt
from edgewright.task.base import Task, TaskSpec
from edgewright.task.load import load_task
from edgewright.train import loop
from edgewright.train.evaluate import evaluate
from edgewright.train.head import put_layers

MEMORY = 400 * 2**10
OPTIONS = {"memory_bytes": MEMORY, "epochs": 6}


@pytest.fixture(scope="module")
def inverted(digits_run: RunFolder, new_tasks: dict[str, str], tmp_path_factory) -> tuple[RunFolder, AdaptResult]:
    """The same classes, seen as negatives."""
    out = tmp_path_factory.mktemp("adapted") / "inverted"
    return RunFolder(out), adapt(digits_run.path, task=new_tasks["inverted"], out=out, lr=0.02, **OPTIONS)


@pytest.fixture(scope="module")
def other(digits_run: RunFolder, new_tasks: dict[str, str], tmp_path_factory) -> tuple[RunFolder, AdaptResult]:
    """Other classes."""
    out = tmp_path_factory.mktemp("adapted") / "other"
    return RunFolder(out), adapt(digits_run.path, task=new_tasks["other"], out=out, lr=0.02, **OPTIONS)


def as_learned(source: str, run: RunFolder) -> Task:
    """The data as the run's network takes it."""
    found = load_task(source)
    return Task(TaskSpec.parse(run.read_result().task, "result.json"), found.train, found.val, found.test)


def accuracy(model: torch.nn.Module, task: Task) -> float:
    return evaluate(model, task.test, task.spec, (8, 8)).score.value


def test_the_same_classes_seen_otherwise_are_learned(inverted, digits_run) -> None:
    folder, result = inverted
    assert result.new_head is None
    assert result.figure.after > result.figure.before + 20
    assert result.val.value == max(look.val.value for look in result.tuned.history)
    model = edgewright.load_model(folder.path)
    assert result.old_task.before == pytest.approx(digits_run.read_result().metrics.on_test)
    assert result.old_task.after == pytest.approx(accuracy(model, as_learned("digits", digits_run)))


def test_other_classes_get_a_new_head_and_the_old_task_keeps_its_own(other, digits_run, new_tasks) -> None:
    folder, result = other
    model = edgewright.load_model(folder.path)
    old = edgewright.load_model(digits_run.path)
    assert result.new_head is not None
    head = model.get_submodule(result.new_head)
    assert head.out_features == 3
    assert result.figure.after == pytest.approx(accuracy(model, as_learned(new_tasks["other"], folder)))
    assert result.figure.before > 60  # the new head's first lesson; 33 is chance
    own = old.get_submodule(result.new_head)
    assert isinstance(own, torch.nn.Linear)
    put_layers(model, {result.new_head: own})
    assert result.old_task.after == pytest.approx(accuracy(model, as_learned("digits", digits_run)))
    assert result.old_task.before == pytest.approx(accuracy(old, as_learned("digits", digits_run)))


@pytest.mark.parametrize("which", ["inverted", "other"])
def test_the_budget_is_kept_to_the_byte(which: str, request: pytest.FixtureRequest, digits_run, new_tasks) -> None:
    """What autograd really keeps on a real batch is what the plan says."""
    _, result = request.getfixturevalue(which)
    plan = result.training
    assert plan.memory_bytes <= MEMORY < plan.full_memory_bytes
    ground = survey(job.resolved(AdaptPlan(source=str(digits_run.path), task=new_tasks[which])))
    with applied(ground.model.train(), plan):
        kept = measure_kept(ground.model, torch.rand(plan.held, *ground.example.shape[1:]))
        learned = sum(p.numel() for p in ground.model.parameters() if p.requires_grad)
    assert total(kept) == plan.stored_bytes
    assert plan.memory_bytes == plan.stored_bytes + 2 * 4 * learned


def test_what_is_frozen_stays_as_it_was(inverted, digits_run) -> None:
    folder, result = inverted
    before, after = load_file(digits_run.model), load_file(folder.model)
    learns = {row.layer for row in result.training.layers if row.learns}
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert {name.rpartition(".")[0] for name in changed} <= learns
    assert not any("running" in name for name in changed)


def test_the_result_is_what_the_command_promises(inverted) -> None:
    folder, result = inverted
    told = json.loads((folder.path / "adapt.json").read_text())
    assert AdaptResult.parse(told, "adapt.json") == result
    assert set(told["plan"][0]) == {"layer", "method", "stored_bytes", "forward_macs", "backward_macs"}
    assert told["stored_bytes"] == sum(row["stored_bytes"] for row in told["plan"]) + result.training.other_bytes
    assert told["macs"] == sum(row["forward_macs"] + row["backward_macs"] for row in told["plan"])
    assert told["stored_bytes"] < told["full_stored_bytes"] and told["macs"] <= told["full_macs"]
    assert result.export.same == 100


def test_an_adapted_run_is_a_run(other, new_tasks, tmp_path: Path) -> None:
    folder, result = other
    run = folder.read_result()
    assert run.task["names"] == ["0", "1", "2"] and run.metrics.on_test == result.figure.after
    assert sum(block.macs for block in run.blocks) == run.costs["macs"].value
    assert sum(block.params for block in run.blocks) == run.costs["params"].value
    task = load_task(new_tasks["other"])
    for index in range(20):
        pixels = task.test.inputs[index, 0].numpy()
        Image.fromarray(pixels, mode="L").save(tmp_path / f"{index:02}.png")
    told = [int(found["class"]) for found in edgewright.predict(folder.path, [tmp_path])]
    assert np.mean(np.array(told) == task.test.targets[:20].numpy()) > 0.7
    report = edgewright.bench(folder.path, runs=200)
    assert report.costs["macs"] == run.costs["macs"] and not report.broken


def test_an_adapted_run_is_adapted_again(other, new_tasks, tmp_path: Path) -> None:
    """Its old task is now the one that it was adapted to first, and it knows the classes already."""
    folder, result = other
    again = adapt(folder.path, task=new_tasks["other"], out=tmp_path / "again", epochs=1, memory_bytes=MEMORY)
    assert again.new_head is None
    assert again.old_task is not None
    assert again.old_task.before == again.figure.before == pytest.approx(result.figure.after)


def cut_in_looks(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The process ends when it looks at val for the `at`-th time."""
    real, count = loop.evaluate, [0]

    def evaluate_until(*arguments, **options):
        count[0] += 1
        if count[0] == at:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(loop, "evaluate", evaluate_until)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)


def test_cut_twice_and_resumed_equals_uncut(other, digits_run, new_tasks, tmp_path, monkeypatch) -> None:
    """In the middle of the training, then before the export; what is known is not learned again."""
    folder, expected = other
    out = tmp_path / "cut"
    with monkeypatch.context() as patch:
        cut_in_looks(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            adapt(digits_run.path, task=new_tasks["other"], out=out, lr=0.02, **OPTIONS)
    assert RunFolder(out).resumed_by == f"edgewright adapt --resume {out}"
    monkeypatch.setattr("edgewright.job.adapt.ground.first_lesson", _interrupt)
    with monkeypatch.context() as patch:
        patch.setattr(job, "ship", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            job.resume(out)
    monkeypatch.setattr(loop.Learner, "learn", _interrupt)
    result = job.resume(out)
    assert result.figure == expected.figure and result.old_task == expected.old_task
    assert result.training == expected.training
    assert [look.val_loss for look in result.tuned.history] == [look.val_loss for look in expected.tuned.history]
    resumed, whole = load_file(out / "model.safetensors"), load_file(folder.model)
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def _interrupt(*_, **__):
    raise KeyboardInterrupt


def test_a_finished_adaptation_resumes_to_its_result(other, tmp_path: Path) -> None:
    folder, result = other
    assert job.resume(folder.path) == result
    shutil.copytree(folder.path, tmp_path / "copy")
    (tmp_path / "copy" / "model.onnx").write_bytes(b"something else")
    with pytest.raises(BadInput, match=r"model.onnx: altered"):
        job.resume(tmp_path / "copy")
    (tmp_path / "copy" / "model.onnx").unlink()
    with pytest.raises(BadInput, match=r"model.onnx: missing"):
        job.resume(tmp_path / "copy")


def test_changed_data_is_not_gone_on_with(digits_run, new_tasks, tmp_path, monkeypatch) -> None:
    data = tmp_path / "data.npz"
    shutil.copy(new_tasks["other"].removeprefix("arrays:"), data)
    cut_in_looks(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        adapt(digits_run.path, task=f"arrays:{data}", out=tmp_path / "cut", **OPTIONS)
    shutil.copy(new_tasks["inverted"].removeprefix("arrays:"), data)
    with pytest.raises(BadInput, match="another data"):
        job.resume(tmp_path / "cut")


def test_a_budget_below_the_least_writes_nothing_and_learns_nothing(digits_run, new_tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "measure", _interrupt)
    with pytest.raises(BudgetInfeasible, match=r"the least possible takes .* for "):
        adapt(digits_run.path, task=new_tasks["other"], out=tmp_path / "x", memory_mb=0.0005)
    assert not (tmp_path / "x").exists()


def test_a_run_that_began_in_the_folder_meanwhile_is_not_overwritten(digits_run, new_tasks, tmp_path, monkeypatch):
    def another_begins(ground):
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "plan.yaml").write_text("the other's")

    monkeypatch.setattr(job, "decide", another_begins)
    with pytest.raises(BadInput, match="holds another run"):
        adapt(digits_run.path, task=new_tasks["other"], out=tmp_path / "x", **OPTIONS)
    assert (tmp_path / "x" / "plan.yaml").read_text() == "the other's"


def test_a_loss_that_is_no_number_keeps_what_came(digits_run, new_tasks, tmp_path: Path) -> None:
    result = adapt(digits_run.path, task=new_tasks["inverted"], out=tmp_path / "x", **{**OPTIONS, "lr": 1e30})
    assert result.tuned.stopped is not None and "in epoch 1, step 2," in result.tuned.stopped
    assert result.figure.after == result.figure.before
    assert "ended early: the loss is nan in epoch 1, step 2," in (tmp_path / "x" / "report.html").read_text()


def test_the_old_task_is_said_to_be_missing_where_it_is(digits_run, new_tasks, tmp_path: Path) -> None:
    """A run that was given its data from Python, a data set that has changed meanwhile, one that is gone."""
    for task, words in (("dataset", "from Python"), (new_tasks["inverted"], "has changed"), ("images:/no", "/no")):
        run = shutil.copytree(digits_run.path, tmp_path / words.strip("/"))
        (run / "plan.yaml").write_text((run / "plan.yaml").read_text().replace("task: digits", f"task: {task}"))
        missing = old_task(survey(job.resolved(AdaptPlan(source=str(run), task=new_tasks["inverted"]))))
        assert isinstance(missing, str) and words in missing


def test_units_that_are_not_known_keep_their_own_normalisation(digits_run, new_tasks, tmp_path: Path) -> None:
    """Floats between 0 and 1 are the run's bytes divided by 255; of any other range say nothing of their unit."""
    arrays = dict(np.load(new_tasks["inverted"].removeprefix("arrays:")))
    bytes_ = survey(job.resolved(AdaptPlan(source=str(digits_run.path), task=new_tasks["inverted"]))).task.spec
    for name, scale in (("unit", 1 / 255), ("any", 37.5)):
        floats = {k: (v * scale).astype(np.float32) if k.startswith("x") else v for k, v in arrays.items()}
        np.savez(tmp_path / f"{name}.npz", **floats)
        ask = AdaptPlan(source=str(digits_run.path), task=f"arrays:{tmp_path / f'{name}.npz'}")
        spec = survey(job.resolved(ask)).task.spec
        if name == "unit":
            assert spec.input.mean[0] == pytest.approx(bytes_.input.mean[0] / 255)
            assert spec.input.std[0] == pytest.approx(bytes_.input.std[0] / 255)
        else:
            assert spec.input.mean[0] == pytest.approx(floats["x_train"].mean(), rel=0.05)


@pytest.mark.slow
def test_minutes_are_kept(digits_run, new_tasks, tmp_path: Path) -> None:
    result = adapt(digits_run.path, task=new_tasks["inverted"], out=tmp_path / "x", minutes=0.3, memory_bytes=MEMORY)
    assert result.seconds < 40  # of 18, and what comes after them on a machine that is busy
    assert result.tuned.steps > 1  # on a busy machine few


def test_a_network_of_timm_takes_oblong_images(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="the extra `timm` is not installed")
    pixels, labels = np.random.default_rng(0).integers(0, 256, (90, 24, 40, 3), dtype=np.uint8), np.arange(90) % 3
    np.savez(tmp_path / "x.npz", x=pixels, y=labels)
    asked = AdaptPlan(source="timm:mobilenetv3_small_050", task=f"arrays:{tmp_path / 'x.npz'}", resolution=(24, 40))
    ground = survey(job.resolved(AdaptPlan.model_validate_json(asked.model_dump_json())))
    assert ground.size == ground.task.spec.size == (24, 40)
    assert ground.model(ground.example[:2]).shape == (2, 3)


def test_a_network_of_timm_from_a_weights_file(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="the extra `timm` is not installed")
    torch.manual_seed(0)
    save_file(timm.create_model("mobilenetv3_small_050", num_classes=7).state_dict(), tmp_path / "w.safetensors")
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    images = generator.integers(0, 90, (90, 32, 32, 3), dtype=np.uint8)
    images[np.arange(90), :, :, labels] += 150
    np.savez(tmp_path / "x.npz", x_train=images[:60], y_train=labels[:60], x_test=images[60:], y_test=labels[60:])
    result = adapt(
        "timm:mobilenetv3_small_050",
        weights=str(tmp_path / "w.safetensors"),
        task=f"arrays:{tmp_path / 'x.npz'}",
        out=tmp_path / "out",
        memory_mb=1.5,
        epochs=2,
        resolution=32,
    )
    assert result.new_head == "classifier" and result.source == "timm:mobilenetv3_small_050"
    assert result.memory_bytes <= 1.5 * 2**20
    assert result.old_task is None and result.old_task_missing
    assert result.export.same == 100
    state = load_file(tmp_path / "out" / "model.safetensors")
    assert state["classifier.weight"].shape[0] == 3
    model = timm.create_model("mobilenetv3_small_050", num_classes=3).eval()
    model.load_state_dict(state)
    with pytest.raises(BadInput, match=r"not a run; use its model\.onnx"):
        edgewright.load_model(tmp_path / "out")
