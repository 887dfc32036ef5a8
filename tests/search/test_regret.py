"""Regret on a small table with values by hand, random search against its closed form."""

import itertools
import math

import numpy as np
import pytest

from edgewright.core.errors import BadInput, BudgetInfeasible
from edgewright.search.regret import EARLY_EXIT, ONE_HOT, Trials, choices, regret_curves, table_lines
from edgewright.search.resolve import strategies
from edgewright.space.table import Ceiling
from search.conftest import Listed, cost


class Rows(Listed):
    """216 architectures; row by row."""

    def __init__(self) -> None:
        super().__init__(3)

    def index(self, architecture):
        return sum(d * 6**place for place, d in enumerate(architecture.digits))


SPACE = Rows()
EVERY = [SPACE.at(row) for row in range(216)]
ACCURACY = np.array([50 + sum(3 * d**0.7 for d in a.digits) + (a.digits[0] == a.digits[2]) for a in EVERY])
LATENCY = np.array([1.0 + cost(a) for a in EVERY])


def run(names, reward="hard", workers=1, **trials):
    given = {"ceilings": [Ceiling("latency", LATENCY, 20.0)], "reward": reward, "workers": workers}
    return regret_curves(SPACE, ACCURACY, names, trials=Trials(**trials), **given)  # pyright: ignore


def test_random_search_is_the_expected_maximum_of_a_sample():
    result = run(["random"], queries=30, repeats=300)
    inside = np.sort(ACCURACY[LATENCY <= 20])[::-1]
    assert result.inside == len(inside) and result.best == inside[0]
    for queries in (1, 5, 30):
        # The best of q without replacement is the k-th best with probability C(n - k - 1, q - 1) / C(n, q).
        chances = [math.comb(len(inside) - k - 1, queries - 1) for k in range(len(inside))]
        expected = inside[0] - sum(np.array(chances) * inside) / math.comb(len(inside), queries)
        curve = result.curves["random"]
        width = curve.high[queries - 1] - curve.low[queries - 1]
        assert curve.mean[queries - 1] == pytest.approx(expected, abs=width)


def test_every_strategy_with_random_and_regret_falls():
    result = run(None, queries=25, repeats=2)
    assert set(result.curves) == set(choices()) == {*strategies(), ONE_HOT, EARLY_EXIT}
    for curve in result.curves.values():
        assert len(curve.mean) == 25 and min(curve.mean) >= 0
        assert all(later <= earlier for earlier, later in itertools.pairwise(curve.mean))
        assert curve.low[-1] <= curve.mean[-1] <= curve.high[-1]
    assert result.curves["reinforce"].state_correlation is not None
    assert len(list(table_lines(result))) == len(result.curves) + 2


def test_a_predictor_is_ahead_of_random_search():
    result = run(["linas"], queries=24, repeats=30)
    assert result.curves["linas"].mean[15] < 0.5 * result.curves["random"].mean[15]
    assert (result.curves["linas"].over_random or 0.0) < 0.5


def test_the_result_follows_from_the_seed():
    first, second = (run(["nsga2"], queries=20, repeats=7, seed=seed) for seed in (3, 4))
    again = run(["nsga2"], queries=20, repeats=7, seed=3)
    assert first.curves["nsga2"].mean == again.curves["nsga2"].mean != second.curves["nsga2"].mean
    assert type(first).model_validate_json(first.to_json()) == first


def test_several_ceilings_and_the_improvement_over_the_average_of_those_inside():
    """Every network inside is asked for, so that what is found is the best, whose improvement is known by hand."""
    energy = np.array([1.0 + 7 * a.digits[0] for a in EVERY])
    held = [Ceiling("latency", LATENCY, 20.0), Ceiling("energy", energy, 15.0)]
    whole, one = (Trials(queries=queries, repeats=repeats) for queries, repeats in ((216, 2), (1, 40)))
    found = regret_curves(SPACE, ACCURACY, ["nsga2"], ceilings=held, workers=1, trials=whole)  # pyright: ignore
    kept = ACCURACY[(LATENCY <= 20) & (energy <= 15)]
    assert 0 < len(kept) < (LATENCY <= 20).sum() and found.ceilings == {"latency": 20.0, "energy": 15.0}
    assert (found.inside, found.best, found.average) == (len(kept), kept.max(), pytest.approx(kept.mean()))
    assert found.best_improvement == pytest.approx(100 * (kept.max() / kept.mean() - 1))
    for curve in found.curves.values():
        assert curve.improvement == pytest.approx(found.best_improvement)
    poor = regret_curves(SPACE, ACCURACY, ["random"], ceilings=held, workers=1, trials=one)  # pyright: ignore
    reached = poor.best - poor.curves["random"].mean[0]
    assert poor.curves["random"].improvement == pytest.approx(100 * (reached - kept.mean()) / kept.mean())


def test_a_soft_budget_may_spend_queries_outside_and_counts_only_inside():
    soft = run(["evolution"], queries=40, repeats=5, reward="soft")
    assert soft.curves["random"].mean[-1] > run(["random"], queries=40, repeats=5).curves["random"].mean[-1]
    assert soft.best == ACCURACY[LATENCY <= 20].max()


def test_rows_that_the_table_lacks_are_never_asked():
    partial = ACCURACY.copy()
    partial[::2] = np.nan
    result = regret_curves(SPACE, partial, ["linas", "local"], workers=1, trials=Trials(queries=108, repeats=1))  # pyright: ignore
    assert result.inside == 108 and result.curves["linas"].mean[-1] == 0


def test_what_is_refused():
    with pytest.raises(BadInput, match=r"accuracy table has shape \(5,\); space vectors has 216 rows"):
        regret_curves(SPACE, ACCURACY[:5], workers=1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(BadInput, match="the soft reward needs a ceiling"):
        regret_curves(SPACE, ACCURACY, reward="soft", workers=1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(BudgetInfeasible, match=r"no network of the table keeps latency <= 0.5; the least is 1$"):
        regret_curves(SPACE, ACCURACY, ceilings=[Ceiling("latency", LATENCY, 0.5)], workers=1)  # pyright: ignore
    with pytest.raises(BadInput, match="the energy table has values that are not positive"):
        regret_curves(SPACE, ACCURACY, ceilings=[Ceiling("energy", LATENCY - 1, 0.5)], workers=1)  # pyright: ignore
    with pytest.raises(BadInput, match="unknown strategy 'magic'"):
        run(["magic"])
    with pytest.raises(BadInput, match="needs a ceiling"):
        regret_curves(SPACE, ACCURACY, [EARLY_EXIT], workers=1)  # pyright: ignore[reportArgumentType]
