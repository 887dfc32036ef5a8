"""Walking into a budget, and saying what is the least."""

from random import Random

import pytest

from edgewright.search.base import downhill, least


def test_downhill_ends_inside_or_says_so(vectors, excess):
    space, inside = vectors(), excess(10)
    start = type(space.smallest())(digits=(5, 5, 5, 5, 5))
    found = downhill(space, start, inside, Random(0), 400)
    assert found is not None and inside(found) <= 0
    assert downhill(space, start, inside, Random(0), 1) is None


def test_least_of_a_cost_that_the_smallest_does_not_have(vectors):
    # The smallest architecture is not the cheapest: the optimum is (3, 3, 3, 3, 3), at 7.
    best, value = least(vectors(), lambda a: 7.0 + sum((d - 3) ** 2 for d in a.digits), Random(1), tries=600)
    assert best.digits == (3, 3, 3, 3, 3) and value == 7.0


def test_least_counts_its_tries_and_stops_at_nothing(vectors):
    calls = []

    def cost(architecture):
        calls.append(1)
        return float(sum(architecture.digits))

    assert least(vectors(), cost, Random(0))[1] == 0.0
    assert len(calls) <= 460


@pytest.mark.parametrize("seed", range(3))
def test_least_is_deterministic(vectors, seed):
    def run():
        return least(vectors(), lambda a: 1.0 + abs(sum(a.digits) - 11), Random(seed))

    assert run() == run() and run()[1] == 1.0
