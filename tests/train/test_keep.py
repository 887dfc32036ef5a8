"""Which weights a training ends with, where those of the best look at val are kept."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from train_toys import RECIPE, TUNING, conv_net, equal, learned, linear_net, toy_task, weights

from edgewright.core.errors import BadInput
from edgewright.task.base import Split
from edgewright.train.record import Record


def mislabelled():
    """Training on it can only make val worse."""
    task = toy_task()
    return dataclasses.replace(task, train=Split(task.train.inputs, (task.train.targets + 1) % 3))


def test_the_first_look_is_before_the_first_step() -> None:
    found = learned(linear_net(), recipe=TUNING, steps=60)
    assert found.history == found.looks
    assert found.history[0].step == 0 and found.history[-1].step == 60
    assert found.history[0].train_loss is None
    assert found.val.value == max(look.val.value for look in found.looks)


def test_a_loss_that_is_no_number_names_the_step_and_leaves_the_best_weights(tmp_path: Path) -> None:
    model = linear_net()
    best: dict[str, torch.Tensor] = {}

    def spoil(look: Record) -> None:
        if look.step == 8:  # better than the looks before; what comes next is not a number
            best.update(weights(model))
            model.register_forward_hook(lambda layer, _, output: output / 0 if layer.training else None)

    found = learned(model, recipe=TUNING, steps=40, tell=spoil, checkpoint=tmp_path / "c")
    assert found.stopped is not None and "the loss is nan in epoch 2, step 9," in found.stopped
    assert "those of step 8" in found.stopped
    assert best and equal(model, best)
    assert found.val.value == max(look.val.value for look in found.looks)
    assert learned(linear_net(), recipe=TUNING, steps=40, checkpoint=tmp_path / "c").stopped == found.stopped


def test_outputs_that_are_no_numbers_to_begin_with() -> None:
    model = linear_net()
    nn.init.constant_(model[1].weight, math.nan)
    with pytest.raises(BadInput, match="not numbers before the first step"):
        learned(model, recipe=TUNING)


@pytest.mark.parametrize("recipe", [TUNING, RECIPE.model_copy(update={"keep": "best"})], ids=["tuning", "scratch"])
def test_a_rate_far_too_high_leaves_what_came(recipe) -> None:
    model = conv_net()
    start = weights(model)
    found = learned(model, recipe=recipe.model_copy(update={"lr": 1e38, "warmup": 0.0}))
    assert found.stopped is not None and "1e+38" in found.stopped and "those of step 0" in found.stopped
    assert equal(model, start)


def test_patience_counts_looks_since_the_best() -> None:
    """The first look stays the best, and so do its weights."""
    model = linear_net()
    learned(model, recipe=TUNING, steps=60)
    good = weights(model)
    found = learned(model, mislabelled(), TUNING.model_copy(update={"patience": 4}), steps=100)
    assert found.stopped == "nothing on val got better for 4 looks at it"
    assert [look.step for look in found.history] == [0, 5, 10, 15, 20]
    assert found.val.value == 100.0
    assert equal(model, good)


def test_the_best_average_is_kept_with_the_statistics_of_its_norms() -> None:
    """Fresh weights, an average and norms that learn: what is handed out answers as it did when it was looked at."""
    model = conv_net()
    learned(model, steps=150)
    good = weights(model)
    found = learned(model, mislabelled(), RECIPE.model_copy(update={"keep": "best"}), steps=30)
    assert found.val == found.looks[0].val and len(found.looks) > 4
    assert equal(model, good)


def test_between_equals_the_smaller_loss_is_kept() -> None:
    """Right about every val image from the start, but unsure: it may still learn to be sure."""
    model, task = linear_net(), toy_task()
    learned(model, task, TUNING, steps=60)
    with torch.no_grad():
        model[1].weight *= 1e-3
        model[1].bias *= 1e-3
    found = learned(model, task, TUNING, steps=20)
    assert {look.val.value for look in found.looks} == {100.0}
    x = (task.val.inputs.float() - 80) / 50
    loss = nn.functional.cross_entropy(model(x), task.val.targets).item()
    losses = [look.val_loss or 0.0 for look in found.looks]
    assert loss == pytest.approx(min(losses), rel=1e-4)
    assert loss < 0.5 * losses[0]
