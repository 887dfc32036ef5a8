"""Which finalist is worth a full training: all of them trained briefly, the better ones longer."""

from dataclasses import asdict

from edgewright.core.study import Candidate
from edgewright.job.design.choose import Entrants
from edgewright.job.design.record import Work, allotted, candidates, epochs_in
from edgewright.search.finalists import TrainingJob, halve, save_splits
from edgewright.search.halving import Rung, rungs_of_epochs, rungs_of_seconds
from edgewright.train.recipe import recipe_for


def train_finalists(run: Work, entrants: Entrants) -> list[str]:
    """Successive halving; the ranking, best first. The processes end with it: the full training wants all cores."""
    with run.open.pop_all():
        ranking = run.study.read_note("ranking")
        if ranking is None:
            ranking = _halved(run, entrants, allotted(run)["finalists"])
            run.study.note("ranking", ranking)
        return ranking


def _halved(run: Work, entrants: Entrants, seconds: float) -> list[str]:
    ground, (workers, keys) = run.ground, entrants
    data = run.folder.checkpoints / "data.safetensors"
    if not data.exists():
        save_splits(ground.task, data)
    known = candidates(run)

    def job(key: str, index: int, rung: Rung) -> TrainingJob:
        return brief_training(run, known[key], index, rung)

    rungs = rungs_of(run, len(keys), workers.workers, seconds)
    return halve(run.study, workers, keys, rungs, job, run.watch.save)


def brief_training(run: Work, candidate: Candidate, index: int, rung: Rung) -> TrainingJob:
    """A finalist's training of one rung."""
    plan, ground = run.ground.plan, run.ground
    expected = rung.epochs or epochs_in(rung.seconds or 0, candidate, ground, 1)
    return TrainingJob(
        space=plan.space,
        spec=ground.task.spec,
        architecture=candidate.architecture,
        recipe=recipe_for(ground.task.spec, expected),
        data=run.folder.checkpoints / "data.safetensors",
        checkpoint=run.folder.checkpoints / f"rung-{index}-{candidate.key}.safetensors",
        seed=plan.seed,
        epochs=rung.epochs,
        seconds=rung.seconds,
    )


def rungs_of(run: Work, num_finalists: int, num_workers: int, seconds: float) -> list[Rung]:
    """The rungs of this run, noted: a resumed training must follow its recipe even if there are fewer cores now."""
    noted = run.study.read_note("rungs")
    if noted is not None:
        return [Rung(**rung) for rung in noted]
    if run.ground.plan.minutes is None:
        rungs = rungs_of_epochs(num_finalists, run.ground.plan.epochs or 1)
    else:
        rungs = rungs_of_seconds(num_finalists, 0.9 * seconds, num_workers)  # the rest is for starting processes
    run.study.note("rungs", [asdict(rung) for rung in rungs])
    return rungs
