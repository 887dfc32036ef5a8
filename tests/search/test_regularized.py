"""Ageing: the oldest leaves, the best as well."""

from statistics import mean

from edgewright.search.strategies.random import RandomSearch
from edgewright.search.strategies.regularized import RegularizedEvolution


def test_the_population_is_what_was_told_last(vectors, excess):
    strategy = RegularizedEvolution(vectors(), excess(30), 0, population=8, tournament=3)
    told = []
    for turn in range(5):
        scored = [(a, float(100 - len(told) - i)) for i, a in enumerate(strategy.ask(3 + turn))]  # ever worse
        strategy.tell(reversed(scored))
        told += scored
    assert [score for score, _ in strategy._members] == [score for _, score in told[-8:]]


def test_a_child_is_one_mutation_of_a_member(vectors):
    strategy = RegularizedEvolution(vectors(), lambda a: 0.0, 1, population=6, tournament=6)
    first = strategy.ask(6)
    best = first[3]
    strategy.tell([(a, float(a == best)) for a in first])
    (child,) = strategy.ask(1)  # a tournament of all: the best is the parent
    assert sum(x != y for x, y in zip(child.digits, best.digits, strict=True)) == 1


def test_beats_random_search(vectors, excess, value):
    def best(strategy):
        found = []
        for _ in range(20):
            new = strategy.ask(10)
            strategy.tell([(a, value(a)) for a in new])
            found += map(value, new)
        return max(found)

    inside = excess(30)
    ours = mean(best(RegularizedEvolution(vectors(), inside, seed)) for seed in range(6))
    assert ours > mean(best(RandomSearch(vectors(), inside, seed)) for seed in range(6))
