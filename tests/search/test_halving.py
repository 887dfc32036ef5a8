"""The division of epochs by hand and by its laws."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.search.halving import Share, plan, survivors


def test_by_hand():
    assert plan(8, 48) == (Share(8, 2), Share(4, 4), Share(2, 8))
    assert plan(6, 24) == (Share(6, 2), Share(3, 4))
    assert plan(9, 36, eta=3) == (Share(9, 2), Share(3, 6))


def test_too_few_epochs_take_fewer_networks():
    assert plan(8, 5) == (Share(4, 1),) or sum(s.networks * s.epochs for s in plan(8, 5)) <= 5
    assert plan(8, 1) == () == plan(1, 100)


@given(st.integers(1, 64), st.integers(0, 400), st.integers(2, 5))
def test_laws(num_finalists, total, eta):
    shares = plan(num_finalists, total, eta)
    assert sum(share.networks * share.epochs for share in shares) <= total
    assert all(share.epochs >= 1 and 2 <= share.networks <= num_finalists for share in shares)
    assert all(b.networks == a.networks // eta for a, b in itertools.pairwise(shares))


def test_refuses_nonsense():
    with pytest.raises(ValueError, match="eta >= 2"):
        plan(4, 10, eta=1)


def test_survivors_best_first_equals_in_order_nan_last():
    assert survivors({"a": 1.0, "b": math.nan, "c": 3.0, "d": 1.0, "e": -math.inf}, 4) == ["c", "a", "d", "e"]
    assert survivors({"a": 1.0}, 5) == ["a"]
