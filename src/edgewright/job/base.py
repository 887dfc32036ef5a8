"""What a job is, and the one walk that carries out any.

    plan -> survey -> folder, notes -> stage -> stage -> ... -> result -> report

A job says how its plan becomes the ground that it stands on, which stages it goes through, and what it reports. The
walk does the rest, alike for all: it refuses a folder that is taken, checks and measures before the folder is made,
holds it for one process, keeps the clock, sweeps what a killed process left half-written, goes on where that stopped,
gives a finished job's result at once, and leaves nothing behind where a job says that there is nothing to keep.

The law of a stage: it asks the run's study what is known, does the rest, and writes down what it found. So the stages
of a run that was cut are gone through again, and end as they would have.
"""

import contextlib
import json
import math
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from edgewright.core.data import Frozen
from edgewright.core.environment import environment
from edgewright.core.errors import EdgewrightError
from edgewright.core.files import write_text
from edgewright.core.run import RunFolder
from edgewright.core.stopwatch import Stopwatch
from edgewright.core.study import Study


@dataclass
class Ground:
    """What a job stands on: its plan's words turned into things, loaded and checked. Each job adds its own."""

    plan: Any


G = TypeVar("G", bound=Ground)
P = TypeVar("P", bound=Frozen)
R = TypeVar("R", bound=Frozen)


@dataclass(frozen=True)
class Run(Generic[G]):
    """A job under way. folder: where it is kept.   study: what is known.   watch: the time it has taken and has left.
    open: what is closed when the run ends, or a stage says so."""

    ground: G
    folder: RunFolder
    study: Study
    watch: Stopwatch
    open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


class Stage(NamedTuple):
    """A part of a job. do: the run and what the stage before came to, to what this one comes to."""

    name: str
    do: Callable[[Any, Any], Any]


class Begun(NamedTuple):
    """A folder to go on in, and what is known there."""

    folder: RunFolder
    study: Study


class Beginning(NamedTuple):
    """How a job begins. begun: what it goes on with, None for a new one.   began, seconds:
    `time.monotonic()` from when so many seconds count; infinite without a limit.   open: what is closed when the run
    ends."""

    begun: Begun | None
    began: float
    seconds: float
    open: contextlib.ExitStack

    def after(self, share: float) -> float:
        """`time.monotonic()` when so great a share of the time is gone."""
        return self.began + share * self.seconds


class Job(ABC, Generic[P, G, R]):
    """One job, with what its plan does not say: things handed over from Python, the number of processes.

    plan_file: what holds it is a folder of this job, and can be gone on with.   result_file: what holds it, and a
    report, is finished.   stages: in order; what the last one comes to is the result.   reports: whether it has a
    report.   nothing_left_after: errors of a job that has just begun, after which the folder is as it was before.
    hopeless: those after which it is so of one that was gone on with, too.
    """

    plan_file: ClassVar[str]
    result_file: ClassVar[str]
    stages: ClassVar[tuple[Stage, ...]]
    reports: ClassVar[bool] = True
    nothing_left_after: ClassVar[tuple[type[EdgewrightError], ...]] = ()
    hopeless: ClassVar[tuple[type[EdgewrightError], ...]] = ()

    @abstractmethod
    def read_plan(self, folder: RunFolder) -> P:
        """Errors: BadInput for a folder that holds no such job."""

    @abstractmethod
    def read_result(self, folder: RunFolder) -> R:
        """Of a finished job.   Errors: BadInput where what it handed out was altered."""

    @abstractmethod
    def survey(self, plan: P, start: Beginning) -> G:
        """Load and check all that the plan names, and measure what deciding needs. Writes nothing."""

    def begin(self, run: Run[G]) -> None:
        """Note what a job that is cut must go on from; of one that is gone on with, it is noted already."""

    def report(self, run: Run[G], result: R) -> None:
        """Write the report, and say what is to be said."""

    def tidy(self, folder: RunFolder) -> None:
        """Remove what a finished job does not need."""

    def asked_again(self, folder: RunFolder, asked: P) -> P | None:
        """The plan to go on with where a folder of this job is given again; None where only `resume` goes on.

        Errors: BadInput where another plan was begun there.
        """
        return None

    def stands(self, folder: RunFolder) -> bool:
        """Whether there is a result, and it is the one that this job would come to."""
        return (folder.path / self.result_file).exists()

    def plan_text(self, plan: P) -> str:
        return plan.to_json()


def perform(job: Job[P, G, R], plan: P, out: str | Path, *, began: float | None = None) -> R:
    """Carry out a plan in a new folder, which is made when it is known that the job can be done.

    began: `time.monotonic()` from when the minutes count, now by default.
    """
    began = time.monotonic() if began is None else began
    folder = RunFolder(Path(out))
    if (folder.path / job.plan_file).exists() and (again := job.asked_again(folder, plan)):
        return _go_on(job, folder, again, began)
    folder.check_new()
    with contextlib.ExitStack() as open_:
        ground = job.survey(plan, Beginning(None, began, _seconds(plan), open_))
        existed = folder.path.exists()
        with folder.locked(), _nothing_left(folder, job.nothing_left_after, existed=existed):
            folder.check_new()  # again: another run may have begun here meanwhile
            write_text(folder.env, json.dumps(environment(), indent=2) + "\n")
            write_text(folder.path / job.plan_file, job.plan_text(ground.plan))
            with Study(folder.study) as study:
                return _walk(job, _run(ground, folder, study, open_), time.monotonic() - began)


def resume(job: Job[P, G, R], out: str | Path, *, began: float | None = None) -> R:
    """Go on with a job that was cut; a finished one gives its result at once. began: as of `perform`."""
    began = time.monotonic() if began is None else began
    folder = RunFolder(Path(out))
    return _go_on(job, folder, job.read_plan(folder), began)


def _go_on(job: Job[P, G, R], folder: RunFolder, plan: P, began: float) -> R:
    same = plan == job.read_plan(folder)
    if same and job.stands(folder) and (folder.report.exists() or not job.reports):
        result = job.read_result(folder)
        job.tidy(folder)  # of one that was killed at its very end
        return result
    with contextlib.ExitStack() as open_, folder.locked(), Study(folder.study) as study:
        ground = job.survey(plan, Beginning(Begun(folder, study), began, _seconds(plan), open_))
        if not same:
            (folder.path / job.result_file).unlink(missing_ok=True)
            write_text(folder.path / job.plan_file, job.plan_text(plan))
        with _nothing_left(folder, job.hopeless, existed=True):
            return _walk(job, _run(ground, folder, study, open_), time.monotonic() - began)


def _seconds(plan: Frozen) -> float:
    """What the plan allows, where it has minutes; infinite without."""
    minutes = getattr(plan, "minutes", None)
    return math.inf if minutes is None else 60 * minutes


def _run(ground: G, folder: RunFolder, study: Study, open_: contextlib.ExitStack) -> Run[G]:
    seconds = _seconds(ground.plan)
    return Run(ground, folder, study, Stopwatch(study, None if math.isinf(seconds) else seconds), open_)


def _walk(job: Job[P, G, R], run: Run[G], before: float) -> R:
    """before: seconds that the survey took."""
    run.folder.sweep()
    run.watch.add("prepare", before)
    job.begin(run)
    if not job.stands(run.folder):
        state = None
        for stage in job.stages:
            with run.watch.stage(stage.name):
                state = stage.do(run, state)
        assert isinstance(state, Frozen), f"the last stage of {type(job).__name__} must come to its result"
        write_text(run.folder.path / job.result_file, state.to_json())
    result = job.read_result(run.folder)
    with run.watch.stage("report"):
        job.report(run, result)
    job.tidy(run.folder)
    return result


@contextlib.contextmanager
def _nothing_left(folder: RunFolder, errors: tuple[type[EdgewrightError], ...], *, existed: bool) -> Iterator[None]:
    """After some errors the folder is as it was before: what a job writes is taken away, and nothing else."""
    try:
        yield
    except errors:
        folder.clear()
        if not existed:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
