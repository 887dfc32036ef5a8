"""Ratios with intervals: the true ratio is covered, drift that both share does not matter, the first is exactly 1."""

import numpy as np
import pytest

from edgewright.device.compare import ratio


def rounds(generator: np.random.Generator, median: float, drift: np.ndarray, block: int = 10) -> np.ndarray:
    """Times of `block` runs in each round: lognormal around the median, times what the machine did in that round."""
    noise = generator.lognormal(0, 0.05, (len(drift), block))
    return (median * drift[:, None] * noise).ravel()


def test_the_interval_covers_the_true_ratio() -> None:
    covered, widths = 0, []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        drift = np.exp(np.cumsum(generator.normal(0, 0.05, 30)))  # a machine that wanders, the same for both
        one, other = rounds(generator, 0.7, drift), rounds(generator, 1.0, drift)
        found = ratio(one, other, seed=seed, resamples=200)
        covered += found.low <= 0.7 <= found.high
        widths.append(found.high - found.low)
    assert covered >= 50  # 95 % of 60 is 57
    assert np.mean(widths) < 0.15  # though each time alone wanders by tens of percent


def test_one_against_itself_is_one() -> None:
    times = rounds(np.random.default_rng(1), 2.0, np.ones(12))
    found = ratio(times, times)
    assert (found.value, found.low, found.high) == (1, 1, 1)
    assert not found.surely_faster


@pytest.mark.parametrize(("median", "sure"), [(0.8, True), (1.0, False), (1.2, False)])
def test_surely_faster(median: float, sure: bool) -> None:
    generator = np.random.default_rng(3)
    one, other = rounds(generator, median, np.ones(30)), rounds(generator, 1.0, np.ones(30))
    assert ratio(one, other).surely_faster is sure


def test_too_few_rounds_prove_nothing() -> None:
    found = ratio([1.0] * 10, [2.0] * 10)
    assert found.value == 0.5
    assert not found.surely_faster


def test_the_same_seed_gives_the_same_interval() -> None:
    generator = np.random.default_rng(5)
    one, other = rounds(generator, 1.0, np.ones(10)), rounds(generator, 1.1, np.ones(10))
    assert ratio(one, other, seed=4) == ratio(one, other, seed=4)
