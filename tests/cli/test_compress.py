"""`edgewright compress` as a person meets it: exit codes, one clear line, the trade curve, nothing half-written."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from cli import commands
from cli.commands import edgewright
from edgewright.core.cost import cost
from edgewright.core.run import RunFolder
from edgewright.job.compress import run as job
from edgewright.job.compress.decide import NothingKeeps
from edgewright.job.compress.found import Trial

refused = partial(commands.refused, "compress")


def test_what_is_missing_is_said_with_the_whole_command(tmp_path: Path) -> None:
    assert "say which run: edgewright compress RUN --latency-ms X" in refused(tmp_path)
    assert "by one ceiling at least: edgewright compress RUN" in refused(tmp_path, "run")
    result = edgewright("compress", "run", "--latency-ms", "1")
    assert result.exit_code == 2 and "--out FOLDER" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--latency-ms", "0"), "latency_ms"),
        (("--size-mb", "nan"), "size_mb"),
        (("--memory-kb", "-1"), "peak_memory_kb"),
        (("--macs", "inf"), "macs"),
        (("--macs", "1e6", "--max-drop", "-1"), "'max_drop'"),
        (("--macs", "1e6", "--minutes", "0"), "'minutes': Input should be greater than 0"),
        (("--macs", "1e6", "--epochs", "0"), "'epochs'"),
        (("--macs", "1e6", "--lr", "nan"), "'lr'"),
        (("--macs", "1e6", "--threads", "0"), "'threads'"),
        (("--macs", "1e6", "--steps", "prune,squash"), "there is no step 'squash'; choose from quantise, prune, linea"),
    ],
)
def test_an_option_out_of_its_range(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    assert words in refused(tmp_path, "run", *options)


@pytest.mark.parametrize("options", [("--epochs", "2"), ("--macs", "3"), ("--dry-run",), ("--max-drop", "3")])
def test_resume_takes_no_other_options(tmp_path: Path, options: tuple[str, ...]) -> None:
    result = edgewright("compress", "--resume", tmp_path, *options)
    assert result.exit_code == 2 and "takes no other options" in result.stderr


def test_a_source_that_is_no_run(tmp_path: Path, digits_run: RunFolder) -> None:
    assert "no such run folder" in refused(tmp_path, tmp_path / "nowhere", "--macs", "1e6")
    (tmp_path / "begun").mkdir()
    RunFolder(tmp_path / "begun").path.joinpath("compress_plan.json").write_text("{}")
    line = refused(tmp_path, tmp_path / "begun", "--macs", "1e6")
    assert f"edgewright compress has not finished here; edgewright compress --resume {tmp_path / 'begun'}" in line
    (tmp_path / "empty").mkdir()
    result = edgewright("compress", "--resume", tmp_path / "empty")
    assert result.exit_code == 2 and "not a compression's folder" in result.stderr
    assert "unknown device 'toaster'" in refused(tmp_path, digits_run.path, "--macs", "1e6", "--device", "toaster")


def test_a_folder_that_holds_a_compression(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.path.joinpath("compress_plan.json").write_text("somebody's")
    for arguments in (("compress", "run"), ("adapt", "run", "--task", "digits"), ("design", "--task", "digits")):
        result = edgewright(*arguments, "--macs", "1e6", "--out", tmp_path)
        assert result.exit_code == 2
        assert (
            f"{tmp_path}: holds a run of edgewright compress; choose another folder, or edgewright compress --resume"
            in result.stderr
        )
    assert folder.path.joinpath("compress_plan.json").read_text() == "somebody's"


def test_a_run_whose_data_is_gone(tmp_path: Path, digits_run: RunFolder) -> None:
    run = RunFolder(Path(shutil.copytree(digits_run.path, tmp_path / "run")))
    run.plan.write_text(run.plan.read_text().replace("task: digits", "task: dataset"))
    assert "was given its data from Python" in refused(tmp_path, run.path, "--macs", "1e5")


def trial(name: str, ms: float, figure: float | None) -> Trial:
    costs = {
        "latency": cost("latency", ms, "measured"),
        "size": cost("size", 5000, "measured"),
        "peak_memory": cost("peak_memory", 9000, "analytic"),
        "macs": cost("macs", 3e6, "analytic"),
        "params": cost("params", 1200, "analytic"),
    }
    return Trial(name=name, type="fp32", costs=costs, figure=figure, verdict="too slow")


@pytest.mark.parametrize("as_json", [False, True])
def test_where_nothing_keeps_what_is_asked_the_trade_curve_is_printed(tmp_path, monkeypatch, as_json: bool) -> None:
    trials = (trial("as it was", 0.31, 91.25), trial("pruned, aimed at 60 %", 0.19, None))

    def run(*_, **__):
        raise NothingKeeps("nothing keeps the ceilings: nearest is 0.19 ms", trials)

    monkeypatch.setattr(job, "run", run)
    options = ("--json",) if as_json else ()
    result = edgewright("compress", "run", "--latency-ms", "0.1", "--out", tmp_path / "out", *options)
    assert result.exit_code == 3
    table = result.stderr if as_json else result.stdout
    rows = [line.split() for line in table.splitlines() if line.startswith(("as it", "pruned"))]
    assert [row[-2:] for row in rows] == [["too", "slow"]] * 2
    assert "91.25" in rows[0] and "-" in rows[1]
    assert "0.31 ms" in table and "0.19 ms" in table and " 3 M " in table
    assert "edgewright: nothing keeps the ceilings: nearest is 0.19 ms" in result.stderr
    if as_json:
        assert json.loads(result.stdout)["exit_code"] == 3


def test_dry_run_says_the_plans_and_writes_nothing(tmp_path, digits_run, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job, "learn", lambda *_: pytest.fail("it learns"))
    result = edgewright("compress", digits_run.path, "--macs", "140000", "--steps", "prune", "--dry-run", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["ready"] is False
    assert found["trials"][0]["name"] == "as it was"
    (way,) = found["ways"]
    assert way["costs"]["macs"]["value"] <= 140_000
    assert {rewrite["kind"] for rewrite in way["plan"]["rewrites"]} <= {"prune", "drop_block"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("begun", [False, True])
def test_an_interruption_names_the_command_that_goes_on(tmp_path: Path, monkeypatch, begun: bool) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "run", interrupted)
    if begun:
        RunFolder(tmp_path).path.joinpath("compress_plan.json").write_text("{}")
    result = edgewright("compress", "run", "--macs", "1e6", "--out", tmp_path)
    assert result.exit_code == 130
    assert (f"go on with: edgewright compress --resume {tmp_path}" if begun else "nothing was written") in result.stderr


def test_the_help_says_what_a_stranger_asks() -> None:
    told = " ".join(edgewright("compress", "--help").stdout.split())
    for words in (
        "--max-drop",
        "--latency-ms",
        "first rewrites that change nothing",
        "is a run again",
        "--dry-run",
        "--memory-kb",
    ):
        assert words in told
