"""MnasNet's trade in the paper's own words."""

import pytest

from edgewright.search.reward import hard_budget, soft_reward


def test_twice_the_latency_is_worth_five_percent_of_accuracy():
    assert soft_reward(70.0 * 1.05, 2 * 80.0, 80.0) == pytest.approx(soft_reward(70.0, 80.0, 80.0), rel=2e-3)


def test_on_target_the_score_itself_and_the_hard_setting():
    assert soft_reward(71.5, 80.0, 80.0) == 71.5
    assert soft_reward(71.5, 40.0, 80.0, under=0.0, over=-1.0) == 71.5
    assert soft_reward(71.5, 160.0, 80.0, under=0.0, over=-1.0) == pytest.approx(71.5 / 2)
    assert soft_reward(71.5, 40.0, 80.0) > 71.5 > soft_reward(71.5, 90.0, 80.0)


def test_refuses_what_has_no_power():
    with pytest.raises(ValueError, match="positive cost"):
        soft_reward(70.0, 0.0, 80.0)
    with pytest.raises(ValueError, match="ceiling is positive"):
        hard_budget(lambda a: 1.0, 0.0)


def test_hard_budget_says_by_how_much(vectors):
    inside = hard_budget(lambda a: float(sum(a.digits)), 8.0)
    make = type(vectors().smallest())
    assert inside(make(digits=(2, 2, 2, 1, 1))) == 0.0
    assert inside(make(digits=(5, 5, 2, 0, 0))) == pytest.approx(0.5)
