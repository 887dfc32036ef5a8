"""Which networks there could be: candidates proposed, costed and scored untrained, until count or time is up."""

from functools import partial
from pathlib import Path

from edgewright.core.architecture import Architecture
from edgewright.core.pool import Pool, pool
from edgewright.core.progress import say
from edgewright.core.seed import derive, rng
from edgewright.job.design.ground import DesignGround
from edgewright.job.design.record import Work, allotted
from edgewright.job.design.tiers import pace, tiers, told, within, worth_training
from edgewright.search.base import least
from edgewright.search.explore import Listed, Scorer, explore
from edgewright.search.resolve import make_strategy
from edgewright.search.scoring import ScoringJob, save_batches
from edgewright.space.base import Space

MOST_CANDIDATES = 4000
SPARE = 3  # networks as people build them are enough, where one is to be trained
EXAMPLES = 512  # samples that are looked at to say what has been learned already
# Proxies that are only counted cost nothing and always belong beside the one that steers.
BASELINES = ("params", "macs")


def search(run: Work, _: None) -> Pool:
    """Score candidates until the plan's count or the stage's seconds are up; the processes that did it."""
    workers = run.open.enter_context(pool(run.ground.plan.workers, run.ground.plan.ray))
    if not run.study.read_note("search_done"):
        _explore(run, workers, allotted(run)["search"])
        run.study.note("search_done", True)
    return workers


def _explore(run: Work, workers: Pool, seconds: float) -> None:
    plan, ground, watch = run.ground.plan, run.ground, run.watch
    batches, examples = (run.folder.checkpoints / f"{name}.safetensors" for name in ("batches", "examples"))
    if not batches.exists():
        save_batches(batches, ground.task.train, seed=plan.seed)
    if ground.starts and not examples.exists():
        save_batches(examples, ground.task.train, count=EXAMPLES // 64, seed=plan.seed)
    members = _worth_searching(ground)
    law = pace(run, workers)
    found = tiers(run, law)
    alone = worth_training(run, plan.finalists) == 1
    told(found, len(ground.task.train), alone)
    turns = [(member, tier) for member in members for tier in found]
    begun = watch.spent("search")
    for number, (member, tier) in enumerate(turns):
        scorer = _scorer(run, member, examples if member.learned else batches)
        excess = within(ground, law, tier)
        built = [one for one in member.classics() if law is not None and excess(one) <= 0]
        explore(run.study, Listed(built), scorer, workers, count=None, enough=lambda _: False)
        if alone and len(built) >= SPARE:
            continue
        # One space in one tier draws what it drew before there were several.
        seed = derive(plan.seed, "search", *((number,) if number else ()))
        until = begun + (seconds - begun) * (number + 1) / len(turns)
        explore(
            run.study,
            make_strategy(plan.strategy, member, excess=excess, seed=seed),
            scorer,
            workers,
            count=max(1, (plan.candidates or MOST_CANDIDATES) // len(turns)),
            enough=partial(_enough, run, until, 2 * plan.finalists // len(turns) + 1),
        )


def _enough(run: Work, until: float, fewest: int, seen: int) -> bool:
    """Whether a space has had its seconds in a tier, and some candidates."""
    return run.ground.plan.minutes is not None and run.watch.spent("search") >= until and seen >= fewest


def _scorer(run: Work, member: Space, batches: Path) -> Scorer:
    plan = run.ground.plan
    return Scorer(run.ground.costs, partial(_job, run, batches), plan.transfer if member.learned else plan.proxy)


def _worth_searching(ground: DesignGround) -> list[Space]:
    """The spaces in which some network meets the budget; there is one, or the ground would not stand."""
    draw = rng(ground.plan.seed, "worth searching")
    members = list(ground.members)
    if len(members) == 1:
        return members
    found: list[Space] = []
    for member in members:
        nearest, excess = least(member, ground.excess, draw)
        if excess <= 0:
            found.append(member)
            continue
        start = ground.start(nearest)
        told = "; ".join(ground.plan.budget.broken(ground.costs(nearest))) or "it comes too near to a ceiling"
        say(f"{start.source if start else member.name}: left out, for at its nearest to the budget {told}")
    return found


def _job(run: Work, batches: Path, architecture: Architecture) -> ScoringJob:
    ground, plan = run.ground, run.ground.plan
    start = ground.start(architecture)
    return ScoringJob(
        space=architecture.space,
        spec=ground.task.spec,
        architecture=architecture.model_dump(mode="json"),
        batches=batches,
        proxies=tuple(dict.fromkeys((ground.steer(architecture), *BASELINES))),
        seed=plan.seed,
        start=start,
    )
