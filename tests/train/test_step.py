"""One step: what it does to the weights, for fresh ones and for those that have learned."""

import dataclasses

import pytest
import torch
from torch import nn
from train_toys import RECIPE, TUNING, conv_net, learned, linear_net, toy_task, weights

from edgewright.backward.plans.planner import plan, plan_of
from edgewright.backward.plans.training_plan import TrainingBudget, applied
from edgewright.core.errors import BadInput
from edgewright.task.kinds.classification import Classification
from edgewright.train.recipe import Recipe
from edgewright.train.step import Learner, loss_of

KIND = Classification(("a", "b", "c"), {})


def test_one_step_by_hand() -> None:
    """SGD with Nesterov momentum moves by lr (1 + 0.9) g at first; the average then takes nine tenths of it."""
    task = toy_task(train=16)
    model = linear_net()
    start = model[1].weight.detach().clone()
    x = ((task.train.inputs.float() - 80) / 50).flatten(1)
    logits = x @ start.T + model[1].bias.detach()
    q = 0.8 * nn.functional.one_hot(task.train.targets, 3) + 0.2 / 3  # smoothing 0.2 over 3 classes
    gradient = ((logits.softmax(1) - q) / 16).T @ x
    learned(model, task, RECIPE.model_copy(update={"label_smoothing": 0.2, "weight_decay": 0.01, "warmup": 0.0}), 1)
    lr = 0.1 * 0.5  # the middle of the only step is half way down the cosine
    expected = start - 0.9 * lr * 1.9 * (gradient + 0.01 * start)
    torch.testing.assert_close(model[1].weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_one_step_of_a_fine_tuning_by_hand() -> None:
    """w - lr g, with lr halfway down the cosine; the first step is never cut."""
    task, model = toy_task(train=16), linear_net()
    start, bias = model[1].weight.detach().clone(), model[1].bias.detach().clone()
    x = ((task.train.inputs.float() - 80) / 50).flatten(1)
    error = ((x @ start.T + bias).softmax(1) - nn.functional.one_hot(task.train.targets, 3)) / 16
    gradient, of_bias = error.T @ x, error.sum(0)
    recipe = TUNING.model_copy(update={"clip": 0.1, "longest": 1e9, "lr": 0.1, "weight_decay": 0.01})
    task = dataclasses.replace(task, val=task.train)  # on which the step is better than the start
    learned(model, task, recipe, steps=1)
    expected = start - 0.05 * (gradient + 0.01 * start)
    torch.testing.assert_close(model[1].weight.detach(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model[1].bias.detach(), bias - 0.05 * of_bias, rtol=1e-4, atol=1e-6)


def test_steps_alone_without_epochs_clock_or_task() -> None:
    """What a federation or a supernet calls: here plain gradient descent, against its formula."""
    model, generator = nn.Linear(4, 3), torch.Generator().manual_seed(1)
    recipe = Recipe(momentum=0.0, weight_decay=0.0, label_smoothing=0.0, ema_decay=None, batch_size=5)
    learner, expected = Learner(model, recipe, KIND), model.weight.detach().clone()
    bias = model.bias.detach().clone()
    for step in range(3):
        x, y = torch.randn(5, 4, generator=generator), torch.tensor([0, 1, 2, 2, 1])
        error = ((x @ expected.T + bias).softmax(1) - nn.functional.one_hot(y, 3)) / 5
        expected, bias = expected - 0.2 * error.T @ x, bias - 0.2 * error.sum(0)
        assert learner.learn([(x, y)], 0.2) > 0
        assert learner.step == step + 1
    torch.testing.assert_close(model.weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_no_number_is_no_step() -> None:
    model = nn.Linear(4, 3)
    learner, before = Learner(model, RECIPE, KIND), weights(model)
    assert learner.learn([(torch.full((2, 4), torch.nan), torch.tensor([0, 1]))], 0.1) != 0
    assert learner.step == 0 and all(torch.equal(value, before[name]) for name, value in weights(model).items())


def test_label_smoothing_loss_equals_its_formula() -> None:
    x, model = torch.randn(5, 4), nn.Linear(4, 3)
    soft = torch.tensor([[1.0, 0, 0], [0, 0.3, 0.7], [0, 0, 1], [0.5, 0.5, 0], [0, 1, 0]])
    logs = model(x).log_softmax(1)
    expected = -((0.9 * soft + 0.1 / 3) * logs).sum(1).mean()
    torch.testing.assert_close(loss_of(KIND, 0.1)(model, x, soft), expected)


@pytest.mark.parametrize(("recipe", "rows"), [(RECIPE, [16]), (TUNING, [8, 8])])
def test_another_loss_is_used(recipe: Recipe, rows: list[int]) -> None:
    seen = []

    def loss(model: nn.Module, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append((tuple(x.shape), targets.sum(1).tolist()))
        return (model(x) - targets).square().mean()

    found = learned(conv_net(), recipe=recipe, steps=2, size=(6, 6), loss=loss)
    assert seen == [((count, 2, 6, 6), [1.0] * count) for count in rows] * 2
    assert (found.history[-1].train_loss or 9) < 1


def test_accumulated_batches_are_one_big_batch() -> None:
    """8 x 4, 16 x 2 and 11 x 3 against 32 or 33 at once; batch norms stand still, so batches do not see each other."""
    results = []
    for batch, accumulate, count in ((32, 1, 90), (16, 2, 90), (8, 4, 90), (33, 1, 33), (11, 3, 33)):
        model = conv_net()
        model[9].p = 0.0  # dropout draws batch by batch
        recipe = TUNING.model_copy(update={"batch_size": batch, "accumulate": accumulate, "lr": 0.05})
        task = toy_task(train=count)
        learned(model, dataclasses.replace(task, val=task.train), recipe, 6)
        results.append(weights(model))
    for name, expected in results[0].items():
        for found in results[1:3]:
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(results[4][name], results[3][name], rtol=1e-4, atol=1e-6)
    assert not torch.equal(results[0]["11.weight"], weights(conv_net())["11.weight"])


def test_only_what_learns_changes() -> None:
    model = conv_net().requires_grad_(False)
    model[3].weight.requires_grad_(True)
    before = weights(model)
    learned(model, dataclasses.replace(toy_task(), val=toy_task().train), TUNING)
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert changed == {"3.weight"}


@pytest.mark.parametrize("recipe", [RECIPE, TUNING])
def test_nothing_that_learns_is_refused(recipe: Recipe) -> None:
    with pytest.raises(BadInput, match="nothing is to learn"):
        learned(conv_net().requires_grad_(False), recipe=recipe)


def test_a_batch_of_one_needs_norms_that_stand_still() -> None:
    with pytest.raises(ValueError, match="batch norms cannot learn from a batch of one"):
        Recipe(batch_size=1)
    assert learned(conv_net(), recipe=TUNING.model_copy(update={"batch_size": 1}), steps=3).steps == 3


def test_a_plans_rules_learn_as_plain_pytorch_does() -> None:
    """All in full: the rules are exact, so the weights are those of autograd, up to rounding."""
    plain, ruled, example = conv_net(), conv_net(), torch.zeros(8, 2, 8, 8)
    for model in (plain, ruled):
        model[9].p = 0.0
    whole = plan_of(ruled, example, dict.fromkeys(("0", "1", "3", "4", "8", "11"), "full"))
    learned(plain, recipe=TUNING, steps=10)
    with applied(ruled, whole):
        learned(ruled, recipe=TUNING, steps=10)
    for name, value in weights(ruled).items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-3, atol=1e-5)


def test_a_plan_of_little_memory_learns() -> None:
    model = conv_net()
    small = plan(model, torch.zeros(8, 2, 8, 8), budget=TrainingBudget(memory_bytes=8 * 2**10))
    before = weights(model)
    with applied(model, small):
        found = learned(model, recipe=TUNING.model_copy(update={"lr": 0.2}), steps=120)
    frozen = {row.layer for row in small.layers if not row.learns}
    assert frozen and all(
        torch.equal(value, before[name]) for name, value in weights(model).items() if name.split(".")[0] in frozen
    )
    assert found.val.value > found.looks[0].val.value + 10
