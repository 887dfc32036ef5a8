"""What is foreseen of two trainings, and how the clock sets tiers."""

import math

import pytest

from edgewright.job.design.foresee import _on_its_way, slope
from edgewright.search.halving import rungs_of_seconds, sizes
from edgewright.task.kinds.resolve import make_kind


def test_the_slope_is_half_way_between_what_was_seen_and_a_root() -> None:
    assert slope((1000, 40.0), (4000, 20.0)) == pytest.approx(0.5)  # exactly a root
    assert slope((1000, 40.0), (2000, 20.0)) == pytest.approx(0.75)  # falls as 1 / s
    assert slope((1000, 40.0), (2000, 40.0)) == pytest.approx(0.25)  # nothing more was learned
    assert slope((1000, 40.0), (2000, 50.0)) == pytest.approx(0.25)  # worse by noise is not worse for ever
    assert slope((1000, 40.0), (1000, 30.0)) == slope((0, 40.0), (10, 0.0)) == 0.5  # nothing can be said


def test_nothing_is_foreseen_of_a_network_that_hardly_beats_a_guess() -> None:
    accuracy = make_kind("classification", ("a", "b", "c"), {}).metric("accuracy")
    assert not _on_its_way(accuracy, 9.0, 5.7)  # 3 % of the way, as foreseen once: 54.8, and it was 2.6
    assert not _on_its_way(accuracy, 4.0, 5.7)
    assert _on_its_way(accuracy, 30.0, 5.7)
    assert _on_its_way(accuracy, 30.0, None)


def test_one_of_each_group_goes_on_and_is_trained_twice() -> None:
    assert sizes(8) == [8, 2]
    assert sizes(8, groups=3) == [8, 3]
    assert sizes(4, groups=3) == [4, 3]
    assert sizes(3, groups=3) == [3, 2]
    assert sizes(2, groups=3) == [2]
    assert sizes(9, groups=2) == [9, 3, 2] or sizes(9, groups=2) == [9, 3]


@pytest.mark.parametrize(("finalists", "groups", "workers"), [(8, 3, 2), (5, 2, 4), (4, 3, 1), (8, 1, 2)])
def test_the_seconds_are_shared_and_used_up(finalists: int, groups: int, workers: int) -> None:
    rungs = rungs_of_seconds(finalists, 60.0, workers, groups)
    assert math.isclose(sum((rung.seconds or 0) * math.ceil(rung.entrants / workers) for rung in rungs), 60.0)
    lengths = [rung.seconds or 0.0 for rung in rungs]
    assert lengths == sorted(lengths)
