"""A search that is cut anywhere goes on as if it had not been: nothing lost, nothing scored twice, same candidates."""

import random

import pytest
import torch

from edgewright.core.cost import cost
from edgewright.core.pool import InProcess
from edgewright.core.study import Study
from edgewright.ir.graph import count_macs
from edgewright.search.explore import Scorer, explore
from edgewright.search.resolve import make_strategy
from edgewright.search.scoring import ScoringJob, save_batches
from edgewright.space.spaces.mobile import MobileSpace
from edgewright.task.base import Split, TaskSpec
from search.cut import Cut, CutAfter

SPEC = TaskSpec(
    name="toy",
    source="dataset",
    classes=("a", "b", "c"),
    channels=1,
    resolution=8,
    mean=(120.0,),
    std=(60.0,),
    flip=False,
    num_train=12,
    num_val=3,
    num_test=3,
    digest="toy",
)
CEILING = 200_000


@pytest.fixture
def scorer(tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 1, 8, 8), generator=generator, dtype=torch.uint8)
    path = tmp_path / "batches.safetensors"
    save_batches(path, Split(images, torch.arange(12) % 3), size=4)
    space = MobileSpace.for_images(1, 3, 8)

    def job(architecture):
        data = architecture.model_dump(mode="json")
        return ScoringJob("mobile", SPEC, data, path, ("zico", "macs"), seed=3)

    def costs(architecture):
        return {"macs": cost("macs", count_macs(space.graph(architecture)), "analytic")}

    return space, Scorer(costs, job, "zico")


def search(study, scorer, workers, count=40, enough=lambda seen: False):
    space, scoring = scorer
    strategy = make_strategy(
        "evolution", space, excess=lambda a: max(0.0, count_macs(space.graph(a)) / CEILING - 1), seed=7
    )
    return explore(study, strategy, scoring, workers, count=count, enough=enough)


def test_all_candidates_are_inside_the_budget_and_scored(tmp_path, scorer):
    with Study(tmp_path / "study.db") as study:
        found = search(study, scorer, InProcess())
    assert len({c.key for c in found}) == 40
    assert all(c.costs["macs"].value <= CEILING for c in found)
    assert all(c.scores["macs"] == c.costs["macs"].value for c in found)


def test_a_search_cut_anywhere_ends_as_the_whole_one(tmp_path, scorer):
    with Study(tmp_path / "whole.db") as study:
        whole = search(study, scorer, InProcess())
    moments = random.Random(5)
    path, scored = tmp_path / "cut.db", 0
    while True:
        pool = CutAfter(moments.randint(1, 15))
        before = pool.left
        with Study(path) as study:
            try:
                found = search(study, scorer, pool)
            except Cut:
                scored += before
                assert len(study.candidates()) == scored  # all that came back is kept
                continue
        scored += before - pool.left
        break
    assert found == whole
    assert scored == 40  # none twice


def test_time_ends_a_search_after_a_whole_round(tmp_path, scorer):
    with Study(tmp_path / "study.db") as study:
        found = search(study, scorer, InProcess(), count=1000, enough=lambda seen: seen >= 20)
    assert len(found) == 32
