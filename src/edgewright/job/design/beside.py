"""What the search is worth: its choice beside networks drawn at random inside the budget, trained as briefly.

    relative improvement = 100 (chosen - average of the random ones) / average

Of the figure that decides, on val, after the first and shortest of the finalists' trainings; percent, and above 0 where
the choice is better, whichever way the figure goes. The choice is the best by proxy that kept the latency ceiling when
it was measured, so that no look at val chose it; it trained anyway. The random ones, `training.RANDOM` of them, keep
the budget as predicted. In a time-boxed run their time is taken from the finalists'.

Source: Yang, Esperanca, Carlucci, "NAS evaluation is frustratingly hard", ICLR 2020, arXiv:1912.12522.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

from edgewright.core.pool import Pool
from edgewright.core.progress import progress
from edgewright.core.result import BesideRandom
from edgewright.core.seed import derive
from edgewright.core.study import Candidate
from edgewright.job.design.record import Work
from edgewright.job.design.training import RANDOM, brief_training
from edgewright.search.finalists import train_finalist
from edgewright.search.halving import Rung
from edgewright.search.resolve import make_strategy


def compare_with_random(run: Work, workers: Pool, keys: Sequence[str], rung: Rung) -> None:
    """Train random networks for the finalists' first `rung`, and note how the first of `keys` compares.

    What a cut run had trained is taken from the study, and so are the finalists' own trainings.
    """
    if run.study.read_note("random") is not None:
        return
    drawn = _drawn(run)
    known = run.study.notes("random:") | run.study.notes("rung-0:")
    waiting = [one for key, one in drawn.items() if key not in known]
    with progress("Training random networks", total=len(waiting)) as bar:
        jobs = [brief_training(run, one, 0, rung) for one in waiting]
        for one, found in zip(waiting, workers.imap(train_finalist, jobs), strict=True):
            known[one.key] = {"val": found["val"], "rank": found["rank"]}
            run.study.note(f"random:{one.key}", known[one.key])
            run.watch.save()
            bar.advance()
    task = run.ground.task
    higher = task.kind.metric(task.spec.decides).higher_is_better
    figures = {key: known[key]["val"] for key in (keys[0], *drawn)}
    found = improvement(keys[0], figures, list(drawn), higher=higher)
    run.study.note("random", found.model_dump(mode="json"))


def _drawn(run: Work) -> dict[str, Candidate]:
    """Random networks that keep the budget as predicted, by key."""
    ground = run.ground
    strategy = make_strategy(
        "random", ground.space, excess=ground.excess, seed=derive(ground.plan.seed, "compare-random")
    )
    found = strategy.ask(RANDOM)
    return {
        one.key(): Candidate(
            key=one.key(), architecture=one.model_dump(mode="json"), costs=ground.costs(one), scores={}
        )
        for one in found
    }


def improvement(key: str, figures: Mapping[str, float], drawn: Sequence[str], *, higher: bool) -> BesideRandom:
    """The comparison. figures: by key, NaN where a training diverged, which is left out.   higher: whether more of it
    is better."""
    random = [figures[one] for one in drawn if not math.isnan(figures[one])]
    average = statistics.fmean(random) if random else math.nan
    best = (max if higher else min)(random, default=math.nan)
    sign = 1 if higher else -1

    def over(figure: float) -> float | None:
        share = 100 * sign * (figure - average) / abs(average) if average else math.nan
        return share if math.isfinite(share) else None

    def finite(figure: float) -> float | None:
        return figure if math.isfinite(figure) else None

    return BesideRandom(
        key=key,
        networks=len(random),
        chosen=finite(figures[key]),
        average=finite(average),
        best=finite(best),
        improvement=over(figures[key]),
        best_improvement=over(best),
    )
