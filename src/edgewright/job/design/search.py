"""Which networks there could be: candidates proposed, costed and scored untrained, until count or time is up."""

from functools import partial
from pathlib import Path

from edgewright.core.architecture import Architecture
from edgewright.core.pool import Pool, pool
from edgewright.core.seed import derive, rng
from edgewright.job.design.ground import DesignGround
from edgewright.job.design.record import Work, allotted
from edgewright.search.base import least
from edgewright.search.explore import Scorer, explore
from edgewright.search.resolve import make_strategy
from edgewright.search.scoring import ScoringJob, save_batches
from edgewright.space.base import Space

MOST_CANDIDATES = 4000
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
    timed, members = plan.minutes is not None, _worth_searching(ground)
    count = max(1, (plan.candidates or MOST_CANDIDATES) // len(members))
    for number, member in enumerate(members, 1):
        # One space alone, and the fresh networks among several, draw what they drew before there were several.
        seed = derive(plan.seed, "search", *(() if not member.learned else (number,)))
        fewest = min(count, 2 * plan.finalists // len(members) + 1)

        def enough(seen: int, until: float = seconds * number / len(members), fewest: int = fewest) -> bool:
            return timed and watch.spent("search") >= until and seen >= fewest

        explore(
            run.study,
            make_strategy(plan.strategy, member, excess=ground.excess, seed=seed),
            Scorer(
                ground.costs,
                partial(_job, run, examples if member.learned else batches),
                plan.transfer if member.learned else plan.proxy,
            ),
            workers,
            count=count,
            enough=enough,
        )


def _worth_searching(ground: DesignGround) -> list[Space]:
    """The spaces in which some network meets the budget; there is one, or the ground would not stand."""
    draw = rng(ground.plan.seed, "worth searching")
    members = list(ground.members)
    return members if len(members) == 1 else [one for one in members if least(one, ground.excess, draw)[1] <= 0]


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
