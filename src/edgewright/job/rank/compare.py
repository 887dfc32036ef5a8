"""What a ranking asks, and the statistics that answer it: every score of the sampled networks against every table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from edgewright.core.data import Frozen
from edgewright.core.ranking import as_table, band_mean, between, over_seeds, relative_improvement, stand, within_bands
from edgewright.job.rank.plan import RankPlan
from edgewright.proxy.resolve import proxies as known_proxies
from edgewright.space.base import TabularSpace
from edgewright.space.table import Table


class RankResult(Frozen):
    """What came out; `rank.json` is this.

    proxies: by name, for the first table: spearman, kendall, top1_accuracy, ..., intervals (95 %), band_spearman and
    band_kendall (mean within ten narrow bands of MACs), seconds (a network, alone, one thread), or `missing`: why.
    With several weight seeds, where the score depends on them, also seed_spearman, of each seed alone, and
    seed_interval, 95 % of `spearman` over networks and seeds together; `intervals` are over networks.
    relative_improvement, best_improvement: of the accuracy of what it picks, and of the best there is, over the average
    of the sample, percent.   tables: the same by table, then by proxy.   between: Spearman between proxies, rows and
    columns in `names` order.
    """

    schema_: int = Field(default=1, alias="schema")
    space: str
    sample: int
    seed: int
    seconds: float
    weight_seeds: int = 1
    proxies: dict[str, dict[str, Any]]
    tables: dict[str, dict[str, dict[str, Any]]]
    names: tuple[str, ...]
    between: tuple[tuple[float | None, ...], ...]
    average_accuracy: dict[str, float]
    best_accuracy: dict[str, float]
    best_improvement: dict[str, float] = Field(default_factory=dict)


def truths_of(plan: RankPlan, tables: Sequence[Table], rows: Sequence[int]) -> dict[str, np.ndarray]:
    """What every table says of the sampled networks, by the table as it was asked for."""
    return {spelled: table.at(rows) for spelled, table in zip(plan.tables, tables, strict=True)}


def compare(
    plan: RankPlan,
    space: TabularSpace,
    tables: Sequence[Table],
    rows: Sequence[int],
    scores: Mapping[str, np.ndarray],
    seconds: Mapping[str, float],
    took: float,
) -> RankResult:
    """The statistics of every score on every table; scores (networks,), or (seeds, networks)."""
    every = known_proxies()
    lower = {name for name, proxy in every.items() if not proxy.higher_is_better}
    signed = {name: -values if name in lower else values for name, values in scores.items()}
    macs = one_each(np.asarray(scores["macs"], dtype=float))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    truths = truths_of(plan, tables, rows)
    for spelled, truth in truths.items():
        found[spelled] = {}
        for name, values in signed.items():
            standing = _standing(values, truth, macs, plan)
            if np.isnan(values).all():  # not a bad score: none at all, and the proxy says why
                why = every[name].undefined(space.build(space.at(rows[0])))
                standing = {"missing": why or "no value for any of these networks"}
            found[spelled][name] = {**standing, "seconds": seconds.get(name)}
    names, matrix = between({name: one_each(values) for name, values in signed.items()})
    return RankResult(
        space=plan.space,
        sample=len(rows),
        seed=plan.seed,
        seconds=took,
        weight_seeds=plan.weight_seeds,
        proxies=found[plan.tables[0]],
        tables=found,
        names=tuple(names),
        between=tuple(tuple(None if np.isnan(x) else float(x) for x in line) for line in matrix),
        average_accuracy={spelled: float(truth.mean()) for spelled, truth in truths.items()},
        best_accuracy={spelled: float(truth.max()) for spelled, truth in truths.items()},
        best_improvement={
            spelled: relative_improvement(float(truth.max()), float(truth.mean())) for spelled, truth in truths.items()
        },
    )


def _standing(values: np.ndarray, truth: np.ndarray, macs: np.ndarray, plan: RankPlan) -> dict[str, Any]:
    """How one score, higher is better, orders one table."""
    one = one_each(values)
    standing = as_table(stand(one, truth, resamples=plan.resamples, seed=plan.seed))
    if "missing" in standing:
        return standing
    bands = within_bands(one, truth, macs)
    standing |= {"band_spearman": band_mean(bands), "band_kendall": band_mean(bands, "kendall")}
    if values.ndim == 2 and not all(np.array_equal(line, values[0], equal_nan=True) for line in values):
        each, interval = over_seeds(values, truth, resamples=plan.resamples, seed=plan.seed)
        standing["seed_spearman"] = each
        standing |= {"seed_interval": list(interval)} if plan.resamples else {}
    return standing


def one_each(values: np.ndarray) -> np.ndarray:
    """One score a network: the mean over the seeds, where there are some."""
    return values.mean(axis=0) if values.ndim == 2 else values
