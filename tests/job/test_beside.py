"""The choice of a search beside random networks: by hand, and through the stage with trainings that are stand-ins."""

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

from edgewright.core.cost import cost
from edgewright.core.pool import InProcess
from edgewright.core.run import RunFolder
from edgewright.core.stopwatch import Stopwatch
from edgewright.core.study import Candidate, Study
from edgewright.ir.graph import count_macs
from edgewright.job.base import Run
from edgewright.job.design import beside, training
from edgewright.job.design.beside import compare_with_random, improvement
from edgewright.job.design.training import RANDOM, rungs_of
from edgewright.search.halving import Rung
from edgewright.space.spaces.mobile import MobileSpace

MOST = 2e5


@pytest.mark.parametrize(
    ("chosen", "higher", "expected"),
    [
        (66.0, True, (3, 66.0, 55.0, 60.0, 20.0, 100 / 11)),
        (44.0, False, (3, 44.0, 55.0, 50.0, 20.0, 100 / 11)),
        (math.nan, True, (3, None, 55.0, 60.0, None, 100 / 11)),
    ],
)
def test_the_improvement_by_hand_and_what_diverged_is_left_out(chosen: float, higher: bool, expected: tuple) -> None:
    figures = {"mine": chosen, "a": 50.0, "b": 60.0, "c": 55.0, "d": math.nan}
    found = improvement("mine", figures, ["a", "b", "c", "d"], higher=higher)
    told = (found.networks, found.chosen, found.average, found.best, found.improvement, found.best_improvement)
    assert told == tuple(value if value is None else pytest.approx(value) for value in expected)


def test_where_there_is_nothing_to_divide_by_it_says_so() -> None:
    for figures in ({"mine": 1.0, "a": 0.0}, {"mine": 1.0, "a": math.nan}):
        found = improvement("mine", figures, ["a"], higher=True)
        assert found.improvement is None and "nothing to compare with" in found.text()
    below = improvement("mine", {"mine": -1.0, "a": -2.0}, ["a"], higher=True)
    assert below.improvement == pytest.approx(50) and "+50.0 % over the average of 1" in below.text("points")


@pytest.fixture
def work(tmp_path):
    """One scored candidate, the first finalist; a budget of MACs that most samples of the space break."""
    space = MobileSpace.for_images(1, 10, 8)
    plan = SimpleNamespace(seed=0, minutes=None, epochs=18, compare_random=True)

    def costs(architecture):
        return {"macs": cost("macs", count_macs(space.graph(architecture)), "analytic")}

    ground: Any = SimpleNamespace(
        plan=plan,
        space=space,
        costs=costs,
        excess=lambda architecture: max(0.0, costs(architecture)["macs"].value / MOST - 1),
        task=SimpleNamespace(
            spec=SimpleNamespace(decides="accuracy"),
            kind=SimpleNamespace(metric=lambda _: SimpleNamespace(higher_is_better=True)),
        ),
    )
    first = space.sample(random.Random(0))
    with Study(tmp_path / "study.db") as study:
        study.record(
            Candidate(key=first.key(), architecture=first.model_dump(mode="json"), costs=costs(first), scores={})
        )
        study.note(f"rung-0:{first.key()}", {"val": 66.0, "rank": 66.0})
        yield Run(ground, RunFolder(tmp_path), study, Stopwatch(study, 60.0)), first.key()


def test_random_networks_keep_the_budget_and_a_cut_comparison_goes_on(work, monkeypatch) -> None:
    run, key = work
    trained: list[Candidate] = []
    monkeypatch.setattr(beside, "brief_training", lambda _run, candidate, *_: candidate)

    def train(candidate: Candidate) -> dict[str, float]:
        if len(trained) == 3 and not run.study.read_note("cut"):
            run.study.note("cut", True)
            raise KeyboardInterrupt
        trained.append(candidate)
        return {"val": 40.0 + len(trained), "rank": 40.0}

    monkeypatch.setattr(beside, "train_finalist", train)
    with pytest.raises(KeyboardInterrupt):
        compare_with_random(run, InProcess(), [key, "another"], Rung(2, 6, None))
    for _ in range(2):  # a third time nothing is trained
        compare_with_random(run, InProcess(), [key, "another"], Rung(2, 6, None))
    assert len({one.key for one in trained}) == len(trained) == RANDOM
    assert all(one.costs["macs"].value <= MOST for one in trained)
    noted = run.study.read_note("random")
    average = 40 + (1 + RANDOM) / 2
    assert noted["networks"] == RANDOM and noted["key"] == key
    assert noted["improvement"] == pytest.approx(100 * (66 - average) / average)
    assert noted["best_improvement"] == pytest.approx(100 * (40 + RANDOM - average) / average)


def test_a_single_finalist_is_trained_for_it_and_a_time_box_pays_for_it(work) -> None:
    run, _ = work
    assert rungs_of(run, 1, 2, 0) == [Rung(2, 6, None)]
    for entrants, workers in ((8, 3), (2, 2), (5, 1)):
        run.ground.plan.minutes, run.ground.plan.epochs = 1.0, None
        run.study.note("rungs", None)
        rungs = rungs_of(run, entrants, workers, 60.0)
        spent = [rung.seconds * -(-rung.entrants // workers) for rung in rungs]
        assert sum(spent) + rungs[0].seconds * -(-RANDOM // workers) == pytest.approx(0.9 * 60)
        run.ground.plan.compare_random = False
        assert training._for_rungs(run.ground.plan, entrants, workers) == 1
        run.ground.plan.compare_random = True
