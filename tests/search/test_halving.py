"""The division of a training's time by hand and by its laws."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.search.halving import Rung, rungs_of_epochs, rungs_of_seconds, sizes, survivors


def test_by_hand():
    assert sizes(8) == [8, 2]
    assert sizes(9, eta=2) == [9, 4, 2]
    assert sizes(1) == []
    assert rungs_of_epochs(8, 18) == [Rung(8, 2, None), Rung(2, 6, None)]
    assert rungs_of_epochs(8, 1) == [Rung(8, 1, None), Rung(2, 1, None)]
    # 60 s in two rungs of 30: eight networks on three workers take three turns, two take one.
    assert rungs_of_seconds(8, 60, 3) == [Rung(8, None, 10), Rung(2, None, 30)]


@given(st.integers(1, 64), st.floats(1, 1e5), st.integers(1, 70), st.integers(2, 5))
def test_the_seconds_are_used_and_not_exceeded(num_finalists, seconds, num_workers, eta):
    rungs = rungs_of_seconds(num_finalists, seconds, num_workers, eta)
    used = sum(math.ceil(rung.entrants / num_workers) * (rung.seconds or 0) for rung in rungs)
    assert used == pytest.approx(seconds if rungs else 0)


@given(st.integers(2, 64), st.integers(1, 400), st.integers(2, 5))
def test_fewer_train_longer(num_finalists, epochs, eta):
    rungs = rungs_of_epochs(num_finalists, epochs, eta)
    assert rungs[0].entrants == num_finalists
    assert all(rung.entrants >= 2 and 1 <= (rung.epochs or 0) <= epochs for rung in rungs)
    assert all(
        b.entrants == a.entrants // eta and (b.epochs or 0) >= (a.epochs or 0) for a, b in itertools.pairwise(rungs)
    )


def test_refuses_nonsense():
    with pytest.raises(ValueError, match="eta >= 2"):
        sizes(4, eta=1)


def test_survivors_best_first_equals_in_order_nan_last():
    assert survivors({"a": 1.0, "b": math.nan, "c": 3.0, "d": 1.0, "e": -math.inf}, 4) == ["c", "a", "d", "e"]
    assert survivors({"a": 1.0}, 5) == ["a"]
