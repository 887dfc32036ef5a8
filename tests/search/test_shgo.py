"""SHGO on a lattice with two basins, against every point."""

import itertools
from random import Random

import pytest

from edgewright.core.errors import BadInput
from edgewright.search.resolve import strategies
from edgewright.search.strategies.shgo import SHGO

TOP, OTHER = (4, 1, 4, 0), (0, 5, 1, 4)


def two_basins(a):
    near = [sum(abs(x - y) for x, y in zip(a.digits, centre, strict=True)) for centre in (TOP, OTHER)]
    return max(10.0 - near[0], 9.0 - near[1])


@pytest.mark.parametrize("seed", range(4))
def test_finds_the_higher_of_two_tops(vectors, seed):
    space = vectors(4)
    every = (type(space.smallest())(digits=digits) for digits in itertools.product(range(6), repeat=4))
    best = max(every, key=two_basins)
    strategy = SHGO(space, lambda a: 0.0, seed, samples=16)
    seen = []
    for _ in range(60):
        new = strategy.ask(2)
        strategy.tell([(a, two_basins(a)) for a in new])
        seen += new
    assert best in seen and best.digits == TOP  # of 1,296 points 120 were looked at


def test_the_minimisers_are_below_their_sample(vectors):
    strategy = SHGO(vectors(4), lambda a: 0.0, 0, samples=32)
    new = strategy.ask(32)
    strategy.tell([(a, two_basins(a)) for a in new])
    points = strategy._points([(0, 5)] * 4, [0, 1, 2, 3], 3)
    rows = [strategy._at(point, [0, 1, 2, 3]) for point in points]
    for vector in rows:
        strategy._scores[strategy._inside(vector).key()] = two_basins(strategy._inside(vector))  # pyright: ignore
    starts = strategy._basins(points, rows, [0, 1, 2, 3])
    values = sorted((two_basins(strategy._inside(v)) for v in rows), reverse=True)
    assert two_basins(strategy._inside(starts[0])) == values[0]
    assert len(starts) < len(rows) / 2


def test_long_encodings_vary_a_few_positions_at_once(vectors):
    strategy = SHGO(vectors(9), lambda a: 0.0, 0, samples=16, most=5)
    for _ in range(12):
        strategy.tell([(a, float(-sum(a.digits))) for a in strategy.ask(8)])
    assert all(len(strategy._free(0, level)) == 5 for level in range(3))
    assert len({tuple(strategy._free(0, level)) for level in range(6)}) > 1


@pytest.mark.parametrize("name", ["shgo", "reinforce", "reinforce-memory"])
def test_a_space_without_an_encoding_is_refused_in_one_sentence(name, vectors):
    space = vectors()
    space.choices = lambda: ()
    with pytest.raises(BadInput, match=f"strategy {name}: the space vectors offers no integer encoding"):
        strategies()[name](space, lambda a: 0.0, Random(0).randrange(9))
