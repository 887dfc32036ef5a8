import dataclasses
import math

import pytest
import torch
from torch import nn
from train_toys import RECIPE, TUNING, Untouchable, conv_net, learned, linear_net, toy_task, weights

from edgewright.core.errors import EdgewrightError
from edgewright.task.base import Split
from edgewright.task.load import load_task
from edgewright.train import loop
from edgewright.train.clock import TimeClock
from edgewright.train.loop import Diverged, Running, fit
from edgewright.train.recipe import Recipe, recipe_for
from edgewright.train.record import Record
from edgewright.train.step import loss_of

both = pytest.mark.parametrize("recipe", [RECIPE, TUNING], ids=["scratch", "tuning"])


@both
def test_a_separable_task_is_learned_without_touching_the_test_part(recipe: Recipe) -> None:
    task = dataclasses.replace(toy_task(), test=Untouchable())  # pyright: ignore[reportArgumentType]
    records: list[Record] = []
    model = linear_net()
    trained = learned(model, task, recipe, steps=100, tell=records.append)
    assert trained.val.value == 100.0
    assert trained.history == tuple(records)
    assert trained.steps == 100 and trained.epochs == 20  # 5 steps of 16 in 90 images
    assert [r.step for r in records if r.step] == [5 * k for k in range(1, 21)]
    losses = [r.train_loss for r in records if r.train_loss is not None]
    assert losses[-1] < 0.15 < losses[0]
    assert not model.training and all(p.grad is None for p in model.parameters())


@both
def test_same_seed_same_weights_and_the_callers_randomness_is_untouched(recipe: Recipe) -> None:
    results = []
    for seed in (1, 1, 2):
        model = conv_net()
        state = torch.get_rng_state()
        learned(model, recipe=recipe, steps=12, seed=seed, threads=1)
        assert torch.equal(torch.get_rng_state(), state)
        results.append(weights(model))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    assert not all(torch.equal(results[0][name], results[2][name]) for name in results[0])


@both
def test_time_box_ends_inside_its_seconds(monkeypatch: pytest.MonkeyPatch, recipe: Recipe) -> None:
    """Every step takes 10 ms by the hand-moved clock, every look 200 ms; the box is 3 s."""
    hand = [50.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: hand[0])
    monkeypatch.setattr(loop.time, "perf_counter", lambda: hand[0])
    real, plain = loop.evaluate, loss_of(toy_task().kind)

    def slow_evaluate(model: nn.Module, split: Split, *args, **kwargs):
        hand[0] += 0.2 * len(split) / 41
        return real(model, split, *args, **kwargs)

    def slow_loss(model: nn.Module, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        hand[0] += 0.01 / recipe.accumulate
        return plain(model, x, targets)

    monkeypatch.setattr(loop, "evaluate", slow_evaluate)
    trained = learned(linear_net(), recipe=recipe, clock=TimeClock(3.0, now=lambda: hand[0]), loss=slow_loss)
    assert 2.5 < trained.seconds <= 3.0
    assert trained.steps > 20
    rates = [r.lr for r in trained.history]
    peak = rates.index(max(rates))
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.05 * recipe.lr


def test_an_epoch_ceiling_ends_a_time_box() -> None:
    trained = learned(linear_net(), clock=TimeClock(60, max_epochs=3))
    assert trained.epochs == 3 and trained.seconds < 10
    assert len(trained.history) == 3


@both
def test_short_epochs_are_not_drowned_in_looks(recipe: Recipe) -> None:
    trained = learned(linear_net(), recipe=recipe, steps=500)
    assert len([look for look in trained.looks if look.step]) == loop.LOOKS
    assert trained.looks[-1] == trained.history[-1]
    if recipe.looks == "epoch":
        assert [r.epoch for r in trained.history] == list(range(1, 101))


def test_looks_within_an_epoch_are_a_quarter_of_the_work_at_most() -> None:
    """A look at 41 images is as much as 13.7 learned ones: no more often than after 55, which is seven steps of 8."""
    recipe = TUNING.model_copy(update={"accumulate": 1})
    looks = learned(linear_net(), recipe=recipe, steps=40).looks
    assert [look.step for look in looks] == [0, 7, 14, 21, 28, 35, 40]


def test_a_loss_that_is_no_number_says_where_and_what_to_do() -> None:
    def loss(model: nn.Module, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(0)
        return model(x).sum() * (math.nan if len(calls) == 8 else 1.0)

    calls: list[int] = []
    with pytest.raises(EdgewrightError, match=r"the loss is nan in epoch 2, step 8, .*lower the recipe's lr \(0\.1\)"):
        learned(linear_net(), steps=50, loss=loss)


def test_a_last_step_that_breaks_the_network_is_noticed_though_no_loss_is_taken_after_it() -> None:
    recipe = RECIPE.model_copy(update={"optimizer": "sgd", "lr": 1e38, "warmup": 0.0})
    with pytest.raises(Diverged, match="the network's outputs are not numbers after step 1"):
        learned(linear_net(), recipe=recipe, steps=1)


def test_fewer_images_than_a_batch_holds() -> None:
    trained = learned(conv_net(), toy_task(train=7), steps=3)
    assert trained.steps == 3 and trained.epochs == 3


def test_after_few_steps_batch_norm_has_the_statistics_of_the_training_images() -> None:
    """A running average of a running average would still be near its start after six steps."""
    task, model = toy_task(train=96), conv_net()
    learned(model, task, steps=6)
    first, norm = model[0], model[1]
    with torch.no_grad():
        seen = first((task.train.inputs.float() - 80) / 50)
    torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    # The mean of the batches' variances is a little below the variance of all.
    torch.testing.assert_close(norm.running_var, seen.var((0, 2, 3)), rtol=0.1, atol=0.0)


def test_norms_that_stand_still_keep_their_statistics() -> None:
    model = conv_net()
    before = weights(model)
    learned(model, dataclasses.replace(toy_task(), val=toy_task().train), TUNING, steps=20)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert not torch.equal(before["1.weight"], model[1].weight)


@pytest.mark.slow
def test_digits_are_learned_to_98_percent() -> None:
    task = load_task("digits")
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )
    clock, recipe = TimeClock(20, max_epochs=60), recipe_for(task.spec, 60)
    trained = fit(model, task, recipe, size=(8, 8), seed=0, clock=clock, running=Running(threads=1))
    assert trained.val.value >= 98
    assert trained.seconds <= 20.5
