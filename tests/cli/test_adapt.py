"""`edgewright adapt` as a person meets it: exit codes, one clear line, nothing half-written."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cli import commands
from cli.commands import edgewright
from edgewright.core.run import RunFolder
from edgewright.task.load import load_task

refused = partial(commands.refused, "adapt")


def write_arrays(path: Path, count: int = 40, channels: int = 1, classes: int = 2, val: int | None = None) -> str:
    generator, parts = np.random.default_rng(0), {"train": count, "test": 12}
    if val is not None:
        parts["val"] = val
    arrays = {}
    for name, size in parts.items():
        arrays[f"x_{name}"] = generator.integers(0, 256, (size, 8, 8, channels), dtype=np.uint8)
        arrays[f"y_{name}"] = np.arange(size) % classes
    np.savez(path, **arrays)
    return f"arrays:{path}"


def test_what_is_missing_is_said_with_the_whole_command(tmp_path: Path) -> None:
    assert "say which network: edgewright adapt RUN_OR_TIMM --task TASK" in refused(tmp_path)
    assert "say which data: edgewright adapt" in refused(tmp_path, "run")
    result = edgewright("adapt", "run", "--task", "digits")
    assert result.exit_code == 2 and "--out FOLDER" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--memory-mb", "1", "--memory-kb", "1"), "--memory-mb or --memory-kb, not both"),
        (("--memory-mb", "nan"), "--memory-mb must be a number above zero (got nan)"),
        (("--memory-kb", "0"), "--memory-kb must be a number above zero (got 0)"),
        (("--macs", "-3"), "--macs must be a number above zero (got -3)"),
        (("--macs", "inf"), "--macs must be a number above zero (got inf)"),
        (("--minutes", "0"), "'minutes': Input should be greater than 0"),
        (("--epochs", "0"), "'epochs': Input should be greater than or equal to 1"),
        (("--batch", "0"), "'batch'"),
        (("--lr", "nan"), "'lr'"),
        (("--momentum", "1"), "'momentum'"),
        (("--methods", "bias, ful"), "unknown backward method 'ful'; choose from full, bias"),
        (("--resolution", "5"), "resolution must be from 8 to 512 pixels (got 5)"),
        (("--resolution", "20x"), "resolution 20x: give a side, 64, or height x width, 48x64"),
        (("--resolution", "20x600"), "resolution must be from 8 to 512 pixels (got (20, 600))"),
    ],
)
def test_an_option_out_of_its_range(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    assert words in refused(tmp_path, "run", "--task", "digits", *options)


@pytest.mark.parametrize("options", [("--epochs", "2"), ("--task", "digits"), ("--dry-run",), ("--memory-kb", "3")])
def test_resume_takes_no_other_options(tmp_path: Path, options: tuple[str, ...]) -> None:
    result = edgewright("adapt", "--resume", tmp_path, *options)
    assert result.exit_code == 2 and "takes no other options" in result.stderr


def test_a_source_that_is_no_run(tmp_path: Path) -> None:
    assert "no such run folder" in refused(tmp_path, tmp_path / "nowhere", "--task", "digits")
    (tmp_path / "empty").mkdir()
    assert "not a run folder" in refused(tmp_path, tmp_path / "empty", "--task", "digits")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "plan.yaml").write_text("task: digits\nbudget: {macs: 1}\n")
    assert "this run has not finished" in refused(tmp_path, tmp_path / "begun", "--task", "digits")
    result = edgewright("adapt", "--resume", tmp_path / "empty")
    assert result.exit_code == 2 and "not an adaptation's folder" in result.stderr


def test_an_adaptation_that_has_not_finished_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    RunFolder(tmp_path / "cut").path.joinpath("adapt_plan.json").write_text("{}")
    line = refused(tmp_path, tmp_path / "cut", "--task", "digits")
    assert f"edgewright adapt has not finished here; edgewright adapt --resume {tmp_path / 'cut'}" in line


@pytest.mark.parametrize(("name", "command"), [("plan.yaml", "design"), ("adapt_plan.json", "adapt")])
def test_a_folder_that_holds_something(tmp_path: Path, name: str, command: str) -> None:
    out = tmp_path / "taken"
    out.mkdir()
    (out / name).write_text("somebody's")
    for arguments in (("adapt", "run"), ("design", "--macs", "1e6")):
        result = edgewright(*arguments, "--task", "digits", "--out", out)
        assert result.exit_code == 2
        assert f"{out}: holds" in result.stderr
        assert f"edgewright {command} --resume {out}" in result.stderr
    assert (out / name).read_text() == "somebody's"
    assert [path.name for path in out.iterdir()] == [name]


def test_data_that_does_not_fit_the_network(tmp_path: Path, digits_run: RunFolder) -> None:
    colour = write_arrays(tmp_path / "c.npz", channels=3)
    line = refused(tmp_path, digits_run.path, "--task", colour)
    assert "the images have 3 channels (colour), and the network takes 1 channel (grey); convert them first" in line
    few = write_arrays(tmp_path / "f.npz")
    count = len(load_task(few).train)
    line = refused(tmp_path, digits_run.path, "--task", few, "--batch", count + 1)
    assert f"a batch of {count + 1} is more than the {count} training images" in line
    assert "no such file" in refused(tmp_path, digits_run.path, "--task", f"arrays:{tmp_path / 'no.npz'}")
    line = refused(tmp_path, digits_run.path, "--task", few, "--weights", "w.safetensors")
    assert "a run's network has its own" in line


def test_a_budget_below_the_least_says_what_that_is_and_what_takes_it(tmp_path, digits_run, new_tasks) -> None:
    line = refused(tmp_path, digits_run.path, "--task", new_tasks["other"], "--memory-kb", "0.2", code=3)
    assert "the least possible takes" in line and "(full)" in line and "MACs" in line
    line = refused(tmp_path, digits_run.path, "--task", new_tasks["inverted"], "--macs", "1000", code=3)
    assert "keeps 1 k MACs: the least possible" in line


def test_an_altered_source_is_refused(tmp_path: Path, digits_run: RunFolder) -> None:
    copy = RunFolder(shutil.copytree(digits_run.path, tmp_path / "copy"))
    copy.model.write_bytes(copy.model.read_bytes()[:-4])
    assert "altered since the run" in refused(tmp_path, copy.path, "--task", "digits")


def test_a_network_whose_outputs_are_no_numbers(tmp_path: Path, digits_run: RunFolder, new_tasks) -> None:
    from safetensors.torch import load_file

    from edgewright.core.files import sha256

    copy = RunFolder(shutil.copytree(digits_run.path, tmp_path / "copy"))
    state = {name: value * float("nan") if value.ndim == 4 else value for name, value in load_file(copy.model).items()}
    save_file(state, copy.model)
    result = copy.read_result()
    files = {**result.files, copy.model.name: sha256(copy.model)}
    copy.result.write_text(result.model_copy(update={"files": files}).to_json())
    assert "not numbers; look at its weights" in refused(tmp_path, copy.path, "--task", new_tasks["other"])
    assert "the loss is nan" in refused(tmp_path, copy.path, "--task", new_tasks["inverted"])


def test_a_val_part_of_one_image_is_remarked_on(tmp_path: Path, digits_run: RunFolder) -> None:
    task = write_arrays(tmp_path / "v.npz", val=1)
    out = tmp_path / "out"
    result = edgewright("adapt", digits_run.path, "--task", task, "--memory-kb", 200, "--epochs", 1, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert "val, which chooses the weights that are kept, has only 1 of the images: little to go by" in result.stderr
    assert "% with a new head alone" in result.stdout
    assert str(out / "report.html") in result.stdout


def test_dry_run_says_the_plan_and_writes_nothing(tmp_path, digits_run, new_tasks, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("adapt", digits_run.path, "--task", new_tasks["other"], "--memory-kb", 150, "--dry-run")
    told = edgewright(*options, "--json")
    assert told.exit_code == 0, told.stderr
    found = json.loads(told.stdout)
    assert {"plan", "stored_bytes", "full_stored_bytes", "macs", "full_macs"} <= set(found)
    for row in found["plan"]:
        assert set(row) == {"layer", "method", "stored_bytes", "forward_macs", "backward_macs"}
    assert found["macs"] == sum(row["forward_macs"] + row["backward_macs"] for row in found["plan"])
    assert found["memory_bytes"] == found["stored_bytes"] + found["gradient_bytes"] + found["state_bytes"] <= 150 * 1024
    assert found["stored_bytes"] < found["full_stored_bytes"] and found["macs"] < found["full_macs"]
    assert "is replaced by one of 3" in told.stderr
    text = edgewright(*options)
    assert "memory -> contribution" in text.stdout and "layers frozen" in text.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("begun", [False, True])
def test_an_interruption_names_the_command_that_goes_on(tmp_path: Path, monkeypatch, begun: bool) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgewright.job.adapt.run.run", interrupted)
    if begun:
        RunFolder(tmp_path).path.joinpath("adapt_plan.json").write_text("{}")
        (tmp_path / "plan.yaml").write_text("")  # it is nearly finished
    result = edgewright("adapt", "run", "--task", "digits", "--out", tmp_path)
    assert result.exit_code == 130
    expected = f"go on with: edgewright adapt --resume {tmp_path}" if begun else "nothing was written"
    assert expected in result.stderr and "design" not in result.stderr


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="the extra `timm` is not installed")
    name, task = "timm:mobilenetv3_small_050", write_arrays(tmp_path / "x.npz", channels=3)
    assert "no such file" in refused(tmp_path, name, "--task", task, "--weights", tmp_path / "no.safetensors")
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    line = refused(tmp_path, name, "--task", task, "--weights", tmp_path / "a.safetensors")
    assert "not the weights of mobilenetv3_small_050" in line
    assert "did you mean" in refused(tmp_path, "timm:mobilenetv3_smal_050", "--task", task)
    grey = write_arrays(tmp_path / "g.npz")
    line = refused(tmp_path, name, "--task", grey, "--resolution", 32)
    assert "the images have 1 channel (grey), and the network takes 3 channels (colour)" in line


def test_the_help_says_what_a_stranger_asks() -> None:
    told = " ".join(edgewright("adapt", "--help").stdout.split())
    for words in (
        "memory budget",
        "ceilings are of one training step",
        "activations kept for the backward pass",
        "timm:NAME",
        "--dry-run",
    ):
        assert words in told
