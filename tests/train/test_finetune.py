import dataclasses
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from train_toys import conv_net, linear_net, toy_task

from edgewright.backward.plans.planner import plan, plan_of
from edgewright.backward.plans.training_plan import TrainingBudget, applied
from edgewright.core.errors import BadInput
from edgewright.task.augment.image import Augment
from edgewright.task.base import Split, Task
from edgewright.train import finetune
from edgewright.train.clock import StepClock, TimeClock
from edgewright.train.finetune import FineTuned, FineTuneRecipe, Look, fine_tune

ROOT = Path(__file__).parents[2]
RECIPE = FineTuneRecipe(batch_size=8, accumulate=2, warmup=0.0, patience=0)


class Untouchable:
    def __getattr__(self, name: str):
        raise AssertionError(f"the test part was touched: {name}")


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one: nn.Module, other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.state_dict().items())


def tuned(model: nn.Module, task: Task, recipe: FineTuneRecipe = RECIPE, steps: int = 40, **options) -> FineTuned:
    return fine_tune(model, task, recipe, size=(8, 8), seed=3, clock=StepClock(steps), **options)


def seen_by(model: nn.Module) -> list[torch.Tensor]:
    """Images that the model is trained on, from now on."""
    seen: list[torch.Tensor] = []

    def note(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if layer.training:
            seen.append(given[0].clone())

    model.register_forward_pre_hook(note)
    return seen


def test_a_separable_task_is_learned_without_touching_the_test_part() -> None:
    task = dataclasses.replace(toy_task(), test=Untouchable())  # pyright: ignore[reportArgumentType]
    model, looks = linear_net(), []
    found = tuned(model, task, steps=60, on_look=looks.append)
    assert found.val.value == 100.0
    assert found.steps == 60 and found.epochs == 12  # 5 steps of 16 in 90 images
    assert list(found.history) == looks
    assert found.history[0].step == 0 and found.history[-1].step == 60
    assert found.history[-1].train_loss < 0.2 < found.history[1].train_loss
    assert not model.training and all(p.grad is None for p in model.parameters())


def test_one_step_by_hand() -> None:
    """w - lr g, with lr halfway down the cosine; the first step is never cut."""
    task, model = toy_task(train=16), linear_net()
    start, bias = model[1].weight.detach().clone(), model[1].bias.detach().clone()
    x = ((task.train.inputs.float() - 80) / 50).flatten(1)
    error = ((x @ start.T + bias).softmax(1) - nn.functional.one_hot(task.train.targets, 3)) / 16
    gradient, of_bias = error.T @ x, error.sum(0)
    recipe = RECIPE.model_copy(update={"clip": 0.1, "longest": 1e9, "lr": 0.1, "weight_decay": 0.01})
    task = dataclasses.replace(task, val=task.train)  # on which the step is better than the start
    tuned(model, task, recipe, steps=1)
    expected = start - 0.05 * (gradient + 0.01 * start)
    torch.testing.assert_close(model[1].weight.detach(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model[1].bias.detach(), bias - 0.05 * of_bias, rtol=1e-4, atol=1e-6)


def test_accumulated_batches_are_one_big_batch() -> None:
    """8 x 4, 16 x 2 and a ragged 12 against 32 at once; batch norms stand still, so batches do not see each other."""
    results = []
    for batch, accumulate in ((32, 1), (16, 2), (8, 4), (11, 3)):
        model = conv_net()
        model[9].p = 0.0  # dropout draws batch by batch
        steps = 6 if batch != 11 else 1
        recipe = RECIPE.model_copy(update={"batch_size": batch, "accumulate": accumulate})
        tuned(model, toy_task(train=33 if batch == 11 else 90), recipe, steps)
        results.append(weights(model))
    for name, expected in results[0].items():
        for found in results[1:3]:
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)


def test_only_what_learns_changes() -> None:
    model = conv_net().requires_grad_(False)
    model[3].weight.requires_grad_(True)
    before = weights(model)
    tuned(model, dataclasses.replace(toy_task(), val=toy_task().train))
    changed = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert changed == {"3.weight"}


def test_nothing_that_learns_is_refused() -> None:
    with pytest.raises(BadInput, match="nothing is to learn"):
        tuned(conv_net().requires_grad_(False), toy_task())


def test_an_epoch_gives_every_image_once_in_an_order_of_its_own() -> None:
    task, model = toy_task(train=48), linear_net()
    seen = seen_by(model)
    tuned(model, task, steps=9)
    epochs = torch.cat(seen).split(48)
    assert len(epochs) == 3
    of_task = {image.numpy().tobytes() for image in (task.train.inputs.float() - 80) / 50}
    assert all({image.numpy().tobytes() for image in epoch} == of_task for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[1], epochs[2])


@pytest.mark.parametrize("count", [5, 8, 13, 20])
def test_a_task_smaller_than_a_step_is_a_step(count: int) -> None:
    task, model = toy_task(train=count), linear_net()
    seen = seen_by(model)
    found = tuned(model, task, RECIPE.model_copy(update={"accumulate": 4}), steps=3)
    assert (found.steps, found.epochs) == (3, 3)
    assert sum(map(len, seen)) == 3 * count


def test_cut_and_resumed_equals_uncut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut in the middle of an epoch, with momentum, dropout, augmentation, and a tied weight."""
    monkeypatch.setattr(finetune, "CHECKPOINT_SECONDS", 0.0)
    recipe = RECIPE.model_copy(update={"augment": Augment(pad=1, rotate=10, erase=0.3)})
    whole = conv_net()
    expected = tuned(whole, toy_task(), recipe, steps=43)

    def cut(look: Look) -> None:
        if look.step >= 17:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        tuned(conv_net(), toy_task(), recipe, steps=43, checkpoint=tmp_path / "c", on_look=cut)
    model, steps = conv_net(), []
    found = tuned(
        model, toy_task(), recipe, 43, checkpoint=tmp_path / "c", on_look=lambda look: steps.append(look.step)
    )
    assert 10 < steps[0] <= 20
    assert equal(model, weights(whole))
    assert timeless(found) == timeless(expected)
    again = tuned(conv_net(), toy_task(), recipe, 43, checkpoint=tmp_path / "c")
    assert timeless(again) == timeless(expected)  # a finished one does nothing more


def timeless(found: FineTuned) -> dict:
    told = found.model_dump()
    told.pop("seconds")
    for look in told["history"]:
        look.pop("seconds")
    return told


@pytest.mark.parametrize("change", ["recipe", "what learns", "number of samples"])
def test_another_trainings_checkpoint_is_refused(tmp_path: Path, change: str) -> None:
    tuned(linear_net(), toy_task(), steps=2, checkpoint=tmp_path / "c")
    model, task, recipe = linear_net(), toy_task(), RECIPE
    if change == "recipe":
        recipe = RECIPE.model_copy(update={"lr": 0.3})
    elif change == "what learns":
        model[1].bias.requires_grad_(False)
    else:
        task = toy_task(train=91)
    with pytest.raises(BadInput, match=f"another {change}"):
        tuned(model, task, recipe, steps=2, checkpoint=tmp_path / "c")


@pytest.mark.slow
def test_a_killed_process_goes_on_exactly(tmp_path: Path) -> None:
    """SIGKILL at two places; the plan's rules are on the model all the while."""
    command = [sys.executable, str(ROOT / "tests" / "train" / "tune_killed.py")]

    def start(folder: Path) -> subprocess.Popen:
        return subprocess.Popen([*command, str(folder)], stdout=subprocess.PIPE, text=True, env={**os.environ})

    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    with start(tmp_path / "whole") as process:
        assert process.stdout is not None
        whole = process.stdout.read()
    for last in ("look 3", "look 12"):
        with start(tmp_path / "cut") as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(last):
                    process.send_signal(signal.SIGKILL)
                    break
            assert process.wait() == -signal.SIGKILL
    with start(tmp_path / "cut") as process:
        assert process.stdout is not None
        resumed = process.stdout.read()
    assert "look 0" not in resumed
    assert whole.splitlines()[-1].startswith("weights ")
    assert resumed.splitlines()[-1] == whole.splitlines()[-1]


def test_a_loss_that_is_no_number_names_the_step_and_leaves_the_best_weights(tmp_path: Path) -> None:
    model = linear_net()
    best: dict[str, torch.Tensor] = {}

    def spoil(look: Look) -> None:
        if look.step == 8:  # better than the looks before; what comes next is not a number
            best.update(weights(model))
            model.register_forward_hook(lambda layer, _, output: output / 0 if layer.training else None)

    found = tuned(model, toy_task(), steps=40, on_look=spoil, checkpoint=tmp_path / "c")
    assert found.stopped is not None and "the loss is nan in step 9," in found.stopped
    assert "those of step 8" in found.stopped
    assert best and equal(model, best)
    assert found.val.value == max(look.val.value for look in found.history)
    assert tuned(linear_net(), toy_task(), steps=40, checkpoint=tmp_path / "c").stopped == found.stopped


def test_outputs_that_are_no_numbers_to_begin_with() -> None:
    model = linear_net()
    nn.init.constant_(model[1].weight, math.nan)
    with pytest.raises(BadInput, match="not numbers before the first step"):
        tuned(model, toy_task())


def test_a_rate_far_too_high_leaves_what_came() -> None:
    model = linear_net()
    start = weights(model)
    found = tuned(model, toy_task(), RECIPE.model_copy(update={"lr": 1e38}))
    assert found.stopped is not None and "1e+38" in found.stopped and "those of step 0" in found.stopped
    assert equal(model, start)


def test_patience_counts_looks_since_the_best() -> None:
    """Training on wrong labels can only make val worse: the first look stays the best, and so do its weights."""
    task = toy_task()
    wrong = Split(task.train.inputs, (task.train.targets + 1) % 3)
    model = linear_net()
    tuned(model, task, steps=60)
    good = weights(model)
    found = tuned(model, dataclasses.replace(task, train=wrong), RECIPE.model_copy(update={"patience": 4}), steps=100)
    assert found.stopped == "nothing on val got better for 4 looks at it"
    assert [look.step for look in found.history] == [0, 5, 10, 15, 20]
    assert found.val.value == 100.0
    assert equal(model, good)


def test_between_equals_the_smaller_loss_is_kept() -> None:
    """Right about every val image from the start, but unsure: it may still learn to be sure."""
    model, task = linear_net(), toy_task()
    tuned(model, task, steps=60)
    with torch.no_grad():
        model[1].weight *= 1e-3
        model[1].bias *= 1e-3
    found = tuned(model, task, steps=20)
    assert {look.val.value for look in found.history} == {100.0}
    x = (task.val.inputs.float() - 80) / 50
    loss = nn.functional.cross_entropy(model(x), task.val.targets).item()
    assert loss == pytest.approx(min(look.val_loss for look in found.history), rel=1e-4)
    assert loss < 0.5 * found.history[0].val_loss


def test_same_seed_same_weights_and_the_callers_randomness_is_untouched() -> None:
    results = []
    for seed in (1, 1, 2):
        model = conv_net()
        state = torch.get_rng_state()
        fine_tune(model, toy_task(), RECIPE, size=(8, 8), seed=seed, clock=StepClock(12))
        assert torch.equal(torch.get_rng_state(), state)
        results.append(weights(model))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    assert not all(torch.equal(results[0][name], results[2][name]) for name in results[0])


def test_a_plans_rules_learn_as_plain_pytorch_does() -> None:
    """All in full: the rules are exact, so the weights are those of autograd, up to rounding."""
    plain, ruled, example = conv_net(), conv_net(), torch.zeros(8, 2, 8, 8)
    for model in (plain, ruled):
        model[9].p = 0.0
    whole = plan_of(ruled, example, dict.fromkeys(("0", "1", "3", "4", "8", "11"), "full"))
    tuned(plain, toy_task(), steps=10)
    with applied(ruled, whole):
        tuned(ruled, toy_task(), steps=10)
    for name, value in weights(ruled).items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-3, atol=1e-5)


def test_a_plan_of_little_memory_learns() -> None:
    model = conv_net()
    small = plan(model, torch.zeros(8, 2, 8, 8), budget=TrainingBudget(memory_bytes=8 * 2**10))
    before = weights(model)
    with applied(model, small):
        found = tuned(model, toy_task(), RECIPE.model_copy(update={"lr": 0.2}), steps=120)
    frozen = {row.layer for row in small.layers if not row.learns}
    assert frozen and all(
        torch.equal(value, before[name]) for name, value in weights(model).items() if name.split(".")[0] in frozen
    )
    assert found.val.value > found.history[0].val.value + 10


def test_a_time_box_ends_inside_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step takes 10 ms by the hand-moved clock, every look 200 ms; the box is 3 s."""
    hand = [50.0]
    monkeypatch.setattr(finetune.time, "monotonic", lambda: hand[0])
    monkeypatch.setattr(finetune.time, "perf_counter", lambda: hand[0])
    model, real = linear_net(), finetune.evaluate

    def slow_evaluate(*args, **kwargs):
        hand[0] += 0.2
        return real(*args, **kwargs)

    def slow_step(layer: nn.Module, _) -> None:
        hand[0] += 0.005 if layer.training else 0.0

    monkeypatch.setattr(finetune, "evaluate", slow_evaluate)
    model.register_forward_pre_hook(slow_step)
    clock = TimeClock(3.0, now=lambda: hand[0])
    found = fine_tune(model, toy_task(), RECIPE, size=(8, 8), seed=0, clock=clock)
    assert 2.5 < found.seconds <= 3.0
    assert found.steps > 20
