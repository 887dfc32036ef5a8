r"""What a full training will make of networks that were trained briefly, twice: the law of the last stretch.

    e(s) = e_1 (s / s_1)^-a        a = (a' + 1/2) / 2,  a' = log(e_0 / e_1) / log(s_1 / s_0), from 0 to 1

e: what is missing of a perfect figure (of a figure that falls, the figure itself), s: samples seen, by the end of a
whole schedule of that length each time. The slope of two noisy points is drawn half-way to a square root's. A large
network is behind after its brief trainings and ahead after the full one, or it is not: the minutes decide.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgewright.core.metric import Metric
from edgewright.core.pool import cores
from edgewright.core.progress import say
from edgewright.job.design.record import Work, allotted
from edgewright.job.design.tiers import known_pace

PRIOR = 0.5
WAY = 0.2  # from a guess to a perfect figure, before which nothing can be foreseen


@dataclass(frozen=True)
class Foreseen:
    """epochs: of the full training.   figure: the one that decides, on val, after it.   missing: `e` then."""

    epochs: float
    figure: float
    missing: float


def slope(first: tuple[float, float], last: tuple[float, float]) -> float:
    """a of two points (samples, missing)."""
    (s0, e0), (s1, e1) = first, last
    if min(s0, s1, e0, e1) <= 0 or s1 <= s0:
        return PRIOR
    return (min(1.0, max(0.0, math.log(e0 / e1) / math.log(s1 / s0))) + PRIOR) / 2


def foreseen(run: Work, ranking: Sequence[str]) -> list[str]:
    """The ranking with those first that were trained twice, by what a full training will make of them; said in words.

    As it was where no clock limits the run, where fewer than two networks were trained twice, and where one of them is
    hardly better than a guess yet: from there nothing can be foreseen, and who learns quickest goes on."""
    rungs = run.study.read_note("rungs", [])
    if run.ground.plan.minutes is None or len(rungs) < 2:
        return list(ranking)
    task = run.ground.task
    metric = task.kind.metric(task.spec.decides)
    guess = task.kind.guess(task.val.targets).get(metric.name)
    first, last = (run.study.notes(f"rung-{index}:") for index in (len(rungs) - 2, len(rungs) - 1))
    law = known_pace(run)
    reach = (law.together if law else float(cores())) * (run.watch.left() - allotted(run)["deploy"])
    found = {
        key: one
        for key in ranking
        if key in first and key in last and (one := _one(metric, first[key], last[key], reach, len(task.train)))
    }
    if len(found) < 2 or not all(_on_its_way(metric, last[key]["val"], guess) for key in found):
        return list(ranking)
    best = sorted(found, key=lambda key: found[key].missing)
    words = "; ".join(f"{found[key].epochs:.2g} epochs of {key[:6]}: {found[key].figure:.1f}" for key in best)
    say(f"foreseen after the full training: {words}")
    run.study.note("foreseen", {key: asdict(one) for key, one in found.items()})
    return [*best, *(key for key in ranking if key not in found)]


def _on_its_way(metric: Metric, value: float, guess: float | None) -> bool:
    """Whether a figure has gone a fifth of the way from a guesser's to a perfect one."""
    if guess is None:
        return True
    perfect = 100.0 if metric.unit == "%" and metric.higher_is_better else 0.0
    return (value - guess) * (perfect - guess) >= WAY * (perfect - guess) ** 2


def _one(
    metric: Metric, first: Mapping[str, Any], last: Mapping[str, Any], reach: float, samples: int
) -> Foreseen | None:
    if any(math.isnan(rung["rank"]) or not rung.get("speed") for rung in (first, last)):
        return None
    whole = 100.0 if metric.unit == "%" and metric.higher_is_better else 0.0
    points = [(rung["samples"], abs(whole - rung["val"])) for rung in (first, last)]
    seen = max(reach * last["speed"], points[1][0])
    missing = points[1][1] * (seen / points[1][0]) ** -slope(points[0], points[1])
    return Foreseen(seen / samples, whole - missing if whole else missing, missing)
