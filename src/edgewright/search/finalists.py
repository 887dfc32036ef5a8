"""Brief training of the best candidates, by successive halving, each in its own process and from its own checkpoint."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgewright.core.pool import Pool
from edgewright.core.progress import progress, say
from edgewright.core.seed import derive
from edgewright.core.study import Study
from edgewright.search.halving import Rung, survivors
from edgewright.start.resolve import open_space
from edgewright.start.start import Start
from edgewright.task.base import Split, Task, TaskSpec
from edgewright.task.stored import read_splits, write_splits
from edgewright.train.clock import StepClock, TimeClock, steps_per_epoch
from edgewright.train.head import awaken
from edgewright.train.loop import Diverged, Running, fit, training_device
from edgewright.train.recipe import Recipe
from edgewright.train.record import Trained


@dataclass(frozen=True)
class TrainingJob:
    """One finalist's brief training, small enough to send to any process: data and checkpoint are files.

    Exactly one of `epochs` and `seconds` is given: the first depends on nothing but the seed, the second fits a limit.
    start: what the network was made of, None for fresh weights.
    """

    space: str
    spec: TaskSpec
    architecture: dict[str, Any]
    recipe: Recipe
    data: Path
    checkpoint: Path
    seed: int
    epochs: int | None
    seconds: float | None
    start: Start | None = None


def save_splits(task: Task, path: Path) -> None:
    """Write train and val, never test, where the workers find them."""
    write_splits(path, {"train": task.train, "val": task.val})


@lru_cache(maxsize=1)
def _splits(path: Path, written_ns: int, size: int) -> dict[str, Split]:
    """Once per process, as long as the file is the one that it was: another run may have the same name for its own."""
    return read_splits(path)


def splits_of(path: Path) -> dict[str, Split]:
    """The parts that `save_splits` wrote."""
    state = path.stat()
    return _splits(path, state.st_mtime_ns, state.st_size)


def train_finalist(job: TrainingJob) -> dict[str, Any]:
    """Train one finalist (in a worker process): its figure on val, how that ranks, and the figures of every epoch.

    One that diverges has none (NaN): it ranks last, and the others go on.
    """
    try:
        _, trained = briefly_trained(job)
    except Diverged as error:
        return {"val": math.nan, "rank": math.nan, "history": [], "diverged": str(error)}
    history = [record.model_dump() for record in trained.history]
    found = {"val": trained.val.value, "rank": trained.val.rank, "history": history}
    return {**found, "samples": trained.steps * job.recipe.step_samples, "speed": trained.samples_per_second}


def briefly_trained(job: TrainingJob) -> tuple[nn.Module, Trained]:
    """The job's network after its training; from its checkpoint at once where the training is done."""
    parts = splits_of(job.data)
    train, val = parts["train"], parts["val"]
    task = Task(job.spec, train, val, test=val.take(slice(0)))
    began = time.monotonic()
    space = open_space(job.space, job.spec, job.start)
    architecture = space.read(job.architecture)
    with torch.random.fork_rng():
        torch.manual_seed(derive(job.seed, "weights", architecture.key()))
        model = space.build(architecture)
    if space.learned and not job.checkpoint.exists():
        awaken(model, task, space.resolution(architecture), derive(job.seed, "head", architecture.key()))
    if job.epochs is not None:
        clock = StepClock(job.epochs * steps_per_epoch(len(train), job.recipe.step_samples))
    else:
        clock = TimeClock(max(1.0, (job.seconds or 1.0) - (time.monotonic() - began)))
    trained = fit(
        model,
        task,
        job.recipe,
        size=space.resolution(architecture),
        seed=derive(job.seed, "train", architecture.key()),
        clock=clock,
        running=Running(checkpoint=job.checkpoint, device=training_device()),
    )
    return model, trained


def halve(
    study: Study,
    workers: Pool,
    keys: Sequence[str],
    rungs: Sequence[Rung],
    job: Callable[[str, int, Rung], TrainingJob],
    after_each: Callable[[], None],
    group: Callable[[str], int] = lambda _: 0,
) -> list[str]:
    """Train `keys` rung by rung, each with fewer and longer trainings; return them all, best first.

    group: of networks that cost about as much training; the best of each enters the next rung, as networks of unlike
    cost cannot be told apart by short trainings.

    A rung that was finished before a kill is read from the study; a training that was cut goes on from its checkpoint.
    One that diverged is noted as NaN and enters no later rung: another length would hardly save it.
    """
    ranking, diverged = list(keys), set[str]()
    for index, rung in enumerate(rungs):
        phase = f"rung-{index}"
        entrants = [key for key in ranking if key not in diverged][: rung.entrants]
        known = study.notes(f"{phase}:")
        waiting = [key for key in entrants if key not in known]
        with progress(f"Training finalists {index + 1}/{len(rungs)}", total=len(waiting)) as bar:
            results = workers.imap(train_finalist, [job(key, index, rung) for key in waiting])
            for key, result in zip(waiting, results, strict=True):
                for epoch, record in enumerate(result["history"]):
                    study.record_epoch(key, phase, epoch, record)
                known[key] = {name: value for name, value in result.items() if name not in ("history", "diverged")}
                study.note(f"{phase}:{key}", known[key])
                if "diverged" in result:
                    say(f"finalist {key} is ranked last: {result['diverged']}")
                after_each()
                bar.advance()
        diverged |= {key for key in entrants if math.isnan(known[key]["rank"])}
        rest = [key for key in ranking if key not in entrants]
        ranked = survivors({key: known[key]["rank"] for key in entrants}, len(entrants)) + rest
        ranking = sorted(ranked, key=lambda key: key in diverged)
        if index + 1 < len(rungs):
            first = {group(key): key for key in reversed(ranking)}
            ranking.sort(key=lambda key: (key in diverged, first[group(key)] != key))
    return ranking
