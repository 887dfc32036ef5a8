"""Strategies on a published table: how far from the best after how many queries, with random search in every picture.

    regret(q) = best accuracy of the table inside the ceiling - best accuracy inside it among the first q queries

in percentage points, averaged over repeats that differ in the seed alone, with a bootstrap interval of that mean. A
query is one look at the table's accuracy. Costs are known beforehand, as a measured latency table makes them.

What is found in the end is also told as its relative improvement over the average network inside the ceiling,

    100 (best found - average) / average        and the most that there is,  100 (best - average) / average

Source: the table stands for training as in Ying et al. (NAS-Bench-101) and Dong and Yang, arXiv:2001.00326. Checked
against: random search's regret in closed form (the expected maximum of a sample without replacement).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewright.core.architecture import Architecture
from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput
from edgewright.core.pool import pool
from edgewright.core.progress import progress
from edgewright.core.ranking import relative_improvement
from edgewright.core.seed import derive
from edgewright.search.base import Strategy
from edgewright.search.resolve import make_strategy, resolve_strategy, strategies
from edgewright.search.reward import soft_reward
from edgewright.search.strategies.evolution import Breeding, Founders
from edgewright.search.strategies.reinforce import Reinforce, state_correlation
from edgewright.space.base import TabularSpace
from edgewright.space.table import Ceiling, inside

Array = NDArray[np.float64]
Reward = Literal["hard", "soft"]

BASELINE = "random"
EARLY_EXIT = "evolution-early-exit"  # evolution with EEEA-Net's founders: those of at most half the ceiling
ONE_HOT = "linas-one-hot"  # LINAS with the paper's encoding, to show what the facts of the wiring add
RESAMPLES = 1000
REPEATS_A_JOB = 5
SMALL = {"population": 20, "breeding": Breeding(tournament=5)}  # evolution's own 48 are for thousands of candidates


class Curve(Frozen):
    """One strategy. Lists have one value for each number of queries, from 1.

    mean, low, high: regret, percentage points, and the 95 % bootstrap interval of its mean over repeats.
    over_random: mean regret after the last query over that of random search; None where that is 0.
    best_found: share of the repeats that found the best network.   seconds: for one repeat, on one core.
    improvement: of what is found in the end over the average network inside, percent, mean over repeats.
    state_correlation: of recurrent controllers, see `reinforce.state_correlation`, mean over repeats; else None.
    """

    mean: list[float]
    low: list[float]
    high: list[float]
    over_random: float | None
    best_found: float
    seconds: float
    state_correlation: float | None
    improvement: float = 0.0


class Regret(Frozen):
    """What `regret_curves` found; `to_json` writes it.

    ceilings: by the cost's name.   inside: networks inside them.   best, average: of their accuracies, percent.
    best_improvement: of the best over the average, percent.
    """

    space: str
    ceilings: dict[str, float]
    reward: Reward
    queries: int
    repeats: int
    round_size: int
    seed: int
    inside: int
    best: float
    average: float
    best_improvement: float
    curves: dict[str, Curve]


@dataclass(frozen=True, eq=False)
class _Bench:
    """What every search needs: all of it by row of the table; NaN where the table has no row."""

    space: TabularSpace
    accuracy: Array
    ceilings: tuple[Ceiling, ...]
    inside: NDArray[np.bool_]
    reward: Reward
    features: Array
    trials: "Trials"

    @cached_property
    def share(self) -> Array | None:
        """How much of the ceiling that uses most of its own is used; None without any."""
        shares = [ceiling.values / ceiling.most for ceiling in self.ceilings]
        return np.max(shares, axis=0) if shares else None


@dataclass(frozen=True, eq=False)
class _Job:
    bench: _Bench
    strategy: str
    repeats: range


@dataclass(frozen=True)
class Trials:
    """How much is searched.

    queries: networks whose accuracy a search may look up.   repeats: searches of each strategy, from different seeds.
    round_size: networks asked for at once; the fewer, the more a strategy learns from the same queries.
    """

    queries: int = 100
    repeats: int = 100
    round_size: int = 5
    seed: int = 0


DEFAULT_TRIALS = Trials()


def regret_curves(
    space: TabularSpace,
    accuracy: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    ceilings: Sequence[Ceiling] = (),
    reward: Reward = "hard",
    trials: Trials = DEFAULT_TRIALS,
    workers: int | None = None,
) -> Regret:
    """Run strategies on a table and compare them with random search, which is always among them.

    Args:
        accuracy: percent, one for each architecture in the space's order; NaN where the table has none.
        names: strategies, as `choices()` lists them; None for all.
        ceilings: of any costs; networks above one do not count.
        reward: "hard" keeps every strategy inside the ceilings; "soft" lets it go anywhere and tells it MnasNet's
            accuracy * (cost / ceiling)^-0.07 instead, so that a query may be spent above the ceiling.
        trials: how much is searched.
        workers: processes; default one a core. The result does not depend on it, but for the seconds.
    Errors: BadInput for an unknown strategy and a table of the wrong length; BudgetInfeasible where no network of the
        table keeps the ceilings.
    """
    queries, repeats, round_size, seed = trials.queries, trials.repeats, trials.round_size, trials.seed
    bench = _bench(space, accuracy, tuple(ceilings), reward, trials)
    if repeats < 1 or queries < 1 or round_size < 1:
        raise BadInput(f"regret: queries, repeats and the round are 1 or more; got {queries}, {repeats}, {round_size}")
    chosen = _chosen(names, bench)
    jobs = [
        _Job(bench, name, range(start, min(start + REPEATS_A_JOB, repeats)))
        for start in range(0, repeats, REPEATS_A_JOB)
        for name in chosen
    ]
    runs: dict[str, list[_Run]] = {name: [] for name in chosen}
    with progress("Searching the table", total=len(jobs)) as bar, pool(workers) as processes:
        for job, found in zip(jobs, processes.imap(_run_job, jobs), strict=True):
            runs[job.strategy] += found
            bar.advance()
    accuracies = bench.accuracy[bench.inside]
    best, average = float(accuracies.max()), float(accuracies.mean())
    return Regret(
        space=space.name,
        ceilings={one.name: one.most for one in ceilings},
        reward=reward,
        queries=queries,
        repeats=repeats,
        round_size=round_size,
        seed=seed,
        inside=len(accuracies),
        best=best,
        average=average,
        best_improvement=relative_improvement(best, average),
        curves=_curves(runs, seed, best, average),
    )


def choices(*, ceiling: bool = True) -> list[str]:
    """The names that `regret_curves` takes: every strategy, LINAS on one-hot choices, and under a ceiling evolution
    with early-exit founders."""
    return [*strategies(), ONE_HOT, *([EARLY_EXIT] if ceiling else [])]


def _chosen(names: Sequence[str] | None, bench: _Bench) -> list[str]:
    known = choices(ceiling=bool(bench.ceilings))
    asked = known if names is None else [BASELINE, *names]
    for name in asked:
        if name == EARLY_EXIT and name not in known:
            raise BadInput(f"strategy {name} needs a ceiling")
        if name not in known:
            resolve_strategy(name)  # says which there are
    return list(dict.fromkeys(asked))


def _bench(
    space: TabularSpace, accuracy: ArrayLike, ceilings: tuple[Ceiling, ...], reward: Reward, trials: Trials
) -> _Bench:
    values = np.asarray(accuracy, dtype=float)
    for label, column in (("accuracy", values), *((one.name, one.values) for one in ceilings)):
        if column.shape != (len(space),):
            raise BadInput(f"the {label} table has shape {column.shape}; space {space.name} has {len(space)} rows")
    known = np.isfinite(values)
    if not known.any():
        raise BadInput("the accuracy table has no numbers")
    if reward == "soft" and not ceilings:
        raise BadInput("the soft reward needs a ceiling, its target")
    for one in ceilings:
        if not (one.values[known] > 0).all():
            raise BadInput(f"the {one.name} table has values that are not positive where there are accuracies")
    features = np.array([space.features(space.at(row)) for row in range(len(space))], dtype=float)
    return _Bench(space, values, ceilings, inside(ceilings, known), reward, features, trials)


@dataclass(frozen=True, eq=False)
class _Run:
    """One search: the regret after every query, whether the best was found, and what it took."""

    regret: Array
    seconds: float
    state_correlation: float | None


def _run_job(job: _Job) -> list[_Run]:
    return [_run(job.bench, job.strategy, repeat) for repeat in job.repeats]


def _run(bench: _Bench, name: str, repeat: int) -> _Run:
    start, trials = time.perf_counter(), bench.trials
    rows, inside = _Rows(bench.space), bench.inside
    strategy = _strategy(bench, name, rows, inside, derive(trials.seed, "regret", repeat))
    found: list[float] = []
    while len(found) < trials.queries:
        asked = strategy.ask(min(trials.round_size, trials.queries - len(found)))
        if not asked:
            break
        numbers = [rows.row(architecture) for architecture in asked]
        strategy.tell([(a, _told(bench, row)) for a, row in zip(asked, numbers, strict=True)])
        found += [float(bench.accuracy[row]) if inside[row] else -np.inf for row in numbers]
    seconds = time.perf_counter() - start
    whole = np.full(trials.queries, -np.inf)  # a strategy that ended early has what it has
    whole[: len(found)] = found
    # Before anything inside is found, the answer is no better than the worst network inside.
    best = np.maximum(np.maximum.accumulate(whole), bench.accuracy[inside].min())
    return _Run(bench.accuracy[inside].max() - best, seconds, _state_correlation(strategy, bench.space))


def _told(bench: _Bench, row: int) -> float:
    share = bench.share
    if bench.reward == "hard" or share is None:
        return float(bench.accuracy[row])
    return soft_reward(float(bench.accuracy[row]), float(share[row]), 1.0)


class _Rows:
    """Rows of architectures and back, each worked out once in a search."""

    def __init__(self, space: TabularSpace) -> None:
        self._space = space
        self._rows: dict[Architecture, int] = {}

    def row(self, architecture: Architecture) -> int:
        if architecture not in self._rows:
            self._rows[architecture] = self._space.index(architecture)
        return self._rows[architecture]


def _strategy(bench: _Bench, name: str, rows: _Rows, inside: NDArray[np.bool_], seed: int) -> Strategy:
    share = bench.share
    allowed = np.isfinite(bench.accuracy) if bench.reward == "soft" else inside

    def excess(architecture: Architecture) -> float:
        row = rows.row(architecture)
        if allowed[row]:
            return 0.0
        over = share[row] - 1 if share is not None else 1.0
        return float(over) if over > 0 else 1.0  # inside the ceilings, but not in the table

    options: Mapping[str, Any] = {}
    if name == EARLY_EXIT and share is not None:
        founding = share / 0.5 - 1
        name, options = "evolution", SMALL | {"founders": Founders(lambda a: float(founding[rows.row(a)]))}
    elif name == ONE_HOT:
        name, options = "linas", {"features": _one_hot(bench.space)}
    elif name == "evolution":
        options = SMALL
    elif name == "nsga2" and share is not None:
        options = {"cost": lambda a: float(share[rows.row(a)])}
    elif name == "linas":
        options = {"features": lambda a: bench.features[rows.row(a)]}
    return make_strategy(name, bench.space, excess=excess, seed=seed, **options)


def _one_hot(space: TabularSpace) -> Callable[[Architecture], list[float]]:
    places = [(place, value) for place, count in enumerate(space.choices()) for value in range(count)]

    def features(architecture: Architecture) -> list[float]:
        vector = space.encode(architecture)
        return [float(vector[place] == value) for place, value in places]

    return features


def _state_correlation(strategy: Strategy, space: TabularSpace) -> float | None:
    if not isinstance(strategy, Reinforce):
        return None
    random = Random(0)
    vectors = {tuple(space.encode(space.sample(random))) for _ in range(200)}
    return state_correlation(strategy.controller, sorted(vectors))


def _curves(runs: dict[str, list[_Run]], seed: int, best: float, average: float) -> dict[str, Curve]:
    regrets = {name: np.stack([run.regret for run in found]) for name, found in runs.items()}
    last = regrets[BASELINE][:, -1].mean()
    curves = {}
    for name, values in regrets.items():
        low, high = _interval(values, derive(seed, "bootstrap", name))
        measured = [run.state_correlation for run in runs[name] if run.state_correlation is not None]
        curves[name] = Curve(
            mean=values.mean(axis=0).tolist(),
            low=low.tolist(),
            high=high.tolist(),
            over_random=float(values[:, -1].mean() / last) if last > 0 else None,
            best_found=float((values[:, -1] <= 1e-9).mean()),
            seconds=float(np.mean([run.seconds for run in runs[name]])),
            state_correlation=float(np.mean(measured)) if measured else None,
            improvement=relative_improvement(best - float(values[:, -1].mean()), average),
        )
    return dict(sorted(curves.items(), key=lambda item: item[1].mean[-1]))


def _interval(values: Array, seed: int) -> tuple[Array, Array]:
    """95 % bootstrap interval of the mean over rows, for each column."""
    repeats = len(values)
    counts = np.random.default_rng(seed).multinomial(repeats, np.full(repeats, 1 / repeats), size=RESAMPLES)
    low, high = np.percentile(counts @ values / repeats, [2.5, 97.5], axis=0)
    return low, high


def table_lines(result: Regret, at: Sequence[int] = (10, 25, 50, 100)) -> Iterator[str]:
    """The result as lines of a Markdown table, best first."""
    shown = [query for query in at if query <= result.queries]
    heads = [f"after {query}" for query in shown]
    others = ["over average", "of random's", "found the best", "s a search", "state corr."]
    yield "| strategy | " + " | ".join([*heads, *others]) + " |"
    yield "|---" * (1 + len(heads) + len(others)) + "|"
    for name, curve in result.curves.items():
        cells = [f"{curve.mean[query - 1]:.3f}" for query in shown]
        cells[-1] += f" [{curve.low[shown[-1] - 1]:.3f}, {curve.high[shown[-1] - 1]:.3f}]"
        cells += [
            f"{curve.improvement:+.2f} %",
            _written(curve.over_random, ".2f"),
            f"{curve.best_found:.0%}",
            f"{curve.seconds:.2f}",
        ]
        yield f"| {name} | " + " | ".join([*cells, _written(curve.state_correlation, ".2f")]) + " |"


def inside_words(result: Regret) -> str:
    """How many networks are inside, what an average one is worth and what the best, for people."""
    return (
        f"{result.inside:,} networks are inside, {result.average:.2f} % on average; best possible: "
        f"{result.best:.2f} %, {result.best_improvement:+.2f} % over the average"
    )


def _written(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
