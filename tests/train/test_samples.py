"""Which samples a step learns from."""

import pytest
import torch
from torch import nn
from train_toys import RECIPE, TUNING, learned, linear_net, toy_task

from edgewright.train.samples import Samples


def seen_by(model: nn.Module) -> list[torch.Tensor]:
    """Images that the model is trained on, from now on."""
    seen: list[torch.Tensor] = []

    def note(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if layer.training:
            seen.append(given[0].clone())

    model.register_forward_pre_hook(note)
    return seen


@pytest.mark.parametrize("recipe", [RECIPE, TUNING])
def test_an_epoch_gives_every_image_once_in_an_order_of_its_own(recipe) -> None:
    task, model = toy_task(train=48), linear_net()
    seen = seen_by(model)
    learned(model, task, recipe, steps=9)
    epochs = torch.cat(seen).split(48)
    assert len(epochs) == 3
    of_task = {image.numpy().tobytes() for image in (task.train.inputs.float() - 80) / 50}
    assert all({image.contiguous().numpy().tobytes() for image in epoch} == of_task for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])


@pytest.mark.parametrize("count", [5, 8, 13, 20])
def test_a_task_smaller_than_a_step_is_a_step(count: int) -> None:
    task, model = toy_task(train=count), linear_net()
    seen = seen_by(model)
    found = learned(model, task, TUNING.model_copy(update={"accumulate": 4}), steps=3)
    assert (found.steps, found.epochs) == (3, 3)
    assert sum(map(len, seen)) == 3 * count


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_gone_on_with_at_any_step_is_as_if_it_had_not_stopped(accumulate: int) -> None:
    recipe = TUNING.model_copy(update={"accumulate": accumulate, "batch_size": 7})
    samples = Samples(toy_task(train=45), recipe, (8, 8), seed=5)
    assert samples.per_epoch == 45 // (7 * accumulate)
    whole = [[targets.tolist() for _, targets in next(steps)] for steps in [samples.steps(0)] for _ in range(14)]
    for start in range(9):
        assert [targets.tolist() for _, targets in next(samples.steps(start))] == whole[start]
    assert whole[0] != whole[samples.per_epoch]
