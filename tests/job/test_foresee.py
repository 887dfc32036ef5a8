"""What is foreseen of two trainings, and how the clock sets tiers."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest

import edgewright.job.design.tiers as tiers_module
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


def _run(seconds: float, samples: int = 35_288, aligned: bool = False, noted: dict[str, Any] | None = None) -> Any:
    """What the rules of the clock ask of a run: what it has noted, its data, and the time that is left."""
    allotted = {"search": 0.0, "finalists": 0.25 * seconds, "deploy": 0.0}
    notes = {"pace": {"coefficients": [0.0] * 6, "error": 0.0, "together": 1.0}, "allotted": allotted} | (noted or {})
    ground = SimpleNamespace(task=SimpleNamespace(train=range(samples), kind=SimpleNamespace(aligned=aligned)))
    study = SimpleNamespace(read_note=notes.get, note=notes.__setitem__)
    watch = SimpleNamespace(left=lambda: seconds)
    return SimpleNamespace(ground=ground, study=study, watch=watch, notes=notes)


@pytest.mark.parametrize("slowest", [1e-5, 1e-3, 3e-3, 0.1])
def test_the_last_tier_sees_enough_and_each_is_twice_as_fast(slowest: float, monkeypatch) -> None:
    monkeypatch.setattr(tiers_module, "_slowest", lambda ground, law: slowest)
    run = _run(160.0)
    law = tiers_module.known_pace(run)
    assert law is not None
    found = tiers_module.tiers(run, law)
    wanted, fitting = tiers_module.enough(run.ground), 0.75 * 160.0 / tiers_module.enough(run.ground)
    assert found[-1].samples >= wanted * (1 - 1e-9)
    assert found[0].most == pytest.approx(min(slowest, fitting) if len(found) == 1 else fitting * 2 ** (len(found) - 1))
    assert len(found) == 1 or found[1].most < slowest  # no tier without a network of its own
    assert [one.most / other.most for one, other in itertools.pairwise(found)] == [2.0] * (len(found) - 1)
    assert tiers_module.tiers(run, law) == found  # a resumed run has those of the first


def test_one_network_where_brief_trainings_tell_nothing(monkeypatch) -> None:
    monkeypatch.setattr(tiers_module, "cores", lambda: 2)
    tier = {"tiers": [(7e-4, 168_000.0)]}
    assert tiers_module.worth_training(_run(150.0, noted=tier), 8) == 1
    assert 2 <= tiers_module.worth_training(_run(600.0, noted=tier), 8) < 8
    assert tiers_module.worth_training(_run(3000.0, noted=tier), 8) == 8
    assert tiers_module.worth_training(_run(150.0, samples=300, noted=tier), 8) == 8  # a small set is soon learned
    assert tiers_module.worth_training(_run(150.0, aligned=True, noted=tier), 8) == 8  # and maps teach more
    assert tiers_module.worth_training(_run(150.0, noted={"pace": None}), 8) == 8  # no clock
