"""The law that made the data is found again; the hierarchical search comes near the exhaustive optimum, quickly."""

import itertools

import numpy as np
import pytest

from edgewright.core.errors import BadInput
from edgewright.search.strategies.flash import fit_accuracy_law, minimise


def test_a_law_that_holds_is_found() -> None:
    rng = np.random.default_rng(0)
    found = rng.uniform(10, 200, (40, 2))
    accuracy = 100 / (1.1 + 8 / found[:, 0] + 3 / found[:, 1])
    law = fit_accuracy_law(("g", "depth"), found[:25], accuracy[:25])
    np.testing.assert_allclose(law.coefficients, (1.1, 8, 3), rtol=1e-6)
    np.testing.assert_allclose(law.predict(found[25:]), accuracy[25:], rtol=1e-6)
    assert law.rank_correlation == pytest.approx(1)


def test_the_law_never_falls_with_a_strength() -> None:
    rng = np.random.default_rng(1)
    found = rng.uniform(1, 50, (25, 2))
    law = fit_accuracy_law(("g", "depth"), found, rng.uniform(20, 90, 25))
    assert (law.predict(found + np.array([5, 0])) >= law.predict(found)).all()
    assert (law.predict(found + np.array([0, 5])) >= law.predict(found)).all()


@pytest.mark.parametrize("accuracy", [[50.0] * 4, [0.0, *[50.0] * 9]])
def test_samples_that_cannot_be_fitted_are_refused(accuracy) -> None:
    with pytest.raises(BadInput):
        fit_accuracy_law(("g",), np.full((len(accuracy), 1), 3.0), accuracy)


def rugged(point: tuple[int, ...]) -> float:
    """Several basins, a ceiling, plateaus: what a codesign looks like."""
    w, d, t, c = point
    gain = 1 / (1.1 + 20 / (w + t / 4) + 3 / d + 0.02 * np.cos(w) + 0.02 * np.sin(2 * d + c))
    excess = max(0.0, (w * d + 3 * t + 5 * c) / 300 - 1)
    return -gain + 2 * excess - 0.003 * c


def test_near_the_exhaustive_optimum_without_looking_at_all() -> None:
    bounds = [(1, 20), (1, 10), (0, 19), (0, 4)]  # 20,000 points
    exhaustive = min(rugged(p) for p in itertools.product(*(range(low, high + 1) for low, high in bounds)))
    asked: list[tuple[int, ...]] = []
    best, value = minimise(
        lambda point: asked.append(point) or rugged(point),
        bounds,
        [(0, 1, 2), (1, 2, 3)],
        coarse=lambda u: [1 + 19 * u[0], 1 + 9 * u[1], 19 * u[2], 2],
        num_coarse=3,
    )
    assert len(set(asked)) < 20_000 / 4  # it does not come to this by looking at them all
    assert value == rugged(best)
    assert value <= exhaustive + 0.01 * abs(exhaustive)
    rng = np.random.default_rng(0)
    random = min(rugged(tuple(int(rng.integers(low, high + 1)) for low, high in bounds)) for _ in range(5000))
    assert value <= random


def test_bounds_hold_and_one_point_boxes_are_kept() -> None:
    seen = []

    def objective(point: tuple[int, ...]) -> float:
        seen.append(point)
        return float("nan") if point[0] == 3 else (point[0] - 7) ** 2 + point[1]

    best, value = minimise(objective, [(0, 6), (2, 2)], [(0, 1)])
    assert best == (6, 2)
    assert value == 3
    assert len(seen) == len(set(seen))
    assert all(0 <= x <= 6 and y == 2 for x, y in seen)
