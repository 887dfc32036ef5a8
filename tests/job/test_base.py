"""The walk that carries out any job, on one that counts in three stages: what a kill leaves, what goes on."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgewright.core.data import Frozen, read_json
from edgewright.core.errors import BadInput, DeviceLost, GateFailed
from edgewright.core.run import RunFolder
from edgewright.core.study import Study
from edgewright.job.base import Beginning, Ground, Job, Run, Stage, perform, resume


class Counting(Frozen):
    """Count to `to`, in three stages of as many steps."""

    to: int
    minutes: float | None = None


class Counted(Frozen):
    total: int
    steps: int


@dataclass
class Abacus(Ground):
    """done: steps of this process."""

    done: int = 0


def step(run: Run[Abacus], name: str) -> int:
    """One stage: as many steps as asked, each noted; those that are known are not done again."""
    for number in range(run.ground.plan.to):
        if run.study.read_note(f"{name}{number}") is None:
            run.ground.done += 1
            run.study.note(f"{name}{number}", 1)
            Count.after_each(run.ground.done)
    return run.ground.plan.to


class Count(Job[Counting, Abacus, Counted]):
    plan_file = "count_plan.json"
    result_file = "counted.json"
    stages = (
        Stage("one", lambda run, state: step(run, "one")),
        Stage("two", lambda run, state: state + step(run, "two")),
        Stage("three", lambda run, state: Counted(total=state + step(run, "three"), steps=run.ground.done)),
    )
    nothing_left_after = (GateFailed, BadInput)
    hopeless = (GateFailed,)

    @staticmethod
    def after_each(done: int) -> None:
        pass

    def read_plan(self, folder: RunFolder) -> Counting:
        path = folder.path / self.plan_file
        if not path.exists():
            raise BadInput(f"{folder.path}: nothing is counted here")
        return Counting.parse(read_json(path), str(path))

    def read_result(self, folder: RunFolder) -> Counted:
        return Counted.parse(read_json(folder.path / self.result_file), "")

    def survey(self, plan: Counting, start: Beginning) -> Abacus:
        return Abacus(plan)

    def report(self, run: Run[Abacus], result: Counted) -> None:
        run.folder.report.write_text(f"{result.total}")


def cut_at(monkeypatch: pytest.MonkeyPatch, number: int, error: type[BaseException] = KeyboardInterrupt) -> None:
    def cut(done: int) -> None:
        if done == number:
            raise error("not so")

    monkeypatch.setattr(Count, "after_each", staticmethod(cut))


def test_stages_follow_each_other_and_a_finished_job_gives_its_result_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert perform(Count(), Counting(to=4), out) == Counted(total=12, steps=12)
    (out / "study.db").unlink()  # nothing is looked up, let alone done
    assert resume(Count(), out) == Counted(total=12, steps=12)
    with pytest.raises(BadInput, match="holds a run of edgewright count; choose another folder"):
        perform(Count(), Counting(to=4), out)


@pytest.mark.parametrize("number", [1, 4, 5, 11, 12])
def test_cut_anywhere_it_goes_on_with_what_is_left(number: int, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        cut_at(patch, number)
        with pytest.raises(KeyboardInterrupt):
            perform(Count(), Counting(to=4), tmp_path / "out")
    assert resume(Count(), tmp_path / "out") == Counted(total=12, steps=12 - number)


def test_a_report_that_is_missing_is_made_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    found = perform(Count(), Counting(to=2), tmp_path / "out")
    RunFolder(tmp_path / "out").report.unlink()
    cut_at(monkeypatch, 1)
    assert resume(Count(), tmp_path / "out") == found
    assert RunFolder(tmp_path / "out").report.read_text() == "6"


@pytest.mark.parametrize(
    ("error", "first", "again"), [(GateFailed, False, False), (BadInput, False, True), (DeviceLost, True, True)]
)
def test_what_an_error_leaves(error, first: bool, again: bool, tmp_path: Path, monkeypatch) -> None:
    """Of a new job nothing where there is nothing to keep; of one that had begun, only where it is hopeless."""
    out, cut = tmp_path / "out", tmp_path / "cut"
    out.mkdir()
    (out / "mine.txt").touch()
    with monkeypatch.context() as patch:
        cut_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            perform(Count(), Counting(to=2), cut)
    cut_at(monkeypatch, 2, error)
    with pytest.raises(error, match="not so"):
        perform(Count(), Counting(to=2), out)
    with pytest.raises(error, match="not so"):
        resume(Count(), cut)
    left = {path.name for path in out.iterdir()} - {".lock"}
    assert "mine.txt" in left and (left != {"mine.txt"}) is first
    assert (cut / Count.plan_file).exists() is again


def test_what_cannot_be_surveyed_makes_no_folder(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_):
        raise BadInput("no such data")

    monkeypatch.setattr(Count, "survey", refuse)
    with pytest.raises(BadInput, match="no such data"):
        perform(Count(), Counting(to=2), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_time_of_all_processes_counts(tmp_path: Path, monkeypatch) -> None:
    """Five seconds before it began, and what the first process took, are gone for the second."""
    with monkeypatch.context() as patch:
        cut_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            perform(Count(), Counting(to=2, minutes=1.0), tmp_path / "out", began=time.monotonic() - 5)
    left: list[float] = []
    monkeypatch.setattr(Count, "begin", lambda _, run: left.append(run.watch.left()))
    resume(Count(), tmp_path / "out", began=time.monotonic() - 7)
    assert 40 < left[0] < 48
    with Study(tmp_path / "out" / "study.db") as study:
        assert {"prepare", "one", "two", "three", "report"} == set(study.notes("seconds:"))


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    with folder.locked(), pytest.raises(BadInput, match="another process is working on this run"):
        perform(Count(), Counting(to=2), folder.path)


def test_killed_in_a_stage_by_the_system_it_goes_on(tmp_path: Path) -> None:
    """SIGKILL of a real process: what it had noted stands, and no step is done twice."""
    out = tmp_path / "out"
    code = (
        "import sys, os, signal; sys.path.insert(0, sys.argv[1]); import test_base as t\n"
        "t.Count.after_each = staticmethod(lambda done: done == 7 and os.kill(os.getpid(), signal.SIGKILL))\n"
        "t.perform(t.Count(), t.Counting(to=4), sys.argv[2])"
    )
    done = subprocess.run([sys.executable, "-c", code, os.fspath(Path(__file__).parent), os.fspath(out)], check=False)
    assert done.returncode == -signal.SIGKILL
    (out / ".counted.json.x.part").write_text("{")
    assert resume(Count(), out) == Counted(total=12, steps=5)
    assert not list(out.glob(".*.part"))
