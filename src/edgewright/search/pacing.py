"""How fast each of a few networks trains, in the processes that will train them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.core.architecture import Architecture
from edgewright.core.pool import Pool, cores
from edgewright.core.progress import progress
from edgewright.search.finalists import splits_of
from edgewright.space.base import Space
from edgewright.start.resolve import open_space
from edgewright.start.start import Start
from edgewright.task.base import Task, TaskSpec
from edgewright.train.pace import Pace, fit_pace, measured_pace
from edgewright.train.threads import keep_freed_memory, torch_threads


@dataclass(frozen=True)
class PacingJob:
    """One network to time, small enough to send to any process: the data is a file."""

    space: str
    spec: TaskSpec
    architecture: dict[str, Any]
    data: Path
    start: Start | None = None


def pace_of(job: PacingJob, threads: int = 1) -> float:
    """Seconds that a sample takes in a training step, of one core or of more."""
    keep_freed_memory()
    parts = splits_of(job.data)
    space = open_space(job.space, job.spec, job.start)
    architecture = space.read(job.architecture)
    task = Task(job.spec, parts["train"], parts["val"], parts["val"].take(slice(0)))
    with torch_threads(threads):
        return measured_pace(space.build(architecture), task, space.resolution(architecture))


def find_pace(jobs: Sequence[PacingJob], networks: Sequence[Architecture], space: Space, workers: Pool) -> Pace:
    """The law of how networks like these train here."""
    with progress("How fast networks train here", total=len(jobs)) as bar:
        seconds = []
        for found in workers.imap(pace_of, jobs):
            seconds.append(found)
            bar.advance()
    middle = sorted(range(len(jobs)), key=seconds.__getitem__)[len(jobs) // 2]
    together = seconds[middle] / pace_of(jobs[middle], cores())
    return fit_pace([space.graph(one) for one in networks], seconds, together)
