"""Evolution finds what exhaustive search finds, and beats random search on the way."""

import itertools
from statistics import mean

from edgewright.search.strategies.evolution import Evolution, Founders
from edgewright.search.strategies.random import RandomSearch

CEILING = 30


def best_after(strategy, value, evaluations):
    best = float("-inf")
    for _ in range(evaluations // 10):
        scored = [(a, value(a)) for a in strategy.ask(10)]
        strategy.tell(scored)
        best = max(best, *(score for _, score in scored))
    return best


def test_beats_random_search_and_comes_near_the_exhaustive_best(vectors, excess, value):
    space, inside = vectors(), excess(CEILING)
    every = [type(space.smallest())(digits=digits) for digits in itertools.product(range(6), repeat=5)]
    optimum = max(value(a) for a in every if inside(a) <= 0)
    evolved = [best_after(Evolution(space, inside, seed), value, 300) for seed in range(6)]
    drawn = [best_after(RandomSearch(space, inside, seed), value, 300) for seed in range(6)]
    assert mean(evolved) > mean(drawn)
    assert mean(evolved) > 0.99 * optimum


def test_the_best_survive(vectors, excess, value):
    strategy = Evolution(vectors(), excess(CEILING), 0, population=8)
    told = []
    for _ in range(5):
        scored = [(a, value(a)) for a in strategy.ask(10)]
        strategy.tell(scored)
        told += scored
    kept = sorted((value(member[2]) for member in strategy._members), reverse=True)
    assert kept == sorted((score for _, score in told), reverse=True)[:8]


def test_founders_keep_the_narrower_budget(vectors, excess, value):
    from search.conftest import cost

    strategy = Evolution(vectors(), excess(40), 0, population=30, founders=Founders(excess(20)))
    founders = strategy.ask(30)
    assert all(cost(a) <= 20 for a in founders)
    strategy.tell([(a, value(a)) for a in founders])
    assert any(cost(a) > 20 for a in strategy.ask(30))  # children may be larger
