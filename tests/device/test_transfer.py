"""A new device from few samples: the dense formulas, draws of known law, and what must not matter."""

import numpy as np
import pytest
from scipy.stats import rankdata

from edgewright.core.errors import BadInput
from edgewright.device.few import transfer
from edgewright.device.few.transfer import TransferModel, fit, fit_known, known, suggest

RNG = np.random.default_rng(3)
SIZE = 700
CHOICES = RNG.integers(0, 4, (SIZE, 5))
DETAILS = np.eye(4)[CHOICES].reshape(SIZE, 20)
TOTALS = DETAILS.reshape(SIZE, 5, 4).sum(axis=1)
ROWS = RNG.choice(SIZE, 12, replace=False)


def device(rng: np.random.Generator, noise: float = 0.0) -> np.ndarray:
    """Latencies of a device whose operators cost what they cost, somewhat different on each edge."""
    cost = rng.uniform(0.1, 3.0, 4) * np.array([0.1, 1, 2, 3]) * rng.uniform(0.9, 1.1, (5, 4))
    exact = 2 + sum(cost[place][CHOICES[:, place]] for place in range(5))
    return exact * rng.uniform(0.5, 20) * (1 + noise * rng.standard_normal(SIZE))


def spearman(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(found), rankdata(truth))[0, 1])


PRIORS = {f"d{number}": device(RNG, 0.02) for number in range(8)}


def error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.median(np.abs(found / truth - 1)))


def test_one_point_of_the_grid_is_textbook_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TOTALS", 0.3), ("DETAILS", 0.1), ("NOISE", 0.05)):
        monkeypatch.setattr(transfer, name, (value,))
    before, times = known(TOTALS, PRIORS, DETAILS)[0], device(RNG)[ROWS]
    found = fit_known(ROWS, times, [before])
    shared, totals, details = before.parts
    whole = shared @ shared.T + 0.3**2 * totals @ totals.T + 0.1**2 * details @ details.T
    inner, level = whole[np.ix_(ROWS, ROWS)], times.mean()
    size = times / level
    for _ in range(transfer.ROUNDS):
        inverse = np.linalg.inv(inner + np.diag((0.05 * size) ** 2))
        solved = inverse @ (times / level - before.centre[ROWS])
        mean = before.centre + whole[:, ROWS] @ solved
        variance = np.diag(whole - whole[:, ROWS] @ inverse @ whole[ROWS]) + (0.05 * mean) ** 2
        size = mean[ROWS] * np.sqrt((4 + solved**2 / np.diag(inverse)) / 5)
    assert found.predict() == pytest.approx(mean * level, rel=1e-4)
    assert np.array(found.spread_ms) == pytest.approx(np.sqrt(variance) * level, rel=1e-3)
    assert found.noise == pytest.approx(0.05)


def test_covariance_of_the_known_devices_is_the_shared_kernel() -> None:
    before = known(TOTALS, PRIORS, DETAILS)[0]
    tables = transfer.smooth(PRIORS, DETAILS)
    kernel = before.parts[0][:5] @ before.parts[0][:5].T
    centre = tables.mean(axis=1)[:5]
    assert before.centre[:5] == pytest.approx(centre)
    assert kernel == pytest.approx(np.cov(tables[:5], bias=True) + 10 + 0.09 * np.outer(centre, centre))


def test_left_out_errors_are_those_of_fits_without_the_sample() -> None:
    before, times = known(TOTALS, PRIORS, DETAILS), device(RNG, 0.03)[ROWS]
    found = fit_known(ROWS, times, before)
    naive = []
    for place in range(len(ROWS)):
        rest = fit_known(np.delete(ROWS, place), np.delete(times, place), before)
        naive.append(rest.predict()[ROWS[place]])
    # The level is the mean of the samples left: close to, not equal, that of all.
    assert found.median_error == pytest.approx(error(np.array(naive), times), rel=0.05, abs=2e-4)
    assert found.rank_correlation == pytest.approx(spearman(np.array(naive), times), abs=0.03)


@pytest.mark.parametrize(("priors", "worst"), [(PRIORS, 0.03), (None, 0.08)])
def test_other_networks_are_predicted(priors: dict[str, np.ndarray] | None, worst: float) -> None:
    truths = [device(np.random.default_rng(100 + number)) for number in range(6)]
    before = known(TOTALS, priors, DETAILS)
    found = [fit_known(ROWS, truth[ROWS], before).predict() for truth in truths]
    assert max(error(*pair) for pair in zip(found, truths, strict=True)) < worst
    assert min(spearman(*pair) for pair in zip(found, truths, strict=True)) > 0.95


def test_a_device_that_skips_dead_operators_is_found_out() -> None:
    # Where the last choice is 0, the first two count for nothing on the new device; the known ones run them all.
    live = np.arange(SIZE)
    vectors = {tuple(row): place for place, row in reversed(list(enumerate(CHOICES.tolist())))}
    for place, row in enumerate(CHOICES.tolist()):
        if row[4] == 0:
            live[place] = vectors.get((0, 0, *row[2:]), place)
    moved = live != np.arange(SIZE)
    assert moved.sum() > 50
    truth = device(np.random.default_rng(5))[live]
    rows = np.random.default_rng(6).choice(SIZE, 20, replace=False)
    found = fit(rows, truth[rows], TOTALS, PRIORS, DETAILS, live)
    blind = fit(rows, truth[rows], TOTALS, PRIORS, DETAILS)
    assert sum(found.weights[2:]) > 0.95
    assert len(blind.weights) == 2
    assert error(found.predict()[moved], truth[moved]) < 0.3 * error(blind.predict()[moved], truth[moved])
    with pytest.raises(BadInput, match="live: 700 rows from 0 to 699"):
        known(TOTALS, None, DETAILS, live[1:])


def test_known_devices_help_where_they_share_what_features_do_not_tell() -> None:
    twist = 1 + 0.5 * (CHOICES[:, 0] == CHOICES[:, 4])
    before = known(TOTALS, {name: twist * table for name, table in PRIORS.items()}, DETAILS)
    truths = [twist * device(np.random.default_rng(50 + number)) for number in range(4)]
    mean = {
        name: np.mean([error(fit_known(ROWS, truth[ROWS], each).predict(), truth) for truth in truths])
        for name, each in (("with", before), ("without", known(TOTALS, None, DETAILS)))
    }
    assert mean["with"] < 0.4 * mean["without"]


def test_a_wild_sample_counts_less(monkeypatch: pytest.MonkeyPatch) -> None:
    before, harm = known(TOTALS, PRIORS, DETAILS), {}
    for tail in (transfer.TAIL, 1e9):
        monkeypatch.setattr(transfer, "TAIL", tail)
        for seed in range(6):
            rng = np.random.default_rng(seed)
            rows, truth = rng.choice(SIZE, 15, replace=False), device(rng, 0.02)
            wild = truth[rows] * np.where(np.arange(15) == 3, 1.6, 1.0)
            harm.setdefault(tail, []).append(error(fit_known(rows, wild, before).predict(), truth))
    assert np.mean(harm[4.0]) < 0.75 * np.mean(harm[1e9])


def test_spread_covers_what_it_says() -> None:
    before, inside = known(TOTALS, PRIORS, DETAILS), []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        times = device(rng, 0.05)
        found = fit_known(rows := rng.choice(SIZE, 15, replace=False), times[rows], before)
        inside.append(np.abs(times - found.predict()) < 1.645 * np.array(found.spread_ms))
    assert 0.84 < np.mean(inside) < 0.96


def test_units_order_and_names_do_not_matter() -> None:
    times = device(RNG, 0.03)[ROWS]
    first = fit(ROWS, times, TOTALS, PRIORS, DETAILS)
    others = {name + "x": 1e3 * PRIORS[name] for name in reversed(PRIORS)}
    second = fit(ROWS[::-1], 1e3 * times[::-1], TOTALS, others, DETAILS)
    assert second.predict() == pytest.approx(1e3 * first.predict(), rel=1e-4)
    assert second.noise == pytest.approx(first.noise, rel=1e-4)


def test_rows_of_the_space_can_be_in_any_order() -> None:
    times, order = device(RNG)[ROWS], RNG.permutation(SIZE)
    place = np.argsort(order)
    moved = fit(place[ROWS], times, TOTALS[order], {k: v[order] for k, v in PRIORS.items()}, DETAILS[order])
    assert moved.predict() == pytest.approx(fit(ROWS, times, TOTALS, PRIORS, DETAILS).predict()[order], rel=1e-4)


def test_samples_that_are_all_alike_have_no_rank_correlation() -> None:
    found = fit(ROWS, np.full(12, 3.0), TOTALS)
    assert found.rank_correlation is None
    assert found.predict() == pytest.approx(3.0, rel=0.02)


def test_first_suggestion_is_the_best_of_all() -> None:
    before = known(TOTALS, PRIORS, DETAILS)[0]
    middle = [before.parts[0], transfer.TOTALS[2] * before.parts[1], transfer.DETAILS[2] * before.parts[2]]
    basis = np.hstack(middle)
    sigma = transfer.NOISE[4] * before.centre
    kernel = basis @ basis.T

    def left(row: int) -> float:
        variance = np.diag(kernel) - kernel[:, row] ** 2 / (kernel[row, row] + sigma[row] ** 2)
        return float(np.mean(variance / before.centre**2))

    assert left(suggest(1, [before])[0]) == pytest.approx(min(left(row) for row in range(SIZE)))


def test_suggestions_are_distinct_and_go_on_from_what_was_measured() -> None:
    before = known(TOTALS, PRIORS, DETAILS)
    ten = suggest(10, before)
    assert len(set(ten)) == 10
    assert suggest(6, before, measured=ten[:4]) == ten[4:]
    assert set(suggest(3, before, among=[5, 9, 2])) == {2, 5, 9}
    with pytest.raises(BadInput, match="choose 1 to 700"):
        suggest(SIZE + 1, before)


def test_json_comes_back() -> None:
    found = fit(ROWS, device(RNG)[ROWS], TOTALS, PRIORS, DETAILS)
    assert TransferModel.from_json(found.to_json()) == found
    for text, message in (("{", "pi.json: not valid JSON"), ("{}", "pi.json: 'latency_ms'")):
        with pytest.raises(BadInput, match=message):
            TransferModel.from_json(text, "pi.json")


@pytest.mark.parametrize(
    ("rows", "times", "message"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], "4 measured networks; a new device needs at least 5"),
        ([1, 2, 3, 4, 4], [1, 2, 3, 4, 5], "an index is there twice"),
        ([1, 2, 3, 4, 700], [1, 2, 3, 4, 5], "integers from 0 to 699"),
        ([1, 2, 3, 4, -1], [1, 2, 3, 4, 5], "integers from 0 to 699"),
        ([1, 2, 3, 4, 5.5], [1, 2, 3, 4, 5], "integers from 0 to 699"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 0], "not a positive number"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, np.nan], "not a positive number"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4], "one latency an index"),
    ],
)
def test_bad_samples(rows: list[float], times: list[float], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        fit(np.array(rows), np.array(times), TOTALS)


def test_bad_features() -> None:
    with pytest.raises(BadInput, match="details: a table of finite numbers with 700 rows"):
        known(TOTALS, None, DETAILS[:-1])
    with pytest.raises(BadInput, match="features: a table of finite numbers"):
        known(np.where(TOTALS == 2, np.nan, TOTALS))
