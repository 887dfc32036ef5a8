"""How finalists are trained briefly: for how long, and by what recipe."""

import math
from dataclasses import asdict

from edgewright.core.plan import Plan
from edgewright.core.study import Candidate
from edgewright.job.design.record import Work
from edgewright.job.design.tiers import known_pace, tiers
from edgewright.search.finalists import TrainingJob
from edgewright.search.halving import Rung, rungs_of_epochs, rungs_of_seconds, sizes
from edgewright.start.start import Start
from edgewright.task.base import TaskSpec
from edgewright.train.recipe import Recipe, going_on, recipe_for

TRAINING_FLOPS = 4e10  # of one core, in small convolutional networks
RANDOM = 8  # networks drawn at random that the choice is compared with, where it is


def brief_training(run: Work, candidate: Candidate, index: int, rung: Rung) -> TrainingJob:
    """A finalist's training of one rung."""
    plan, ground = run.ground.plan, run.ground
    expected = rung.epochs or epochs_in(run, rung.seconds or 0, candidate, 1)
    start = ground.start(ground.space.read(candidate.architecture))
    return TrainingJob(
        space=candidate.architecture["space"],
        spec=ground.task.spec,
        architecture=candidate.architecture,
        recipe=recipe(ground.task.spec, expected, start),
        data=run.folder.checkpoints / "data.safetensors",
        checkpoint=run.folder.checkpoints / f"rung-{index}-{candidate.key}.safetensors",
        seed=plan.seed,
        epochs=rung.epochs,
        seconds=rung.seconds,
        start=start,
    )


def epochs_in(run: Work, seconds: float, candidate: Candidate, num_cores: int) -> float:
    """How many epochs fit, by the law of training here; a guess from the MACs alone where it is not known. Good enough
    to choose how much to regularise."""
    law, ground = known_pace(run), run.ground
    share = float(num_cores) if law is None or num_cores == 1 else law.together
    if law is None:
        each = 6 * candidate.costs["macs"].value / TRAINING_FLOPS + 1e-5
    else:
        each = law.seconds(ground.space.graph(ground.space.read(candidate.architecture)))
    return seconds * share / (each * len(ground.task.train))


def recipe(spec: TaskSpec, epochs: float, start: Start | None) -> Recipe:
    """That of fresh weights, or of a network that has learned."""
    return recipe_for(spec, epochs) if start is None else going_on(spec, epochs)


def rungs_of(run: Work, num_finalists: int, num_workers: int, seconds: float) -> list[Rung]:
    """The rungs of this run, noted: a resumed training must follow its recipe even if there are fewer cores now.

    Where random networks are trained beside, their time is taken from the seconds, and a single finalist has a rung.
    """
    noted = run.study.read_note("rungs")
    if noted is not None:
        return [Rung(**rung) for rung in noted]
    plan = run.ground.plan
    entrants = max(2, num_finalists) if plan.compare_random else num_finalists
    if plan.minutes is None:
        rungs = rungs_of_epochs(entrants, plan.epochs or 1)
    else:
        # A tenth is for starting processes.
        groups = len(tiers(run, known_pace(run)))
        rungs = rungs_of_seconds(entrants, 0.9 * seconds * _for_rungs(plan, entrants, num_workers), num_workers, groups)
    run.study.note("rungs", [asdict(rung) for rung in rungs])
    return rungs


def _for_rungs(plan: Plan, entrants: int, num_workers: int) -> float:
    """The share of the time that the rungs have, each an equal part; random networks train as long as the first."""
    if not plan.compare_random:
        return 1.0
    own = len(sizes(entrants))
    return own / (own + math.ceil(RANDOM / num_workers) / math.ceil(entrants / num_workers))
