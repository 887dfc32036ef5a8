"""Laws of all calibrators, and what sets each apart."""

import inspect

import numpy as np
import pytest

from edgewright.export.int8 import calibrators
from edgewright.export.int8.calibrators import CALIBRATORS, divergence, entropy, minmax, mse, percentile
from edgewright.export.int8.histogram import BINS, Histogram

EVERY = pytest.mark.parametrize("calibrator", CALIBRATORS.values(), ids=CALIBRATORS)


def spread(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in np.array_split(values, max(1, len(values) // 5000)):
        histogram.add(part)
    return histogram


def bell(count: int = 20_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.2, 1.5, count).astype(np.float32)


def error(values: np.ndarray, low: float, high: float) -> float:
    """Mean squared error of 256 steps over [low, high], the plain way."""
    step = (high - low) / 255
    return float(np.mean((values - (np.round((np.clip(values, low, high) - low) / step) * step + low)) ** 2))


def test_every_calibrator_of_the_file_is_under_contract() -> None:
    own = [
        (name, function)
        for name, function in inspect.getmembers(calibrators, inspect.isfunction)
        if function.__module__ == calibrators.__name__ and not name.startswith("_")
    ]
    public = {name for name, function in own if list(inspect.signature(function).parameters) == ["histogram"]}
    assert public == set(CALIBRATORS)


@EVERY
def test_the_range_lies_within_what_occurs(calibrator) -> None:
    for values in (bell(), np.abs(bell()), -np.abs(bell()) - 3, bell(30)):
        low, high = calibrator(spread(values))
        assert values.min() <= low <= high <= values.max()


@EVERY
def test_twice_the_values_give_twice_the_range(calibrator) -> None:
    low, high = calibrator(spread(bell()))
    assert calibrator(spread(4 * bell())) == pytest.approx((4 * low, 4 * high), rel=1e-6)


@EVERY
def test_mirrored_values_give_the_mirrored_range(calibrator) -> None:
    low, high = calibrator(spread(bell()))
    assert calibrator(spread(-bell())) == pytest.approx((-high, -low), abs=0.02)


@EVERY
def test_odd_tensors(calibrator) -> None:
    assert calibrator(Histogram()) == (0, 0)
    assert calibrator(spread(np.zeros(9, dtype=np.float32))) == (0, 0)
    assert calibrator(spread(np.full(9, 2.5, dtype=np.float32))) == (2.5, 2.5)


@EVERY
def test_counting_leaves_the_histogram_as_it_was(calibrator) -> None:
    histogram = spread(bell())
    before = histogram.counts.copy()
    calibrator(histogram)
    assert (histogram.counts == before).all()


@EVERY
def test_uniform_values_are_hardly_clipped(calibrator) -> None:
    values = np.random.default_rng(1).uniform(-1, 1, 50_000).astype(np.float32)
    low, high = calibrator(spread(values))
    assert low < -0.95 and high > 0.95


@pytest.mark.parametrize("calibrator", [percentile, entropy])  # its square is worth keeping to the squared error
def test_one_far_outlier_is_clipped(calibrator) -> None:
    values = np.append(bell(50_000), np.float32(60))
    low, high = calibrator(spread(values))
    assert high < 20
    assert error(values[:-1], low, high) < error(values[:-1], *minmax(spread(values))) / 4


def test_minmax_is_everything() -> None:
    assert minmax(spread(bell())) == (bell().min(), bell().max())


def test_percentile_is_numpys_quantile() -> None:
    values = bell(60_000, 2)
    high = np.quantile(values, calibrators.KEPT, method="inverted_cdf")
    expected = -np.quantile(-values, calibrators.KEPT, method="inverted_cdf"), high
    width = spread(values).width / BINS
    assert percentile(spread(values)) == pytest.approx(expected, abs=2 * width)


def test_percentile_keeps_a_crowded_end() -> None:
    low, high = percentile(spread(np.maximum(bell(), 0)))
    assert low == 0 and high > 3


def test_mse_is_as_good_as_a_search_on_the_values() -> None:
    values = np.random.default_rng(3).standard_t(3, 4000).astype(np.float32)  # long tails
    found = error(values, *mse(spread(values)))
    grid = np.linspace(0.05, 1, 40)
    best = min(error(values, low * values.min(), high * values.max()) for low in grid for high in grid)
    assert found <= 1.1 * best
    assert found < error(values, values.min(), values.max())


def test_divergence_is_the_plain_loop() -> None:
    sizes = np.random.default_rng(4).poisson(3, 600)
    bins, steps = 400, 128
    true = [*map(float, sizes[:bins])]
    true[-1] += float(sizes[bins:].sum())
    told = [0.0] * bins
    for step in range(steps):
        members = [i for i in range(bins) if i * steps // bins == step]
        filled = [i for i in members if true[i] > 0]
        for i in filled:
            told[i] = max(sum(float(sizes[j]) for j in members) / len(filled), 1e-4)
    inside = float(sizes[:bins].sum())
    expected = sum(p / sum(true) * np.log(p / sum(true) / (q / inside)) for p, q in zip(true, told, strict=True) if p)
    assert divergence(sizes, bins, steps) == pytest.approx(expected)
