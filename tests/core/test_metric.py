import math

import pytest

from edgewright.core.metric import Score


def test_a_score_ranks_by_what_is_better():
    up, down = Score(name="accuracy", value=90), Score(name="error", value=3, unit="px", higher_is_better=False)
    assert up.rank == 90
    assert down.rank == -3
    assert Score(name="accuracy", value=math.nan).rank == -math.inf
    assert Score(name="error", value=math.nan, higher_is_better=False).rank == -math.inf


@pytest.mark.parametrize(("higher", "lost"), [(True, 5), (False, -5)])
def test_what_is_lost_is_a_loss_in_either_direction(higher, lost):
    before, after = (Score(name="x", value=v, higher_is_better=higher) for v in (20, 15))
    assert after.lost_from(before) == lost


def test_words():
    assert str(Score(name="balanced_accuracy", value=81.256)) == "balanced accuracy 81.26 %"
    assert str(Score(name="count", value=3, unit="")) == "count 3.00"
