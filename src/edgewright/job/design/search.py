"""Which networks there could be: candidates proposed, costed and scored untrained, until count or time is up."""

from edgewright.core.architecture import Architecture
from edgewright.core.pool import Pool, pool
from edgewright.core.seed import derive
from edgewright.job.design.record import Work, allotted
from edgewright.search.explore import Scorer, explore
from edgewright.search.resolve import make_strategy
from edgewright.search.scoring import ScoringJob, save_batches

MOST_CANDIDATES = 4000
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
    batches = run.folder.checkpoints / "batches.safetensors"
    if not batches.exists():
        save_batches(batches, ground.task.train, seed=plan.seed)
    proxies = tuple(dict.fromkeys((plan.proxy, *BASELINES)))

    def job(architecture: Architecture) -> ScoringJob:
        return ScoringJob(
            space=plan.space,
            spec=ground.task.spec,
            architecture=architecture.model_dump(mode="json"),
            batches=batches,
            proxies=proxies,
            seed=plan.seed,
        )

    strategy = make_strategy(plan.strategy, ground.space, excess=ground.excess, seed=derive(plan.seed, "search"))
    count = plan.candidates or MOST_CANDIDATES
    timed = plan.minutes is not None
    explore(
        run.study,
        strategy,
        Scorer(ground.costs, job, plan.proxy),
        workers,
        count=count,
        enough=lambda seen: timed and watch.spent("search") >= seconds and seen >= min(count, 2 * plan.finalists),
    )
