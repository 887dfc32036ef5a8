"""Every strategy through the law of the room."""

import itertools
import random

import pytest
import torch

from edgewright.core.errors import BadInput
from edgewright.search.resolve import make_strategy, strategies

each = pytest.mark.parametrize("name", list(strategies()))


def drive(strategy, value, rounds, limit=200):
    """Ask and tell with the given sizes of rounds, in turn; all that was asked."""
    asked = []
    sizes = itertools.cycle(rounds)
    while new := strategy.ask(min(next(sizes), limit - len(asked))):
        strategy.tell([(a, value(a)) for a in new])
        asked += new
    return asked


@each
def test_says_what_it_is(name):
    strategy = strategies()[name]
    assert strategy.name == name and strategy.source and strategy.summary and strategy.__doc__


@each
@pytest.mark.parametrize("rounds", [(1,), (16,), (64,), (3, 1, 20)])
def test_feasible_and_without_repeats_in_rounds_of_any_size(name, rounds, vectors, excess, value):
    inside = excess(30)
    asked = drive(make_strategy(name, vectors(), excess=inside, seed=3), value, rounds, limit=120)
    assert len(asked) == 120 == len({a.key() for a in asked})
    assert all(inside(a) <= 0 for a in asked)


@each
def test_same_seed_same_architectures(name, vectors, excess, value):
    def run(seed):
        random.seed(seed + len(name))  # global randomness must not matter
        return drive(make_strategy(name, vectors(), excess=excess(30), seed=seed), value, (16,), limit=96)

    assert run(1) == run(1) != run(2)


@each
def test_never_more_than_asked(name, vectors, excess):
    strategy = make_strategy(name, vectors(), excess=excess(30), seed=0)
    assert [len(strategy.ask(count)) for count in (0, 1, 5)] == [0, 1, 5]


@each
def test_asked_and_told_the_same_again_it_is_where_it_was(name, vectors, excess, value):
    def fresh():
        return make_strategy(name, vectors(), excess=excess(30), seed=5)

    whole = drive(fresh(), value, (16,), limit=160)
    resumed = fresh()
    assert drive(resumed, {a: value(a) for a in whole[:96]}.__getitem__, (16,), limit=96) == whole[:96]
    assert drive(resumed, value, (16,), limit=64) == whole[96:]


@each
def test_a_tight_budget_is_walked_into(name, vectors, excess, value):
    inside = excess(4)  # a few of 7,776
    asked = drive(make_strategy(name, vectors(), excess=inside, seed=0), value, (8,))
    count = sum(
        sum(w * d for w, d in zip((5, 1, 3, 2, 4), digits, strict=True)) <= 4
        for digits in itertools.product(range(6), repeat=5)
    )
    assert all(inside(a) <= 0 for a in asked) and len(asked) == count


@each
def test_an_exhausted_space_ends_the_search(name, vectors, excess, value):
    asked = drive(make_strategy(name, vectors(2), excess=excess(1000), seed=0), value, (10,))
    assert len(asked) == 36


@each
def test_nothing_feasible_asks_nothing(name, vectors, value):
    assert make_strategy(name, vectors(), excess=lambda a: 1.0 + sum(a.digits), seed=0).ask(4) == []


@each
def test_bad_scores_do_not_stop_it(name, vectors, excess):
    strategy = make_strategy(name, vectors(), excess=excess(30), seed=0)
    scores = itertools.cycle([float("nan"), float("-inf"), 1.0, 1.0])
    for _ in range(6):
        strategy.tell([(a, next(scores)) for a in strategy.ask(16)])
    assert len(strategy.ask(16)) == 16


@each
def test_the_order_within_a_round_does_not_matter(name, vectors, excess, value):
    def run(shuffled):
        strategy, asked, order = make_strategy(name, vectors(), excess=excess(30), seed=2), [], random.Random(1)
        for _ in range(5):
            scored = [(a, float(round(value(a)))) for a in strategy.ask(12)]  # rounded: many are equal
            asked += [a for a, _ in scored]
            if shuffled:
                order.shuffle(scored)
            strategy.tell(iter(scored))
        return asked

    assert run(False) == run(True)


@each
def test_global_randomness_is_left_alone(name, vectors, excess, value):
    random.seed(7)
    torch.manual_seed(7)
    expected = random.random(), torch.rand(1).item()
    random.seed(7)
    torch.manual_seed(7)
    drive(make_strategy(name, vectors(), excess=excess(30), seed=0), value, (8,), limit=40)
    assert (random.random(), torch.rand(1).item()) == expected


def test_unknown_name_lists_the_choices():
    with pytest.raises(BadInput, match=r"unknown strategy 'evo'; choose from evolution, random"):
        make_strategy("evo", None, excess=lambda a: 0.0, seed=0)
