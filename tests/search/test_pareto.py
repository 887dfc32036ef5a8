"""The front against all pairs."""

import numpy as np
import pytest

from edgewright.search.pareto import front


def brute(values):
    return np.array(
        [not any((other <= row).all() and (other < row).any() for other in values) for row in values], dtype=bool
    )


@pytest.mark.parametrize(("rows", "columns", "levels"), [(1, 1, 5), (40, 2, 6), (60, 3, 4), (100, 2, 1000), (30, 4, 2)])
def test_equals_brute_force(rows, columns, levels):
    for seed in range(5):
        values = np.random.default_rng(seed).integers(0, levels, (rows, columns)).astype(float)
        assert np.array_equal(front(values), brute(values))


def test_empty_nan_and_infinite():
    assert front(np.zeros((0, 2))).shape == (0,)
    assert front([[1, np.nan], [2, 2], [np.inf, 1], [3, 3]]).tolist() == [False, True, True, False]
