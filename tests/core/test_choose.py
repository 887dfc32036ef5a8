"""The knapsack against every choice written out: unequal numbers of options, several limits, what follows."""

import itertools

import numpy as np
import pytest

from edgewright.core.choose import Following, choose


def every(place: list[int]) -> list[tuple[int, ...]]:
    return list(itertools.product(*([o for o, at in enumerate(place) if at == one] for one in range(max(place) + 1))))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("share", [0.2, 0.5, 1.1])
def test_the_best_of_all_choices(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    place = [one for one, count in enumerate(rng.integers(1, 5, size=5)) for _ in range(count)]
    worth, uses = rng.normal(size=len(place)), {name: rng.random(len(place)) for name in "ab"}
    choices = every(place)
    limits = {
        name: float(np.quantile([sum(use[o] for o in one) for one in choices], min(1, share))) * max(1, share)
        for name, use in uses.items()
    }
    inside = [one for one in choices if all(sum(uses[name][o] for o in one) <= limits[name] for name in limits)]
    found = choose(place, worth, uses, limits)
    if not inside:
        assert found is None
        return
    assert found is not None and tuple(found) in inside
    assert sum(worth[o] for o in found) == pytest.approx(max(sum(worth[o] for o in one) for one in inside))


def test_a_limit_that_a_choice_meets_exactly_is_kept() -> None:
    uses = {"a": np.array([0.1, 0.7, 0.2, 0.6])}
    assert choose([0, 0, 1, 1], np.array([0.0, 2.0, 0.0, 1.0]), uses, {"a": 0.1 + 0.6}) == [0, 3]
    assert choose([0, 0, 1, 1], np.array([0.0, 2.0, 0.0, 1.0]), uses, {"a": 0.7 + 0.6 - 1e-7}) == [1, 2]
    assert choose([0, 0, 1, 1], np.array([0.0, 2.0, 0.0, 1.0]), uses, {"a": 0.3 - 1e-6}) is None


def test_a_limit_of_nothing_takes_what_uses_nothing() -> None:
    assert choose([0, 0], np.array([5.0, 1.0]), {"a": np.array([3.0, 0.0])}, {"a": 0.0}) == [1]
    assert choose([0, 0], np.array([5.0, 1.0]), {"a": np.array([3.0, 1.0])}, {"a": -1.0}) is None


def test_what_follows_is_paid_for_once() -> None:
    """Options 1 and 3 need a licence; its price is paid once, so both are worth it where one alone is not."""
    place, worth = [0, 0, 1, 1], np.array([0.0, 2.0, 0.0, 2.0])
    needs = [([(4, 1.0), (1, -1.0)], 0.0), ([(4, 1.0), (3, -1.0)], 0.0)]
    cost = {"a": np.zeros(4)}
    for price, expected in ((3.0, [1, 3]), (5.0, [0, 2])):
        assert choose(place, worth, cost, {}, Following(np.array([-price]), {}, needs)) == expected
    bytes_ = Following(np.zeros(1), {"a": np.array([7.0])}, needs)
    assert choose(place, worth, cost, {"a": 6.9}, bytes_) == [0, 2]
    assert choose(place, worth, cost, {"a": 7.0}, bytes_) == [1, 3]
