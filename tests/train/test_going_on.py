"""A training that was cut goes on as if it had never stopped; one that is another's is refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from killed import digest
from torch import nn
from train_toys import RECIPE, TUNING, conv_net, equal, learned, linear_net, timeless, toy_task, weights

from edgewright.core.errors import BadInput
from edgewright.core.seed import rng
from edgewright.task.augment.image import Augment
from edgewright.train import loop
from edgewright.train.recipe import Recipe
from edgewright.train.record import Record
from edgewright.train.step import loss_of

ROOT = Path(__file__).parents[2]
MOVING = {"augment": Augment(pad=1, rotate=10, erase=0.3)}
RECIPES = {
    "sgd": RECIPE.model_copy(update={"mixup": 0.3}),
    "adamw": RECIPE.model_copy(update={"optimizer": "adamw", "mixup": 0.3}),
    "fine-tuning": TUNING.model_copy(update=MOVING),
    # The norms' statistics are kept with the best weights, and so is the average of both.
    "best of an average, accumulated": RECIPE.model_copy(
        update={**MOVING, "accumulate": 2, "batch_size": 8, "clip": 2.0, "keep": "best", "looks": "step"}
    ),
}


@pytest.mark.parametrize("name", list(RECIPES))
def test_cut_and_resumed_equals_uncut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Cut three times, with momentum, dropout, a tied weight, and batch norms; ends within an epoch."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    recipe, path = RECIPES[name], tmp_path / "c.safetensors"
    whole, expected = conv_net(), []
    found = learned(whole, recipe=recipe, steps=43, tell=expected.append)
    assert tuple(expected) == found.history

    def cut_at(step: int):
        def cut(record: Record) -> None:
            if record.step >= step:
                raise InterruptedError

        return cut

    for step in (5, 20, 34):
        with pytest.raises(InterruptedError):
            learned(conv_net(), recipe=recipe, steps=43, checkpoint=path, tell=cut_at(step))
    model, told = conv_net(), []
    again = learned(model, recipe=recipe, steps=43, checkpoint=path, tell=told.append)
    assert 34 < told[0].step <= 43
    assert equal(model, weights(whole))
    assert timeless(again) == timeless(found)

    done = conv_net()  # a finished one is given back, without a step
    assert timeless(learned(done, recipe=recipe, steps=43, checkpoint=path, tell=cut_at(0))) == timeless(found)
    assert equal(done, weights(whole))


@pytest.mark.parametrize("recipe", [RECIPE, TUNING], ids=["scratch", "tuning"])
def test_a_training_cut_within_an_epoch_goes_on_from_the_step_it_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    """Epochs may take hours; here of six steps, kept after each, cut within three of them and right after an end."""
    recipe = recipe.model_copy(update={"mixup": 0.3, **MOVING})
    plain = loss_of(toy_task().kind, 0.1)

    def train(path: Path | None, stop: int = 1000):
        calls = 0

        def loss(model: nn.Module, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == recipe.accumulate * stop:
                raise KeyboardInterrupt
            return plain(model, x, targets)

        torch.manual_seed(3)
        model = nn.Sequential(*conv_net(), nn.Dropout(0.3))
        found = learned(model, toy_task(train=96), recipe, 21, checkpoint=path, loss=loss)
        return model, found, calls / recipe.accumulate

    whole, expected, _ = train(None)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "STRETCH_SECONDS", 0.0)
    for stop in (3, 2, 4, 7):  # steps until the cut: 2 are kept, then 3, 6 and 12
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "c", stop)
    model, found, steps = train(tmp_path / "c")
    assert steps == 21 - 12
    assert equal(model, weights(whole))
    assert timeless(found) == timeless(expected)


@pytest.mark.parametrize("recipe", [RECIPE, TUNING], ids=["scratch", "tuning"])
@pytest.mark.parametrize("change", ["recipe", "model", "schedule", "what learns", "number of samples"])
def test_another_trainings_checkpoint_is_refused(tmp_path: Path, recipe: Recipe, change: str) -> None:
    learned(conv_net(), recipe=recipe, steps=2, checkpoint=tmp_path / "c")
    model, task, steps = conv_net(width=9 if change == "model" else 8), toy_task(), 3 if change == "schedule" else 2
    if change == "recipe":
        recipe = recipe.model_copy(update={"lr": 0.3})
    elif change == "what learns":
        model[11].bias.requires_grad_(False)
    elif change == "number of samples":
        task = toy_task(train=91)
    with pytest.raises(BadInput, match=rf"another training \(another {change}"):
        learned(model, task, recipe, steps, checkpoint=tmp_path / "c")


def test_one_that_stopped_early_stays_so(tmp_path: Path) -> None:
    recipe = TUNING.model_copy(update={"lr": 1e38})
    found = learned(linear_net(), recipe=recipe, checkpoint=tmp_path / "c")
    assert found.stopped is not None
    assert learned(linear_net(), recipe=recipe, checkpoint=tmp_path / "c").stopped == found.stopped


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scratch", "tuning"])
def test_killed_at_random_moments_and_resumed_gives_the_same_weights(tmp_path: Path, name: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    command = [sys.executable, str(ROOT / "tests/train/killed.py"), name, str(killed)]
    env = os.environ | {"PYTHONPATH": f"{ROOT}/src", "OMP_NUM_THREADS": "1"}
    random = rng(int(time.time()), "kill")
    for _ in range(2):
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        while process.stdout.readline() == "step 0\n":  # until it is learning, and has kept something
            pass
        time.sleep(random.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert (killed / "training.safetensors").exists()
    assert digest(name, killed) == digest(name, whole)
