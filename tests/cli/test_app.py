"""The command line as a person meets it: exit codes, one clear line, nothing half-written."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from edgewright import __version__, cli
from edgewright.cli.app import app
from edgewright.core.result import Metrics, Result
from edgewright.job.design.run import guesswork
from edgewright.task.assemble import Described, assemble
from edgewright.task.base import Split, Wishes


def edgewright(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def refused(tmp_path, *arguments: str, code: int = 2) -> str:
    """Run a design that must be refused; returns its one line, and sees that nothing was written."""
    out = tmp_path / "run"
    result = edgewright("design", *arguments, "--out", str(out))
    assert result.exit_code == code, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert not out.exists()
    return lines[0]


def write_arrays(path, **changes):
    generator = np.random.default_rng(0)
    arrays = {
        "x_train": generator.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8),
        "y_train": np.arange(40) % 4,
        "x_test": generator.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8),
        "y_test": np.arange(12) % 4,
    }
    np.savez(path, **{**arrays, **changes})
    return f"arrays:{path}"


def write_images(folder, classes=("daisy", "rose"), count=6):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng(index).integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def test_no_budget(tmp_path):
    assert "no budget given" in refused(tmp_path, "--task", "digits")


def test_no_task(tmp_path):
    assert "--task" in refused(tmp_path, "--macs", "1e6")


def test_an_impossible_budget_says_the_least_and_which_ceiling(tmp_path):
    line = refused(tmp_path, "--task", "digits", "--macs", "10", "--size-mb", "100", code=3)
    assert "macs ceiling of 10 MACs cannot be met" in line
    assert "the least this space can do" in line


@pytest.mark.parametrize("option", ["--device", "--space", "--proxy", "--strategy"])
def test_an_unknown_name_lists_the_choices(tmp_path, option):
    line = refused(tmp_path, "--task", "digits", "--macs", "1e6", option, "nonsense")
    assert "nonsense" in line
    assert "choose from" in line


def test_an_unknown_task(tmp_path):
    assert "nonsense" in refused(tmp_path, "--task", "nonsense", "--macs", "1e6")


def test_a_task_from_python_says_how_to_go_on(tmp_path):
    assert "edgewright.resume(" in refused(tmp_path, "--task", "dataset", "--macs", "1e6")


@pytest.mark.parametrize(
    ("counts", "figures", "learned"),
    [
        ((200, 200, 200), (33.3, 33.3, 16.7), False),
        ((200, 200, 200), (50.0, 50.0, 49.0), True),
        ((570, 20, 10), (95.0, 33.3, 32.5), False),  # says the commonest class, always
        ((570, 20, 10), (95.2, 60.0, 66.0), True),
        ((570, 20, 10), (95.0,), False),  # of a run of version 0.1 accuracy is known, and no more
        ((200, 200, 200), (50.0,), True),
    ],
)
def test_a_network_that_only_guesses_is_remarked_on(counts, figures, learned):
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    part = Split(torch.zeros(600, 1, 8, 8), targets)
    found = Described(name="n", source="s", names=("a", "b", "c"), flip=False)
    task = assemble(found, Wishes(), train=part, val=part, test=part)
    names = ("accuracy", "balanced_accuracy", "macro_f1")[: len(figures)]
    test = dict(zip(names, figures, strict=True))
    remark = guesswork(task, Result.model_construct(metrics=Metrics(decides="accuracy", test=test, val=test)))
    if learned:
        assert remark is None
    else:
        assert remark is not None and "hardly more than a guess" in remark
        assert f"accuracy {figures[0]:.2f} % where a guesser has {100 * max(counts) / 600:.1f}" in remark


def test_a_missing_folder(tmp_path):
    assert "nowhere" in refused(tmp_path, "--task", f"images:{tmp_path / 'nowhere'}", "--macs", "1e6")


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty" in refused(tmp_path, "--task", f"images:{tmp_path / 'empty'}", "--macs", "1e6")


def test_one_class(tmp_path):
    folder = write_images(tmp_path / "one", classes=("daisy",))
    assert "class" in refused(tmp_path, "--task", f"images:{folder}", "--macs", "1e6")


@pytest.mark.parametrize(("text", "written"), [("24", 24), ("20x36", [20, 36]), ("20 X 36", [20, 36])])
def test_a_resolution_is_a_side_or_height_and_width(tmp_path, text, written):
    folder = write_images(tmp_path / "flowers")
    asked = ("design", "--task", f"images:{folder}", "--macs", "1e6", "--dry-run", "--json")
    result = edgewright(*asked, "--resolution", text)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["resolution"] == written


@pytest.mark.parametrize("text", ["big", "20x", "20x30x40", "-3", "4", "20x600"])
def test_a_resolution_that_is_none(tmp_path, text):
    assert "resolution" in refused(tmp_path, "--task", "digits", "--macs", "1e6", f"--resolution={text}")


def test_a_truncated_image_is_named_and_can_be_skipped(tmp_path):
    folder = write_images(tmp_path / "flowers", count=12)
    broken = folder / "rose" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    line = refused(tmp_path, "--task", f"images:{folder}", "--macs", "1e6")
    assert "3.png" in line
    assert "--skip-bad" in line
    skipped = edgewright("design", "--task", f"images:{folder}", "--macs", "1e-3", "--skip-bad", "1", "--out", "x")
    assert skipped.exit_code == 3  # past the images, on to the budget


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_train": np.arange(39) % 4}, "y_train"),
        ({"y_test": np.full(12, -1)}, "y_test"),
        ({"y_train": np.linspace(0, 1, 40)}, "y_train"),
        ({"x_train": np.full((40, 8, 8, 3), np.nan, dtype=np.float32)}, "NaN"),
        ({"x_test": np.zeros((12, 9, 9, 1), dtype=np.uint8)}, "x_test"),
    ],
)
def test_bad_arrays_are_named(tmp_path, changes, words):
    source = write_arrays(tmp_path / "a.npz", **changes)
    assert words in refused(tmp_path, "--task", source, "--macs", "1e6")


def test_pickled_arrays_are_refused(tmp_path):
    source = write_arrays(tmp_path / "a.npz", x_train=np.array([{"a": 1}] * 40, dtype=object))
    assert "a.npz" in refused(tmp_path, "--task", source, "--macs", "1e6")


def test_images_left_out_are_named(tmp_path):
    folder = write_images(tmp_path / "flowers", count=12)
    for name in ("daisy/1.png", "rose/3.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:200])
    (folder / "rose" / "4.png").write_text("no image")
    line = refused(tmp_path, "--task", f"images:{folder}", "--macs", "1e6", "--skip-bad", "2")
    assert "3 unreadable or truncated image files, more than the 2" in line
    assert all(name in line for name in ("1.png", "3.png", "4.png"))
    result = edgewright("design", "--task", f"images:{folder}", "--macs", "1e6", "--skip-bad", "3", "--dry-run")
    assert result.exit_code == 0
    assert "left out 3 unreadable" in result.stderr
    assert "rose/4.png" in result.stderr


def test_an_unknown_key_in_a_plan_gets_the_nearest(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("task: digits\nbudgett: {macs: 1000000}\n")
    line = refused(tmp_path, "--config", str(plan), "--macs", "1e6")
    assert "unknown key 'budgett'; did you mean 'budget'?" in line


def test_a_misspelt_budget_is_told_before_a_missing_one(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("task: digits\nbuget: {macs: 1000000}\n")
    assert "unknown key 'buget'; did you mean 'budget'?" in refused(tmp_path, "--config", str(plan))


def test_a_folder_as_a_plan(tmp_path):
    assert "cannot be read" in refused(tmp_path, "--config", str(tmp_path))


def test_an_unknown_ceiling_in_a_plan_gets_the_nearest(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("task: digits\nbudget: {latency: 1}\n")
    assert "unknown key 'budget.latency'; did you mean 'latency_ms'?" in refused(tmp_path, "--config", str(plan))


def test_a_plan_that_builds_objects_is_refused(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"task: !!python/object/apply:pathlib.Path.touch ['{tmp_path / 'HACKED'}']\n")
    assert "not valid YAML" in refused(tmp_path, "--config", str(plan))
    assert not (tmp_path / "HACKED").exists()


def test_a_plan_names_its_data_from_the_root(tmp_path, monkeypatch):
    write_arrays(tmp_path / "a.npz")
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "plan.yaml").write_text("task: arrays:a.npz\nbudget: {macs: 1.0e+6}\n")
    monkeypatch.chdir(tmp_path)  # relative to where the command is run, not to the plan
    for source in (("--config", "plans/plan.yaml"), ("--task", "arrays:a.npz", "--macs", "1e6")):
        result = edgewright("design", *source, "--dry-run", "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["task"] == f"arrays:{tmp_path / 'a.npz'}"


def test_version():
    assert edgewright("--version").stdout == f"edgewright {__version__}\n"


def test_options_override_the_plan_file(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("task: digits\nseed: 1\nminutes: 2\nbudget: {macs: 1.0e+6, size_mb: 1}\n")
    result = edgewright("design", "--config", str(plan), "--seed", "7", "--macs", "2e6", "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    resolved = json.loads(result.stdout)
    assert (resolved["seed"], resolved["minutes"]) == (7, 2)
    assert resolved["budget"]["macs"] == 2e6
    assert resolved["budget"]["size_mb"] == 1


def test_a_folder_that_holds_another_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.yaml").write_text("task: digits\nbudget: {macs: 1}\n")
    result = edgewright("design", "--task", "digits", "--macs", "1e6", "--out", str(tmp_path / "run"))
    assert result.exit_code == 2
    assert "holds another run" in result.stderr
    assert "--resume" in result.stderr


def test_a_run_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    result = edgewright("design", "--task", "digits", "--macs", "1e6", "--out", str(tmp_path / "file" / "run"))
    assert result.exit_code == 2
    assert f"{tmp_path / 'file'}: is a file, not a folder" in result.stderr


def test_a_folder_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    assert "no permission" in refused(tmp_path, "--task", "digits", "--macs", "1e6")


@pytest.mark.parametrize("words", [["nosuch"], ["design", "--latencyms", "3"], ["bench", "x", "--runs", "20"]])
def test_a_wrong_word_gets_one_line(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["edgewright", *words, "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert ended.value.code == json.loads(told.out)["exit_code"] == 2
    assert told.err.startswith("edgewright: ")
    assert told.err.count("\n") == 1


def test_nothing_asked_shows_the_commands(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["edgewright"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "predict" in capsys.readouterr().err


def test_an_interruption_names_the_run_only_if_there_is_one(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgewright.job.design.run.run", interrupted)
    options = ("design", "--task", "digits", "--macs", "1e6", "--out", str(tmp_path))
    result = edgewright(*options)
    assert (result.exit_code, "--resume" in result.stderr) == (130, False)
    (tmp_path / "plan.yaml").write_text("")
    result = edgewright(*options)
    assert (result.exit_code, f"--resume {tmp_path}" in result.stderr) == (130, True)


@pytest.mark.parametrize("command", [["design", "--resume"], ["bench"]])
def test_what_is_not_a_run_folder(tmp_path, command):
    result = edgewright(*command, str(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert "no such run folder" in result.stderr


def test_errors_are_json_too(tmp_path):
    result = edgewright("design", "--task", "digits", "--json", "--out", str(tmp_path / "x"))
    assert json.loads(result.stdout)["exit_code"] == result.exit_code == 2


@pytest.mark.parametrize("command", ["devices", "spaces", "proxies", "strategies"])
def test_catalogues_name_their_sources(command):
    assert edgewright(command).exit_code == 0
    entries = json.loads(edgewright(command, "--json").stdout)
    assert entries
    assert all(entry["name"] and entry["summary"] and entry["source"] for entry in entries)


LOUD = """
import os, sys
from edgewright.cli.app import app, guarded
from edgewright.core.errors import BadInput

@app.command("loud")
@guarded
def loud(as_json: bool = True, bad: bool = False) -> None:
    os.write(1, b"a library, from C\\n")
    print("{}")
    if bad:
        raise BadInput("no good")

sys.argv = ["edgewright", "loud", *sys.argv[1:]]
from edgewright.cli import main
main()
"""


@pytest.mark.parametrize(
    ("options", "printed"), [([], "{}\n"), (["--bad"], '{}\n{"error": "no good", "exit_code": 2}\n')]
)
def test_stdout_holds_the_result_and_nothing_that_libraries_write(options, printed):
    run = subprocess.run([sys.executable, "-c", LOUD, *options], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2 if options else 0, printed)
    assert "a library, from C" in run.stderr
