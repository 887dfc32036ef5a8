"""Smoothing of known devices: what is structure stays, noise goes, gaps are filled."""

import numpy as np
import pytest

from edgewright.core.errors import BadInput
from edgewright.device.few.smooth import smooth, unit

RNG = np.random.default_rng(5)
CHOICES = RNG.integers(0, 3, (900, 4))
FEATURES = np.eye(3)[CHOICES].reshape(900, 12)
WORK = np.array([0.2, 1.0, 3.0])
# Sums over the choices, and one product of two of them: what regression on products can express exactly.
TRUE = 5 + WORK[CHOICES].sum(axis=1) + 2 * (CHOICES[:, 0] == 2) * (CHOICES[:, 3] == 1)


def test_a_table_that_structure_explains_comes_back() -> None:
    assert smooth({"a": 7 * TRUE}, FEATURES)[:, 0] == pytest.approx(TRUE / TRUE.mean(), rel=2e-3)


def test_noise_goes() -> None:
    noisy = TRUE * (1 + 0.1 * RNG.standard_normal(900))
    found = smooth({"a": noisy}, FEATURES)[:, 0] * noisy.mean()
    assert np.abs(found / TRUE - 1).mean() < 0.4 * np.abs(noisy / TRUE - 1).mean()


def test_gaps_are_filled_and_tables_do_not_touch_each_other() -> None:
    holes = np.where(RNG.random(900) < 0.7, np.nan, TRUE)
    both = smooth({"holes": holes, "other": 1 / TRUE}, FEATURES)
    assert both[:, 0] * np.nanmean(holes) == pytest.approx(TRUE, rel=0.02)
    assert both[:, 0] == pytest.approx(smooth({"holes": holes}, FEATURES)[:, 0])


def test_noise_alone_is_smoothed_to_its_mean() -> None:
    found = smooth({"a": np.exp(0.3 * RNG.standard_normal(900))}, FEATURES)[:, 0]
    assert found.std() < 0.1


def test_many_features_are_taken_without_products() -> None:
    features = RNG.standard_normal((400, 60))
    times = 10 + features @ RNG.uniform(0, 0.2, 60)
    assert smooth({"a": times}, features)[:, 0] == pytest.approx(times / times.mean(), rel=2e-3)


def test_unit_rows_have_mean_square_length_one_and_constants_go() -> None:
    found = unit(np.column_stack([RNG.standard_normal((50, 3)) * [1, 10, 1e-9] + 7, np.full(50, 4.2)]))
    assert found.shape == (50, 3)
    assert (found**2).sum(axis=1).mean() == pytest.approx(1)
    assert found.mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert unit(np.ones((5, 2))).shape == (5, 0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TRUE[:-1], r"prior pi: an array of shape \(899,\); the space has 900 networks"),
        (np.where(np.arange(900) < 29, TRUE, np.nan), "prior pi: 29 latencies"),
        (np.where(np.arange(900) == 5, -1.0, TRUE), "prior pi: a latency is not a positive number"),
        (np.where(np.arange(900) == 5, np.inf, TRUE), "prior pi: a latency is not a positive number"),
    ],
)
def test_bad_tables_are_named(table: np.ndarray, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        smooth({"pi": table}, FEATURES)
