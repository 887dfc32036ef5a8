"""The process against plain inversion; the loop against random search and NSGA-II."""

from statistics import mean

import numpy as np
import pytest

from edgewright.search.strategies.linas import LINAS, GaussianProcess, normal_scores
from edgewright.search.strategies.nsga2 import NSGA2
from edgewright.search.strategies.random import RandomSearch


def test_the_process_is_the_closed_form():
    random = np.random.default_rng(5)
    x, z = random.normal(size=(17, 3)), random.normal(size=(7, 3)) + 0.3
    y = np.sin(x[:, 0]) + 0.3 * x[:, 1]
    process = GaussianProcess(x, y)

    def kernel(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / process._width)

    best = -np.inf
    for noise in (1e-3, 1e-2, 1e-1):
        inverse = np.linalg.inv(kernel(x, x) + noise * np.eye(17))
        signal = y @ inverse @ y / 17
        likelihood = -8.5 * np.log(signal) + 0.5 * np.linalg.slogdet(inverse)[1]
        if likelihood > best:
            best = likelihood
            expected = kernel(z, x) @ inverse @ y
            variance = signal * (1 - np.einsum("ij,jk,ik->i", kernel(z, x), inverse, kernel(z, x)))
    mean_, deviation = process.predict(z)
    assert mean_ == pytest.approx(expected, abs=1e-8)
    assert deviation == pytest.approx(np.sqrt(variance), abs=1e-7)


def test_scores_become_normal_quantiles_and_ties_share():
    values = normal_scores([3.0, -np.inf, 8.0, 3.0, -np.inf])
    assert values[1] == values[4] < values[0] == values[3] < values[2]
    assert normal_scores([1.0, 2.0, 3.0])[1] == 0.0


@pytest.mark.parametrize("enumerable", [True, False])
def test_better_than_nsga2_and_random(vectors, listed, excess, value, enumerable):
    inside = excess(30)
    space = (listed if enumerable else vectors)()

    def best(strategy):
        found = []
        for _ in range(12):
            new = strategy.ask(5)
            strategy.tell([(a, value(a)) for a in new])
            found += map(value, new)
        return max(found)

    ours = mean(best(LINAS(space, inside, seed)) for seed in range(4))
    assert ours > mean(best(NSGA2(space, inside, seed)) for seed in range(4))
    assert ours > mean(best(RandomSearch(space, inside, seed)) for seed in range(4))


def test_equal_features_are_measured_once_as_long_as_others_are_left(listed):
    strategy = LINAS(listed(3), lambda a: 0.0, 0, features=lambda a: (float(sum(a.digits)),), founders=4)
    first = strategy.ask(4)
    strategy.tell([(a, float(sum(a.digits))) for a in first])
    strategy.tell([(a, float(sum(a.digits))) for a in strategy.ask(1)])
    sums = [sum(a.digits) for a in strategy.ask(10)]
    assert len(set(sums)) == 10
