"""The stages by themselves, on a ground whose device and task are stand-ins: no network is trained or measured."""

import random
from types import SimpleNamespace
from typing import Any

import pytest

from edgewright.core.cost import cost
from edgewright.core.errors import EdgewrightError, GateFailed
from edgewright.core.pool import InProcess
from edgewright.core.run import RunFolder
from edgewright.core.stopwatch import Stopwatch
from edgewright.core.study import Candidate, Study
from edgewright.job.base import Run
from edgewright.job.design import choose, record, train, training
from edgewright.space.spaces.mobile import MobileSpace
from edgewright.train.loop import Diverged

CREW = InProcess()


@pytest.fixture
def work(tmp_path):
    """A time-boxed run of one minute over 12 candidates, whose device measures each in 4 ms at once."""
    space, rng = MobileSpace.for_images(1, 10, 8), random.Random(0)
    plan = SimpleNamespace(
        minutes=1.0,
        epochs=None,
        compare_random=False,
        finalists=4,
        proxy="size",
        budget=SimpleNamespace(ceilings=lambda: {"latency": 5.0}),
    )
    device = SimpleNamespace(measure=lambda *_: [SimpleNamespace(median_ms=4.0)])
    task = SimpleNamespace(test=range(40), val=range(30))
    fresh = {"start": lambda _: None, "steer": lambda _: plan.proxy, "members": (space,)}
    ground: Any = SimpleNamespace(plan=plan, space=space, device=device, task=task, **fresh)
    with Study(tmp_path / "study.db") as study:
        for score in range(12):
            architecture = space.sample(rng)
            costs = {"latency": cost("latency", 4.0, "table")}
            fields = architecture.model_dump(mode="json")
            study.record(
                Candidate(key=architecture.key(), architecture=fields, costs=costs, scores={"size": float(score)})
            )
        study.note("allotted", {"search": 5.0, "finalists": 10.0, "deploy": 5.0})
        yield Run(ground, RunFolder(tmp_path), study, Stopwatch(study, 60.0))


def test_a_resumed_training_gets_the_seconds_that_are_left_beside_those_it_had(work):
    clock = train._clock(work, num_train=100, step_samples=10, seconds=20.0)
    clock.start(spent=60.0)  # what the checkpoint of a killed process says
    assert clock.progress(1, 1) == pytest.approx(0.75, abs=0.01)


def test_the_rungs_of_a_resumed_run_do_not_follow_the_cores_that_are_there_now(work):
    first = training.rungs_of(work, num_finalists=8, num_workers=8, seconds=60.0)
    assert training.rungs_of(work, num_finalists=8, num_workers=1, seconds=60.0) == first


def test_measuring_ends_with_its_time_once_there_is_a_finalist(work):
    work.watch.add("measure", 10.0)
    assert len(choose.choose(work, CREW).keys) == 1


def test_measuring_with_time_to_spare_finds_all_finalists(work):
    assert len(choose.choose(work, CREW).keys) == 4


def test_measuring_ends_when_nothing_fits_and_the_time_is_long_gone(work):
    work.ground.device.measure = lambda *_: [SimpleNamespace(median_ms=6.0)]  # over the ceiling, each of them
    work.watch.add("measure", 11.0)
    with pytest.raises(GateFailed, match="none of the 1 best candidates keeps the latency ceiling"):
        choose.choose(work, CREW)


def test_a_slow_network_has_more_time_kept_for_its_measurement(work):
    work.study.note("measured", [{"key": "slow", "measured_ms": 100.0}])
    # 300 timed runs with a margin, 40 test images through network and file, 40 and 30 images evaluated.
    assert train._reserve(work, "slow", 20.0) == pytest.approx(8 + 0.1 * (390 + 80 + 70))
    assert train._reserve(work, "other", 20.0) == 20.0


def test_slow_networks_are_run_less_often_to_choose_but_only_where_time_is_short(work):
    plan = work.ground.plan  # 4 finalists
    assert choose._runs(plan, latency_ms=1.0, seconds=5.0) == 200
    assert choose._runs(plan, latency_ms=10.0, seconds=5.0) == 125
    assert choose._runs(plan, latency_ms=500.0, seconds=5.0) == choose.LEAST_RUNS
    plan.minutes = None
    assert choose._runs(plan, latency_ms=500.0, seconds=float("inf")) == 200


def test_a_finalist_that_diverges_or_breaks_the_budget_makes_way_for_the_next(work, monkeypatch):
    keys = list(record.candidates(work))[:3]

    def trained_net(_, key, reserve):
        if key == keys[0]:
            raise Diverged("the training diverged: the loss is nan")
        return f"model of {key}", "evaluation"

    def deploy(_, key, model):
        return SimpleNamespace(broken=["latency is 9 ms"] if key == keys[1] else [])

    monkeypatch.setattr(train, "_train", trained_net)
    monkeypatch.setattr(train, "_deploy", deploy)
    chosen = train.train_and_deploy(work, keys)
    assert (chosen.key, chosen.model) == (keys[2], f"model of {keys[2]}")
    assert work.study.notes("refused:") == {
        keys[0]: ["the training diverged: the loss is nan"],
        keys[1]: ["latency is 9 ms"],
    }
    with pytest.raises(GateFailed, match="the loss is nan"):
        train.train_and_deploy(work, keys[:2])


def test_all_trainings_diverging_is_said_in_one_sentence_also_after_a_resume(work, monkeypatch):
    keys = list(record.candidates(work))[:3]
    trained = []

    def trained_net(_, key, reserve):
        trained.append(key)
        raise Diverged(f"the training diverged: the loss is nan in step {len(trained)}")

    monkeypatch.setattr(train, "_train", trained_net)
    for _ in range(2):
        with pytest.raises(EdgewrightError, match="of every finalist the training diverged: the loss is nan in step 1"):
            train.train_and_deploy(work, keys)
    assert trained == keys
