"""Brief training by rungs: the better network wins, a cut goes on, and the test part is never at hand."""

import math
import random
from dataclasses import replace

import pytest
import torch

from edgewright.core.pool import InProcess
from edgewright.core.pool import pool as pool_of
from edgewright.core.study import Study
from edgewright.search.finalists import Rung, TrainingJob, briefly_trained, halve, save_splits, train_finalist
from edgewright.space.spaces.mobile import MobileSpace
from edgewright.task.base import Split
from edgewright.task.load import load_task
from edgewright.task.stored import read_splits
from edgewright.train.recipe import recipe_for
from search.cut import Cut, CutAfter

RUNGS = [Rung(3, 1, None), Rung(2, 2, None)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Three small architectures by key, and the job for each."""
    folder = tmp_path_factory.mktemp("finalists")
    task = load_task("digits", seed=0)
    save_splits(task, folder / "data.safetensors")
    space, rng = MobileSpace.for_images(1, 10, 8), random.Random(0)
    small = space.smallest()
    architectures = {a.key(): a for a in (small, space.mutate(small, rng), space.mutate(space.mutate(small, rng), rng))}

    def job(key: str, index: int, rung: Rung) -> TrainingJob:
        return TrainingJob(
            space="mobile",
            spec=task.spec,
            architecture=architectures[key].model_dump(mode="json"),
            recipe=recipe_for(task.spec, 2),
            data=folder / "data.safetensors",
            checkpoint=folder / f"{index}-{key}.safetensors",
            seed=1,
            epochs=rung.epochs,
            seconds=rung.seconds,
        )

    return folder, list(architectures), job


def test_workers_never_hold_the_test_part(bench):
    folder, _, _ = bench
    assert set(read_splits(folder / "data.safetensors")) == {"train", "val"}


def test_a_finalist_trains_the_same_anywhere(bench):
    _, keys, job = bench
    first = train_finalist(job(keys[0], 7, RUNGS[0]))
    torch.manual_seed(99)
    again = train_finalist(job(keys[0], 8, RUNGS[0]))
    assert first["val"] == again["val"] == first["rank"]
    assert [r["train_loss"] for r in first["history"]] == [r["train_loss"] for r in again["history"]]


def test_halving_ranks_by_the_last_rung_and_goes_on_after_a_cut(bench, tmp_path):
    _, keys, job = bench
    with Study(tmp_path / "study.db") as study:
        with pytest.raises(Cut):
            halve(study, CutAfter(2), keys, RUNGS, job, lambda: None)
        assert len(study.notes("rung-0:")) == 2
        pool = CutAfter(3)
        ranking = halve(study, pool, keys, RUNGS, job, lambda: None)
        assert pool.left == 0  # the one that was missing and the two of the second rung
        first, second = study.notes("rung-0:"), study.notes("rung-1:")
    assert sorted(ranking) == sorted(keys)
    assert set(second) == set(ranking[:2]) == set(sorted(first, key=lambda key: -first[key]["rank"])[:2])
    assert second[ranking[0]]["rank"] >= second[ranking[1]]["rank"]


class Counting(InProcess):
    """A pool that keeps what it was asked to train."""

    def __init__(self) -> None:
        self.asked: list[TrainingJob] = []

    def imap(self, function, items):
        self.asked += items
        return super().imap(function, items)


def hot_for(job, bad: str, folder):
    """The bench's jobs, with a learning rate for `bad` at which nothing holds together."""

    def hot(key: str, index: int, rung: Rung) -> TrainingJob:
        wanted = replace(job(key, index, rung), checkpoint=folder / f"{index}-{key}.safetensors")
        steep = wanted.recipe.model_copy(update={"optimizer": "sgd", "lr": 1e30, "warmup": 0.0})
        return replace(wanted, recipe=steep) if key == bad else wanted

    return hot


def test_a_finalist_that_diverges_ranks_last_and_is_not_tried_again(bench, tmp_path):
    _, keys, job = bench
    rungs = [Rung(3, 1, None), Rung(3, 1, None)]  # room for all three in both
    with Study(tmp_path / "study.db") as study:
        pool = Counting()
        ranking = halve(study, pool, keys, rungs, hot_for(job, keys[0], tmp_path), lambda: None)
        assert len(pool.asked) == 3 + 2
        assert math.isnan(study.notes("rung-0:")[keys[0]]["rank"])
        resumed = Counting()
        assert halve(study, resumed, keys, rungs, hot_for(job, keys[0], tmp_path), lambda: None) == ranking
        assert resumed.asked == []
    assert ranking[-1] == keys[0]


@pytest.mark.slow
def test_a_training_that_diverges_elsewhere_comes_back_as_a_value(bench, tmp_path):
    _, keys, job = bench
    with pool_of(workers=2) as workers, Study(tmp_path / "study.db") as study:
        ranking = halve(study, workers, keys[:2], [Rung(2, 1, None)], hot_for(job, keys[0], tmp_path), lambda: None)
    assert ranking == [keys[1], keys[0]]


def test_a_finished_brief_training_is_had_again_at_once(bench):
    _, keys, job = bench
    first = train_finalist(job(keys[1], 9, RUNGS[0]))
    model, trained = briefly_trained(job(keys[1], 9, RUNGS[0]))
    assert trained.val.value == first["val"]
    assert trained.samples_per_second == 0  # not a step was made
    assert not model.training


def test_another_runs_data_in_a_file_of_the_same_name_is_read_anew(bench, tmp_path):
    """A second design in one process must not train on the first one's data."""
    _, keys, job = bench
    data = tmp_path / "data.safetensors"
    made = []
    for shift in (0, 1):
        task = load_task("digits")
        moved = replace(task, train=Split(task.train.inputs, (task.train.targets + shift) % 10))
        save_splits(moved, data)
        here = replace(job(keys[0], 0, RUNGS[0]), data=data, checkpoint=tmp_path / f"{shift}.safetensors")
        made.append(train_finalist(here)["history"][0]["train_loss"])
    assert made[0] != made[1]
