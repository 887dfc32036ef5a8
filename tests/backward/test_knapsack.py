"""The programme's choice is the best of all choices, written out."""

import itertools
import math
import os
import threading
from random import Random

import pytest

from edgewright.backward.plans.knapsack import FROZEN, Choice, Option, price, solve
from edgewright.core import choose as core_choose


def random_choices(seed: int) -> list[Choice]:
    random = Random(seed)
    return [
        Choice(
            layer=f"l{index}",
            options=(
                Option(FROZEN, 0, 0, 0, 0.0),
                *(
                    Option(
                        name,
                        1024 * random.randrange(20),
                        1024 * random.randrange(5),
                        10**6 * random.randrange(9),
                        random.random(),
                    )
                    for name in ("full", "bias")[: random.randrange(3)]
                ),
            ),
            passing_bytes=1024 * random.randrange(4),
            passing_macs=10**6 * random.randrange(4),
            forward_macs=10**6 * random.randrange(4),
        )
        for index in range(5)
    ]


def costs(choices: list[Choice], picked: tuple[Option, ...], state: int) -> tuple[int, int, float]:
    learned = [option.method != FROZEN for option in picked]
    memory = sum(option.stored + (1 + state) * option.gradient for option in picked)
    macs = sum(option.macs for option in picked) + sum(choice.forward_macs for choice in choices)
    for index, choice in enumerate(choices):
        if any(learned[:index]):
            memory += choice.passing_bytes
            macs += choice.passing_macs
    return memory, macs, sum(option.value for option in picked) - price(choices) * macs


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(("memory", "macs"), [(30, None), (12, 25), (None, 18), (4, None)])
def test_it_finds_what_trying_everything_finds(seed: int, memory: int | None, macs: int | None) -> None:
    choices, state = random_choices(seed), seed % 3
    best = None
    for picked in itertools.product(*(choice.options for choice in choices)):
        used, work, value = costs(choices, picked, state)
        inside = (memory is None or used <= 1024 * memory) and (macs is None or work <= 10**6 * macs)
        if inside and any(option.method != FROZEN for option in picked):
            best = max(value, -math.inf if best is None else best)
    found = solve(choices, memory and 1024 * memory, macs and 10**6 * macs, state=state)
    if best is None:
        assert found is None
        return
    assert found is not None
    picked = tuple(
        next(option for option in choice.options if option.method == found[choice.layer]) for choice in choices
    )
    used, work, value = costs(choices, picked, state)
    assert value == pytest.approx(best, abs=1e-3)
    assert memory is None or used <= 1024 * memory
    assert macs is None or work <= 10**6 * macs


@pytest.mark.parametrize("seed", range(10))
def test_the_cheapest_is_the_least_memory_at_which_something_learns(seed: int) -> None:
    choices = random_choices(seed)
    every = [
        costs(choices, picked, 1)[0]
        for picked in itertools.product(*(choice.options for choice in choices))
        if any(option.method != FROZEN for option in picked)
    ]
    found = solve(choices, None, None, state=1, cheapest=True)
    assert (found is None) == (not every)
    if found is not None:
        picked = tuple(
            next(option for option in choice.options if option.method == found[choice.layer]) for choice in choices
        )
        assert costs(choices, picked, 1)[0] == min(every)


def test_of_two_that_are_worth_nearly_the_same_the_one_with_less_work_is_taken() -> None:
    dear, light = Option("dear", 0, 0, 10**6, 1.0), Option("light", 0, 0, 0, 0.999)
    choices = [Choice("l", (Option(FROZEN, 0, 0, 0, 0.0), dear, light), 0, 0, 10**6)]
    assert solve(choices, None, None, state=1) == {"l": "light"}
    better = [Choice("l", (*choices[0].options[:2], Option("light", 0, 0, 0, 0.9)), 0, 0, 10**6)]
    assert solve(better, None, None, state=1) == {"l": "dear"}


def test_what_other_threads_write_meanwhile_is_not_lost(monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    """The solver runs for up to 20 seconds; stdout belongs to the whole process."""
    solved = core_choose.milp

    def with_company(*given, **options):
        other = threading.Thread(target=os.write, args=(1, b"of another thread\n"))
        other.start()
        other.join()
        return solved(*given, **options)

    monkeypatch.setattr(core_choose, "milp", with_company)
    assert solve(random_choices(3), 2**20, None, state=0) is not None
    assert "of another thread" in capfd.readouterr().out
