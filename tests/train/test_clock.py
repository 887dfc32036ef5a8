import math

import pytest

from edgewright.core.errors import BadInput
from edgewright.train.clock import StepClock, TimeClock, learning_rate, steps_per_epoch


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.time = 1234.5

    def __call__(self) -> float:
        return self.time


def test_learning_rate_closed_form() -> None:
    assert learning_rate(0.0, peak=0.3, warmup=0.2) == 0.0
    assert learning_rate(0.05, peak=0.3, warmup=0.2) == pytest.approx(0.075)
    assert learning_rate(0.2, peak=0.3, warmup=0.2) == pytest.approx(0.3)
    assert learning_rate(0.6, peak=0.3, warmup=0.2) == pytest.approx(0.15)
    assert learning_rate(0.4, peak=0.3, warmup=0.2) == pytest.approx(0.15 * (1 + math.sqrt(0.5)))
    assert learning_rate(1.0, peak=0.3, warmup=0.2) == pytest.approx(0.0, abs=1e-15)
    assert learning_rate(0.0, peak=0.3, warmup=0.0) == 0.3


def test_step_clock_counts_steps_only() -> None:
    hand = Hand()
    clock = StepClock(40, now=hand)
    clock.start(7.0)
    hand.time += 2.5
    assert clock.progress(10, 99.0, margin=1000) == 0.25
    assert clock.progress(41, 0.0) == 1.0
    assert clock.spent() == pytest.approx(9.5)


def test_time_clock_is_the_further_of_time_and_epochs() -> None:
    hand = Hand()
    clock = TimeClock(20, max_epochs=10, now=hand)
    clock.start()
    hand.time += 6
    assert clock.progress(0, 1.0) == pytest.approx(0.3)
    assert clock.progress(0, 4.0) == pytest.approx(0.4)
    assert clock.progress(0, 1.0, margin=8) == pytest.approx(0.5)
    assert clock.progress(0, 1.0, margin=1000) == pytest.approx(0.6), "half of the time is for training"
    hand.time += 100
    assert clock.progress(0, 1.0) == 1.0


def test_time_already_spent_counts() -> None:
    hand = Hand()
    clock = TimeClock(20, spent=5, now=hand)
    clock.start()
    assert clock.progress(0, 0.0) == pytest.approx(0.25)
    clock.start(8.0)
    assert clock.spent() == pytest.approx(8.0)


@pytest.mark.parametrize("make", [lambda: StepClock(0), lambda: TimeClock(0), lambda: TimeClock(float("inf"))])
def test_nothing_to_do_is_refused(make) -> None:
    with pytest.raises(BadInput):
        make()


def test_steps_per_epoch_leaves_out_the_rest() -> None:
    assert steps_per_epoch(1295, 32) == 40
    assert steps_per_epoch(5, 32) == 1


def test_seconds_from_now_come_on_top_of_what_was_spent() -> None:
    hand = Hand()
    clock = TimeClock(10, from_now=True, now=hand)
    clock.start(30.0)
    assert clock.progress(0, 0.0) == pytest.approx(0.75)
    hand.time += 10
    assert clock.progress(0, 0.0) == 1.0
