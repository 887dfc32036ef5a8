"""Which finalist is worth a full training: all of them trained briefly, the better ones longer."""

from edgewright.job.design.beside import compare_with_random
from edgewright.job.design.choose import Entrants
from edgewright.job.design.foresee import foreseen
from edgewright.job.design.record import Work, allotted, architecture_of, candidates
from edgewright.job.design.tiers import known_pace, place, tiers
from edgewright.job.design.training import brief_training, rungs_of
from edgewright.search.finalists import TrainingJob, halve, save_splits
from edgewright.search.halving import Rung


def train_finalists(run: Work, entrants: Entrants) -> list[str]:
    """Successive halving; the ranking, best first. The processes end with it: the full training wants all cores."""
    with run.open.pop_all():
        ranking = run.study.read_note("ranking")
        rungs = rungs_of(run, len(entrants.keys), entrants.workers.workers, allotted(run)["finalists"])
        data = run.folder.checkpoints / "data.safetensors"
        if not data.exists():
            save_splits(run.ground.task, data)
        if ranking is None:
            ranking = foreseen(run, _halved(run, entrants, rungs))
            run.study.note("ranking", ranking)
        if run.ground.plan.compare_random:
            compare_with_random(run, entrants.workers, entrants.keys, rungs[0])
        return ranking


def _halved(run: Work, entrants: Entrants, rungs: list[Rung]) -> list[str]:
    known = candidates(run)

    def job(key: str, index: int, rung: Rung) -> TrainingJob:
        return brief_training(run, known[key], index, rung)

    law = known_pace(run)
    found = tiers(run, law)

    def tier(key: str) -> int:
        return place(run, law, found, architecture_of(run, key))

    return halve(run.study, entrants.workers, entrants.keys, rungs, job, run.watch.save, group=tier)
