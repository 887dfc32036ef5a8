"""Two inputs, and two targets, through the main job: each input is needed, each target is learned."""

from pathlib import Path

import numpy as np
import pytest

import edgewright
from edgewright.core.plan import Plan
from edgewright.core.run import RunFolder
from edgewright.core.seed import derive
from edgewright.job.design.ground import check
from edgewright.train.clock import StepClock, steps_per_epoch
from edgewright.train.evaluate import evaluate
from edgewright.train.loop import fit
from edgewright.train.recipe import recipe_for

BUDGET = {"macs": 3e5}
NOT_YET = "the gates of deploy know one input and one output"


def two_inputs(path: Path) -> str:
    """Four classes: whether a block is bright in the image, and whether the left is near in the depth map."""
    random, found = np.random.default_rng(0), {}
    for part, count in (("train", 400), ("test", 120)):
        label = random.integers(0, 4, count)
        image = random.integers(0, 40, (count, 12, 16, 3))
        depth = random.random((count, 12, 16)).astype(np.float32) * 0.2
        image[label // 2 == 1, 3:9, 4:12] += 180
        depth[label % 2 == 1, :, :8] += 0.8
        found |= {f"x_{part}.image": image.astype(np.uint8), f"x_{part}.depth": depth, f"y_{part}": label}
    np.savez(path, **found)
    return f"arrays:{path}"


def two_targets(path: Path) -> str:
    """Which half is lit, and in which colour."""
    random, found = np.random.default_rng(0), {}
    for part, count in (("train", 400), ("test", 120)):
        side, colour = random.integers(0, 2, count), random.integers(0, 3, count)
        image = random.integers(0, 60, (count, 12, 16, 3))
        for one, left, channel in zip(image, side, colour, strict=True):
            one[2:10, 8 * (1 - left) : 16 - 8 * left, channel] += 180
        found |= {f"x_{part}": image.astype(np.uint8), f"y_{part}.side": side, f"y_{part}.colour": colour}
    np.savez(path, **found, **{"classes.side": np.array(["right", "left"]), "classes.colour": np.array(list("rgb"))})
    return f"arrays:{path}"


MADE = {"inputs": (two_inputs, "accuracy", 80), "targets": (two_targets, "mean_score", 75)}


@pytest.mark.parametrize("name", MADE)
def test_a_network_of_the_space_learns_it(tmp_path, name):
    """More than one input, or target, alone can tell: 50 % by one of the two inputs, 2 of 3 by one of the targets."""
    make, decides, least = MADE[name]
    plan = Plan(task=make(tmp_path / "data.npz"), budget=edgewright.Budget(**BUDGET))
    named = check(plan)
    task, space = named.task, named.space
    assert task.spec.decides == decides
    model = space.build(space.smallest())
    recipe = recipe_for(task.spec, 8).model_copy(update={"augment": None})
    steps = 12 * steps_per_epoch(len(task.train), recipe.batch_size)
    size = space.resolution(space.smallest())
    fit(model, task, recipe, size=size, seed=derive(0, "test"), clock=StepClock(steps))
    found = evaluate(model, task.test, task.spec, size)
    assert found.score.value > least, found.values


@pytest.mark.slow
@pytest.mark.skip(reason=NOT_YET)
@pytest.mark.parametrize("name", MADE)
def test_designed_to_the_end(tmp_path, name):
    make, decides, least = MADE[name]
    out = tmp_path / "run"
    source = make(tmp_path / "data.npz")
    result = edgewright.design(
        task=source, budget=edgewright.Budget(**BUDGET), candidates=6, finalists=2, epochs=8, workers=1, out=out
    )
    assert result.metrics.decides == decides
    assert result.metrics.test[decides] > least
    assert len(result.export.outputs) == (2 if name == "targets" else 1)
    assert RunFolder(out).report.exists()
    told = edgewright.predict(out, [source])
    assert [entry["file"] for entry in told[:2]] == ["data.npz[0]", "data.npz[1]"]
    assert set(told[0]) >= ({"side", "colour"} if name == "targets" else {"class", "probability"})
