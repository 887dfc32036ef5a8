"""Rank statistics: against scipy, against counting by hand, and with ties and broken scores."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from edgewright.core import ranking
from edgewright.core.errors import BadInput


@pytest.fixture
def table() -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, related to accuracies with ties."""
    draw = np.random.default_rng(3)
    truth = np.round(draw.normal(80, 5, 137), 0)
    return np.round(truth / 4 + draw.normal(0, 1, 137)), truth


def test_correlations_equal_scipy(table):
    assert ranking.spearman(*table) == pytest.approx(stats.spearmanr(*table)[0], abs=1e-12)
    assert ranking.kendall(*table) == pytest.approx(stats.kendalltau(*table)[0], abs=1e-12)


def test_kendall_counts_every_pair(table):
    scores, truth = table[0][:40], table[1][:40]
    both = ties_a = ties_b = pairs = 0
    for i, j in itertools.combinations(range(40), 2):
        a, b = np.sign(scores[i] - scores[j]), np.sign(truth[i] - truth[j])
        both, ties_a, ties_b, pairs = both + a * b, ties_a + (a == 0), ties_b + (b == 0), pairs + 1
    assert ranking.kendall(scores, truth) == pytest.approx(both / math.sqrt((pairs - ties_a) * (pairs - ties_b)))


def test_nan_and_infinity_rank_last_and_tie():
    truth = [10.0, 20.0, 30.0, 40.0, 50.0]
    assert list(ranking.ranks([math.nan, 1.0, -math.inf, 3.0, math.inf])) == [1.5, 3, 1.5, 4, 5]
    broken = ranking.stand([math.nan, 1, -math.inf, 3, 4], truth)
    assert broken == ranking.stand([0, 1, 0, 3, 4], truth)


def test_ties_are_worth_their_expected_value():
    """Against every order that the ties may be broken in."""
    scores, truth = np.array([3, 3, 3, 1, 0, 2.0]), np.array([5, 4, 4, 9, 9, 1.0])

    def all_orders(values: np.ndarray, k: int) -> list[set[int]]:
        orders = itertools.permutations(range(values.size))
        return [set(sorted(order, key=lambda i: -values[i])[:k]) for order in orders]

    for share, k in ((1 / 6, 1), (1 / 3, 2), (0.5, 3), (2 / 3, 4)):
        ours, best = all_orders(scores, k), all_orders(truth, k)
        likely = [np.mean([i in chosen for chosen in ours]) * np.mean([i in b for b in best]) for i in range(6)]
        assert ranking.precision_at(scores, truth, share) == pytest.approx(sum(likely) / k)
    assert ranking.picked_accuracy(scores, truth) == pytest.approx((5 + 4 + 4) / 3)


def test_stand_by_hand():
    truth = np.array([70.0, 90.0, 80.0, 60.0])
    found = ranking.stand([1, 4, 5, 0], truth)
    assert found.top1_accuracy == 80
    assert found.top1_regret == 10
    assert found.relative_improvement == pytest.approx(100 * 5 / 75)
    assert found.precision[0.01] == 0
    assert found.spearman == pytest.approx(0.8)
    assert found.missing == ""


def test_constant_scores_are_missing_not_zero():
    truth = [1.0, 2.0, 3.0]
    for scores in ([7, 7, 7], [math.nan, -math.inf, math.nan]):
        found = ranking.stand(scores, truth, resamples=3)
        assert found.spearman is None
        assert "same for every network" in found.missing
        assert list(ranking.as_table(found)) == ["missing"]
    assert ranking.spearman([1, 2, 3], [5, 5, 5]) is None


def test_bad_input_is_one_sentence():
    with pytest.raises(BadInput, match="network 1 is nan"):
        ranking.stand([1, 2, 3], [1, math.nan, 3])
    with pytest.raises(BadInput, match="one score for each"):
        ranking.stand([1, 2, 3, 4], [1, 2, 3])
    with pytest.raises(BadInput, match="at least three"):
        ranking.stand([1, 2], [1, 2])
    with pytest.raises(BadInput, match="one cost for each"):
        ranking.within_bands([1, 2, 3], [1, 2, 3], [1, 2])


def test_interval_covers_the_true_correlation():
    """Of 40 samples of a pair of normals with known Spearman correlation, about 95 % of the intervals hold it."""
    rho = 0.6
    true = 6 / math.pi * math.asin(rho / 2)
    draw, hits = np.random.default_rng(0), 0
    for repeat in range(40):
        x = draw.normal(size=150)
        y = rho * x + math.sqrt(1 - rho**2) * draw.normal(size=150)
        low, high = ranking.stand(x, y + 10, resamples=60, seed=repeat).intervals["spearman"]
        hits += low <= true <= high
    assert 33 <= hits <= 40


def test_intervals_cover_seeds_and_follow_the_seed(table):
    scores, truth = table
    noisy = np.stack([scores, np.random.default_rng(1).normal(size=scores.size)])
    one, two = ranking.stand(scores, truth, resamples=50), ranking.stand(noisy, truth, resamples=50)
    assert two.intervals["spearman"][0] < 0.3 < one.intervals["spearman"][0]
    mean = [ranking.spearman(row, truth) or 0.0 for row in noisy]
    assert two.spearman == pytest.approx(np.mean(mean))
    assert ranking.stand(scores, truth, resamples=50, seed=0) == one
    assert ranking.stand(scores, truth, resamples=50, seed=1) != one


def test_over_seeds_resamples_both():
    truth = np.arange(40.0)
    # Opposite seeds: drawn both, their mean is constant and ranks nothing; drawn twice, either is perfect in its way.
    each, interval = ranking.over_seeds(np.stack([truth, -truth]), truth, resamples=100)
    assert each == pytest.approx([1, -1]) and interval == pytest.approx((-1, 1))
    draw = np.random.default_rng(0)
    noisy = truth + 25 * draw.normal(size=(4, 40))
    same, within = ranking.over_seeds(np.repeat(noisy[:1], 4, axis=0), truth, resamples=500)
    assert same == pytest.approx([stats.spearmanr(noisy[0], truth)[0]] * 4)
    alone = ranking.stand(noisy[0], truth, resamples=500).intervals["spearman"]
    assert within == pytest.approx(alone, abs=0.05), "seeds that agree leave the interval over networks"
    each, over = ranking.over_seeds(noisy, truth, resamples=500)
    assert over[0] < stats.spearmanr(noisy.mean(axis=0), truth)[0] < over[1]
    assert np.mean(each) < stats.spearmanr(noisy.mean(axis=0), truth)[0], "a mean over seeds is less noisy than a seed"


def test_bootstrap_of_a_mean_has_its_textbook_width():
    values = np.random.default_rng(5).normal(3, 2, 400)
    low, high = ranking.bootstrap(lambda chosen: float(values[chosen].mean()), 400, resamples=600)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.12)
    assert low < values.mean() < high


def test_between_is_symmetric_with_ones(table):
    names, matrix = ranking.between({"a": table[0], "b": -table[0], "flat": np.ones(137)})
    assert names == ["a", "b", "flat"]
    assert matrix[0, 0] == pytest.approx(1)
    assert matrix[0, 1] == matrix[1, 0] == pytest.approx(-1)
    assert np.isnan(matrix[2]).all()


def test_within_bands_a_score_that_is_the_cost_ranks_little():
    draw = np.random.default_rng(2)
    cost = draw.uniform(1, 100, 2000)
    quality = draw.normal(size=2000)
    truth = 50 + cost / 5 + quality
    bands = ranking.within_bands(cost, truth, cost, bands=20)
    assert sum(band.count for band in bands) == 2000
    assert all(first.high < second.low for first, second in itertools.pairwise(bands))
    overall = ranking.spearman(cost, truth)
    inside = ranking.band_mean(bands)
    assert overall is not None
    assert inside is not None
    assert overall > 0.95 > 0.5 > inside
    better = ranking.band_mean(ranking.within_bands(quality, truth, cost, bands=20))
    assert better is not None
    assert better > 0.9


def test_bands_do_not_part_equal_costs():
    cost = np.repeat([1.0, 2.0, 3.0], [50, 3, 7])
    scores = np.arange(60.0)
    bands = ranking.within_bands(scores, scores + 1, cost, bands=10)
    assert (bands[0].low, bands[0].count) == (1.0, 50)
    assert sum(band.count for band in bands) == 60
    flat = ranking.within_bands(cost, scores + 1, cost, bands=10)
    assert flat[0].spearman is None
    assert ranking.band_mean([flat[0]]) is None


def test_a_whole_table():
    draw = np.random.default_rng(0)
    truth = draw.normal(size=15625)  # pairs of which would fill 2 GB
    scores = truth + draw.normal(size=15625)
    found = ranking.stand(scores, truth)
    assert found.spearman == pytest.approx(stats.spearmanr(scores, truth)[0])
    assert found.kendall == pytest.approx(stats.kendalltau(scores, truth)[0])
