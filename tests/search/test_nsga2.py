"""Fronts by brute force, crowding by hand, and a front that random search does not reach."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.search.strategies.nsga2 import NSGA2, best_first, crowding, fronts
from edgewright.search.strategies.random import RandomSearch

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25)


@given(pairs)
def test_fronts_are_peeled_one_by_one(rows):
    costs = np.array(rows, dtype=float)
    left, rank, expected = set(range(len(rows))), 0, [0] * len(rows)
    while left:
        peeled = {
            i for i in left if not any((costs[j] <= costs[i]).all() and (costs[j] < costs[i]).any() for j in left)
        }
        for i in peeled:
            expected[i] = rank
        left, rank = left - peeled, rank + 1
    assert fronts(costs).tolist() == expected


def test_crowding_by_hand():
    # Sorted by the first: 0, 2, 3, 10; the second falls 8, 5, 4, 0. Ranges 10 and 8.
    costs = np.array([[3.0, 4.0], [0.0, 8.0], [10.0, 0.0], [2.0, 5.0]])
    assert crowding(costs)[[1, 2]].tolist() == [math.inf, math.inf]
    assert crowding(costs)[0] == pytest.approx((10 - 2) / 10 + (5 - 0) / 8)
    assert crowding(costs)[3] == pytest.approx((3 - 0) / 10 + (8 - 4) / 8)


def test_order_is_front_then_room_and_infinite_costs_come_last():
    costs = [(math.inf, 1.0), (3.0, 4.0), (0.0, 8.0), (10.0, 0.0), (2.0, 5.0), (4.0, 9.0)]
    order = best_first(costs)
    assert set(order[:2]) == {2, 3} and order[2:4] == [1, 4] and set(order[4:]) == {0, 5}


def hypervolume(points, worst):
    """Area that (score, cost) points dominate, above score 0 and below cost `worst`."""
    area, best = 0.0, 0.0
    for cost, score in sorted((cost, -score) for score, cost in points):
        if -score > best:
            area += (-score - best) * (worst - cost)
            best = -score
    return area


def test_more_of_the_front_than_random_search(vectors, excess, value):
    from search.conftest import cost

    def volume(strategy):
        seen = []
        for _ in range(30):
            new = strategy.ask(5)
            strategy.tell([(a, value(a)) for a in new])
            seen += [(value(a), cost(a)) for a in new]
        return hypervolume(seen, 30.0)

    ours = [volume(NSGA2(vectors(), excess(30), seed, cost=cost)) for seed in range(6)]
    drawn = [volume(RandomSearch(vectors(), excess(30), seed)) for seed in range(6)]
    assert np.mean(ours) > 1.02 * np.mean(drawn)
