"""How well scores order networks: rank statistics with intervals, and with what ties and broken scores are worth.

Everywhere: `scores` (n,) higher is better, `truth` (n,) the true accuracies. A score that is NaN or minus infinity
ranks last, tied with the others like it; NaN in the truth is an error. Ties get what a random order among them would
give on average, so no statistic depends on the order of the networks. A statistic that is not defined (a score that is
the same for all) is None here and *missing* in tables, never zero.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from edgewright.core.errors import BadInput
from edgewright.core.seed import derive

Array = NDArray[np.float64]
Interval = tuple[float, float]

SHARES = (0.01, 0.05, 0.10)
_CONSTANT = "the score is the same for every network, so it ranks none"


@dataclass(frozen=True)
class Standing:
    """How one score orders one table of networks.

    Attributes:
        spearman, kendall: rank correlation with the truth (Kendall's tau-b), -1 to 1.
        precision: by share (0.01 is the best 1 %), see `precision_at`; 0 to 1.
        top1_accuracy: true accuracy, percent, of the network with the highest score; expected value over ties.
        top1_regret: best true accuracy of the table minus `top1_accuracy`, percentage points.
        relative_improvement: of `top1_accuracy` over the average network, see `relative_improvement`; percent.
        intervals: 95 % bootstrap interval of each of the above by its name (`precision_0.01` for shares).
        missing: in words why there is no value; "" where there is.
    """

    spearman: float | None = None
    kendall: float | None = None
    precision: dict[float, float] = field(default_factory=dict)
    top1_accuracy: float | None = None
    top1_regret: float | None = None
    relative_improvement: float | None = None
    intervals: dict[str, Interval] = field(default_factory=dict)
    missing: str = ""


@dataclass(frozen=True)
class Band:
    """Rank correlation among the networks whose cost lies in [low, high]; None where nothing varies inside."""

    low: float
    high: float
    count: int
    spearman: float | None
    kendall: float | None


def clean(scores: ArrayLike) -> Array:
    """Scores as float64 in which NaN is minus infinity: it ranks last."""
    values = np.asarray(scores, dtype=np.float64)
    return np.where(np.isnan(values), -np.inf, values)


def ranks(scores: ArrayLike) -> Array:
    """Ranks 1 (worst) to n; ties share their mean rank."""
    return np.asarray(stats.rankdata(clean(scores)), dtype=np.float64)


def spearman(scores: ArrayLike, truth: ArrayLike) -> float | None:
    """Correlation of the ranks, ties at their mean rank; None where either is constant. Checked against scipy."""
    a, b = ranks(scores), ranks(truth)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else None


def kendall(scores: ArrayLike, truth: ArrayLike) -> float | None:
    """Kendall's tau-b; None where either is constant. O(n log n): milliseconds for 15,625 networks.

    tau_b = (concordant - discordant) / sqrt((pairs - ties in scores) (pairs - ties in truth)).
    Checked against all pairs counted one by one.
    """
    # Ranks as whole numbers: infinities are ordinary, and sorting is quick.
    a, b = (np.unique(clean(x), return_inverse=True)[1] for x in (scores, truth))
    if a.size < 2 or a.max() == 0 or b.max() == 0:
        return None
    return float(stats.kendalltau(a, b).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def precision_at(scores: ArrayLike, truth: ArrayLike, share: float) -> float:
    """Of the best `share` of the networks by score, the part that is also among the best `share` by truth.

    k = max(1, round(share n)) networks on both sides. Where the k-th place is tied, each of the tied networks is in
    with the same probability, on both sides independently; the expected value is returned.
    """
    a, b = clean(scores), clean(truth)
    k = max(1, round(share * a.size))
    return float(_among_best(a, k) @ _among_best(b, k)) / k


def _among_best(values: Array, k: int) -> Array:
    """The probability of each network to be among the best k when ties are broken at random."""
    edge = np.partition(values, values.size - k)[values.size - k]
    above = values > edge
    tied = values == edge
    return above + tied * ((k - above.sum()) / tied.sum())


def picked_accuracy(scores: ArrayLike, truth: ArrayLike) -> float:
    """True accuracy of the network with the highest score; the mean over the networks that share it."""
    values = clean(scores)
    return float(np.asarray(truth, dtype=np.float64)[values == values.max()].mean())


def relative_improvement(accuracy: float, random_accuracy: float) -> float:
    """100 (accuracy - random_accuracy) / random_accuracy, percent.

    `random_accuracy`: mean over networks drawn at random from the space. Source: Yang, Esperanca, Carlucci,
    "NAS evaluation is frustratingly hard", ICLR 2020, arXiv:1912.12522.
    """
    return 100 * (accuracy - random_accuracy) / random_accuracy


def stand(scores: ArrayLike, truth: ArrayLike, *, resamples: int = 0, seed: int = 0) -> Standing:
    """Every statistic of one score on one table of networks.

    Args:
        scores: (n,), or (s, n) from s seeds: each statistic is then the mean over seeds.
        truth: (n,) true accuracies, percent.
        resamples: bootstrap draws for the 95 % intervals (percentile method), 0 for none. A draw takes n networks with
            replacement and, where there are several seeds, one of them: the interval says what scoring other networks
            once, with another seed, may give. 200 draws of 15,625 networks take a few seconds.
        seed: of the draws.
    Errors: BadInput for lengths that differ, fewer than three networks, or a truth that is not finite.
    """
    rows, accuracies = _checked(scores, truth)
    if any(np.ptp(np.unique(clean(row), return_inverse=True)[1]) == 0 for row in rows):
        return Standing(missing=_CONSTANT)
    found = _mean_over_seeds(rows, accuracies)
    intervals = _bootstrap(rows, accuracies, resamples, seed) if resamples else {}
    return Standing(
        spearman=found.get("spearman"),
        kendall=found.get("kendall"),
        precision={share: found[f"precision_{share}"] for share in SHARES},
        top1_accuracy=found["top1_accuracy"],
        top1_regret=found["top1_regret"],
        relative_improvement=found["relative_improvement"],
        intervals=intervals,
        missing="" if "spearman" in found else "the accuracies are the same for every network, so none is better",
    )


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float | None], count: int, *, resamples: int = 1000, seed: int = 0
) -> Interval:
    """95 % percentile interval of `statistic(indices)` over draws of `count` indices with replacement.

    Draws in which the statistic is undefined (None) are left out; (nan, nan) if it never is defined.
    """
    draw = _numpy_rng(seed)
    values = [statistic(draw.integers(0, count, count)) for _ in range(resamples)]
    return _interval([value for value in values if value is not None])


def over_seeds(
    scores: ArrayLike, truth: ArrayLike, *, resamples: int = 200, seed: int = 0
) -> tuple[list[float | None], Interval]:
    """How far the Spearman of a score that is the mean over seeds depends on these seeds and these networks.

    Args: scores: (s, n), one line a seed.   truth: (n,).
    Returns: the Spearman of each seed alone, and the 95 % percentile interval of that of the mean over seeds, where a
    draw takes n networks and s seeds, both with replacement. For few seeds it is narrow: (s - 1) / s in variance.
    Errors: BadInput as in `stand`.
    """
    rows, accuracies = _checked(scores, truth)
    draw = _numpy_rng(seed)
    found = []
    for _ in range(resamples):
        networks = draw.integers(0, accuracies.size, accuracies.size)
        seeds = draw.integers(0, len(rows), len(rows))
        found.append(spearman(rows[seeds][:, networks].mean(axis=0), accuracies[networks]))
    return [spearman(row, accuracies) for row in rows], _interval([value for value in found if value is not None])


def between(scores: Mapping[str, ArrayLike]) -> tuple[list[str], Array]:
    """Spearman correlation between every two scores: their names, and the matrix (nan where one is constant)."""
    names = list(scores)
    matrix = np.full((len(names), len(names)), np.nan)
    for i, first in enumerate(names):
        for j, second in enumerate(names[: i + 1]):
            value = spearman(scores[first], scores[second])
            matrix[i, j] = matrix[j, i] = np.nan if value is None else value
    return names, matrix


def within_bands(scores: ArrayLike, truth: ArrayLike, cost: ArrayLike, *, bands: int = 10) -> list[Band]:
    """Rank correlation inside each of `bands` narrow bands of cost (MACs), from cheap to dear.

    A score that only repeats the cost ranks nothing here. The bands hold as equal numbers of networks as is possible
    without parting networks of equal cost, so there may be fewer than `bands`.
    """
    rows, accuracies = _checked(scores, truth)
    costs = np.asarray(cost, dtype=np.float64)
    if costs.shape != accuracies.shape:
        raise BadInput(f"bands need one cost for each network; got {costs.size} for {accuracies.size} networks")
    edges = np.quantile(costs, np.linspace(0, 1, bands + 1)[1:-1], method="lower")
    place = np.searchsorted(np.unique(edges), costs, side="left")
    found = []
    for index in np.unique(place):
        inside = place == index
        pairs = [(spearman(row[inside], accuracies[inside]), kendall(row[inside], accuracies[inside])) for row in rows]
        found.append(
            Band(
                float(costs[inside].min()),
                float(costs[inside].max()),
                int(inside.sum()),
                _mean([first for first, _ in pairs]),
                _mean([second for _, second in pairs]),
            )
        )
    return found


def band_mean(bands: Sequence[Band], statistic: str = "spearman") -> float | None:
    """Mean of `spearman` or `kendall` over the bands, weighted by networks; bands without a value are left out."""
    pairs = [(band.count, getattr(band, statistic)) for band in bands if getattr(band, statistic) is not None]
    return sum(count * value for count, value in pairs) / sum(count for count, _ in pairs) if pairs else None


def as_table(standing: Standing) -> dict[str, Any]:
    """The standing as plain values for JSON; a missing one only says why."""
    if standing.missing:
        return {"missing": standing.missing}
    return {
        "spearman": standing.spearman,
        "kendall": standing.kendall,
        "top1_accuracy": standing.top1_accuracy,
        "top1_regret": standing.top1_regret,
        "relative_improvement": standing.relative_improvement,
        **{f"precision_{share}": value for share, value in standing.precision.items()},
        "intervals": {name: list(interval) for name, interval in standing.intervals.items()},
    }


def _checked(scores: ArrayLike, truth: ArrayLike) -> tuple[Array, Array]:
    rows = np.atleast_2d(clean(scores))
    accuracies = np.asarray(truth, dtype=np.float64)
    if rows.ndim != 2 or accuracies.ndim != 1 or rows.shape[1] != accuracies.size:
        raise BadInput(f"scores {rows.shape} do not match accuracies {accuracies.shape}: one score for each network")
    if accuracies.size < 3:
        raise BadInput(f"rank statistics need at least three networks; got {accuracies.size}")
    if not np.isfinite(accuracies).all():
        index = int(np.flatnonzero(~np.isfinite(accuracies))[0])
        raise BadInput(f"the accuracy of network {index} is {accuracies[index]}; remove it or repair the table")
    return rows, accuracies


def _statistics(scores: Array, truth: Array, best: float, average: float) -> dict[str, float | None]:
    picked = picked_accuracy(scores, truth)
    return {
        "spearman": spearman(scores, truth),
        "kendall": kendall(scores, truth),
        **{f"precision_{share}": precision_at(scores, truth, share) for share in SHARES},
        "top1_accuracy": picked,
        "top1_regret": best - picked,
        "relative_improvement": relative_improvement(picked, average) if average else None,
    }


def _mean_over_seeds(rows: Array, truth: Array) -> dict[str, float]:
    best, average = float(truth.max()), float(truth.mean())
    each = [_statistics(row, truth, best, average) for row in rows]
    means = {name: _mean([one[name] for one in each]) for name in each[0]}
    return {name: value for name, value in means.items() if value is not None}


def _bootstrap(rows: Array, truth: Array, resamples: int, seed: int) -> dict[str, Interval]:
    draw = _numpy_rng(seed)
    count, seeds = truth.size, len(rows)
    found: dict[str, list[float]] = {}
    for _ in range(resamples):
        networks = draw.integers(0, count, count)
        row = rows[draw.integers(seeds)]
        for name, value in _mean_over_seeds(row[None, networks], truth[networks]).items():
            found.setdefault(name, []).append(value)
    return {name: _interval(values) for name, values in found.items()}


def _interval(values: Sequence[float]) -> Interval:
    if not values:
        return math.nan, math.nan
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _numpy_rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(derive(seed, "bootstrap"))
