import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from train_toys import RECIPE, conv_net, linear_net, toy_task

from edgewright.core.errors import BadInput, EdgewrightError
from edgewright.core.seed import rng
from edgewright.task.augment.image import Augment
from edgewright.task.base import Split
from edgewright.task.kinds.classification import Classification
from edgewright.task.load import load_task
from edgewright.train import loop
from edgewright.train.clock import StepClock, TimeClock
from edgewright.train.loop import Diverged, EpochRecord, fit, loss_of
from edgewright.train.recipe import recipe_for

KIND = Classification(("a", "b", "c"), {})
ROOT = Path(__file__).parents[2]


class Untouchable:
    """A test split that nobody may look at."""

    def __getattr__(self, name: str):
        raise AssertionError(f"the test part was touched: {name}")

    def __len__(self) -> int:
        raise AssertionError("the test part was touched: len")


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def test_a_separable_task_is_learned_without_touching_the_test_part() -> None:
    task = dataclasses.replace(toy_task(), test=Untouchable())
    records: list[EpochRecord] = []
    model = linear_net()
    trained = fit(model, task, RECIPE, size=(8, 8), seed=0, clock=StepClock(100), on_epoch=records.append)
    assert trained.val.value == 100.0
    assert trained.history == tuple(records)
    assert trained.steps == 100 and trained.epochs == 20
    assert [r.step for r in records] == [5 * k for k in range(1, 21)]
    assert records[-1].train_loss < 0.1 < records[0].train_loss
    assert not model.training and all(p.grad is None for p in model.parameters())


def test_one_step_by_hand() -> None:
    """SGD with momentum 0 at its first step moves by lr (1 + 0.9) g; the average then takes nine tenths of it."""
    task = toy_task(train=16)
    model = linear_net()
    start = model[1].weight.detach().clone()
    x = ((task.train.inputs.float() - 80) / 50).flatten(1)
    logits = x @ start.T + model[1].bias.detach()
    q = 0.8 * nn.functional.one_hot(task.train.targets, 3) + 0.2 / 3  # smoothing 0.2 over 3 classes
    gradient = ((logits.softmax(1) - q) / 16).T @ x
    recipe = RECIPE.model_copy(update={"label_smoothing": 0.2, "weight_decay": 0.01, "warmup": 0.0})
    fit(model, task, recipe, size=(8, 8), seed=0, clock=StepClock(1))
    lr = 0.1 * 0.5  # the middle of the only step is half way down the cosine
    expected = start - 0.9 * lr * 1.9 * (gradient + 0.01 * start)
    torch.testing.assert_close(model[1].weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_label_smoothing_loss_equals_its_formula() -> None:
    x, model = torch.randn(5, 4), nn.Linear(4, 3)
    soft = torch.tensor([[1.0, 0, 0], [0, 0.3, 0.7], [0, 0, 1], [0.5, 0.5, 0], [0, 1, 0]])
    logs = model(x).log_softmax(1)
    expected = -((0.9 * soft + 0.1 / 3) * logs).sum(1).mean()
    torch.testing.assert_close(loss_of(KIND, 0.1)(model, x, soft), expected)


def test_another_loss_is_used() -> None:
    seen = []

    def loss(model: nn.Module, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append((tuple(x.shape), targets.sum(1).tolist()))
        return (model(x) - targets).square().mean()

    trained = fit(conv_net(), toy_task(), RECIPE, size=(6, 6), seed=0, clock=StepClock(2), loss=loss)
    assert seen == [((16, 2, 6, 6), [1.0] * 16)] * 2
    assert trained.history[0].train_loss < 1


def test_same_seed_same_weights_and_the_callers_randomness_is_untouched() -> None:
    results = []
    for seed in (1, 1, 2):
        model = conv_net()
        state = torch.get_rng_state()
        fit(model, toy_task(), RECIPE, size=(8, 8), seed=seed, clock=StepClock(12), threads=1)
        assert torch.equal(torch.get_rng_state(), state)
        results.append(weights(model))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(results[0], results[2], strict=True))


def test_time_box_ends_inside_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step takes 10 ms by the hand-moved clock, every evaluation 200 ms; the box is 3 s."""
    hand = [50.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: hand[0])
    monkeypatch.setattr(loop.time, "perf_counter", lambda: hand[0])
    real = loop.evaluate

    def slow_evaluate(model: nn.Module, split: Split, *args, **kwargs):
        hand[0] += 0.2 * len(split) / 41
        return real(model, split, *args, **kwargs)

    def slow_loss(model: nn.Module, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        hand[0] += 0.01
        return loss_of(KIND)(model, x, targets)

    monkeypatch.setattr(loop, "evaluate", slow_evaluate)
    clock = TimeClock(3.0, now=lambda: hand[0])
    trained = fit(linear_net(), toy_task(), RECIPE, size=(8, 8), seed=0, clock=clock, loss=slow_loss)
    assert 2.8 < trained.seconds <= 3.0
    assert trained.history[-1].lr < 0.01 * RECIPE.lr
    rates = [r.lr for r in trained.history]
    peak = rates.index(max(rates))
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_an_epoch_ceiling_ends_a_time_box() -> None:
    trained = fit(linear_net(), toy_task(), RECIPE, size=(8, 8), seed=0, clock=TimeClock(60, max_epochs=3))
    assert trained.epochs == 3 and trained.seconds < 10
    assert len(trained.history) == 3


def test_short_epochs_are_not_drowned_in_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = fit(linear_net(), toy_task(), RECIPE, size=(8, 8), seed=0, clock=StepClock(500))
    looked = [r for r in trained.history if r.val is not None]
    assert len(trained.history) == 100
    assert len(looked) == loop.EVALUATIONS
    assert looked[-1] == trained.history[-1]


def test_a_loss_that_is_no_number_says_where_and_what_to_do() -> None:
    def loss(model: nn.Module, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(0)
        return model(x).sum() * (math.nan if len(calls) == 8 else 1.0)

    calls: list[int] = []
    with pytest.raises(EdgewrightError, match=r"the loss is nan in epoch 2, step 8, .*lower the recipe's lr \(0\.1\)"):
        fit(linear_net(), toy_task(), RECIPE, size=(8, 8), seed=0, clock=StepClock(50), loss=loss)


def test_a_last_step_that_breaks_the_network_is_noticed_though_no_loss_is_taken_after_it() -> None:
    recipe = RECIPE.model_copy(update={"optimizer": "sgd", "lr": 1e38, "warmup": 0.0})
    with pytest.raises(Diverged, match="the network's outputs are not numbers after step 1"):
        fit(linear_net(), toy_task(), recipe, size=(8, 8), seed=0, clock=StepClock(1))


def test_fewer_images_than_a_batch_holds() -> None:
    trained = fit(conv_net(), toy_task(train=7), RECIPE, size=(8, 8), seed=0, clock=StepClock(3))
    assert trained.steps == 3 and trained.epochs == 3


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_an_interrupted_training_ends_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    recipe = RECIPE.model_copy(update={"optimizer": name, "mixup": 0.3})

    def train(path: Path | None, stop: int | None = None):
        def on_epoch(record: EpochRecord) -> None:
            if record.epoch == stop:
                raise KeyboardInterrupt

        model = conv_net()
        return model, fit(
            model, toy_task(), recipe, size=(8, 8), seed=4, clock=StepClock(43), checkpoint=path, on_epoch=on_epoch
        )

    whole, expected = train(None)
    for stop in (1, 4, 7):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "c.safetensors", stop)
    model, trained = train(tmp_path / "c.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(model), strict=True))
    assert [r.train_loss for r in trained.history] == [r.train_loss for r in expected.history]
    assert trained.val.value == expected.val.value

    again, trained = train(tmp_path / "c.safetensors", stop=1)  # a finished one is given back, without an epoch
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(again), strict=True))
    assert (trained.steps, trained.val.value) == (43, expected.val.value)


def test_a_training_cut_within_an_epoch_goes_on_from_the_step_it_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs may take hours; here of six steps, kept after each, cut within three of them and right after an end."""
    recipe, file = RECIPE.model_copy(update={"mixup": 0.3, "augment": Augment(pad=1, erase=0.5)}), tmp_path / "c"
    plain = loss_of(KIND, 0.1)

    def train(path: Path | None, stop: int = 1000):
        calls = 0

        def loss(model: nn.Module, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise KeyboardInterrupt
            return plain(model, x, targets)

        torch.manual_seed(3)
        model = nn.Sequential(*conv_net(), nn.Dropout(0.3))
        found = fit(
            model, toy_task(train=96), recipe, size=(8, 8), seed=4, clock=StepClock(21), checkpoint=path, loss=loss,
        )  # fmt: skip
        return model, found, calls

    whole, expected, _ = train(None)
    assert expected.history[0].step == 6
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "STRETCH_SECONDS", 0.0)
    for stop in (3, 2, 4, 7):  # calls until the cut: 2 steps are kept, then 3, 6 and 12
        with pytest.raises(KeyboardInterrupt):
            train(file, stop)
    model, trained, calls = train(file)
    assert calls == 21 - 12
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(model), strict=True))
    assert [r.model_copy(update={"seconds": 0.0}) for r in trained.history] == [
        r.model_copy(update={"seconds": 0.0}) for r in expected.history
    ]


def test_after_few_steps_batch_norm_has_the_statistics_of_the_training_images() -> None:
    """A running average of a running average would still be near its start after six steps."""
    task, model = toy_task(train=96), conv_net()
    fit(model, task, RECIPE, size=(8, 8), seed=0, clock=StepClock(6))
    first, norm = model[0], model[1]
    with torch.no_grad():
        seen = first((task.train.inputs.float() - 80) / 50)
    torch.testing.assert_close(norm.running_mean, seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    # The mean of the batches' variances is a little below the variance of all.
    torch.testing.assert_close(norm.running_var, seen.var((0, 2, 3)), rtol=0.1, atol=0.0)


def test_a_checkpoint_of_another_recipe_model_or_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"

    def train(model: nn.Module, recipe=RECIPE, steps: int = 6) -> None:
        fit(model, toy_task(), recipe, size=(8, 8), seed=0, clock=StepClock(steps), checkpoint=path)

    train(conv_net())
    with pytest.raises(BadInput, match=r"another training \(another recipe\)"):
        train(conv_net(), RECIPE.model_copy(update={"lr": 0.2}))
    with pytest.raises(BadInput, match=r"another training \(another model\)"):
        train(conv_net(width=9))
    with pytest.raises(BadInput, match=r"another training \(another schedule\)"):
        train(conv_net(), steps=7)


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_gives_the_same_weights(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests/train/train_killed.py")]
    env = os.environ | {"PYTHONPATH": f"{ROOT}/src", "OMP_NUM_THREADS": "1"}

    def run(folder: str) -> str:
        out = subprocess.run([*command, str(tmp_path / folder)], env=env, capture_output=True, text=True, check=True)
        return out.stdout.splitlines()[-1]

    expected = run("whole")
    random = rng(int(time.time()), "kill")
    for _ in range(3):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], env=env, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()  # it is learning
        time.sleep(random.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert run("killed") == expected


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
    trained = fit(
        model, task, recipe_for(task.spec, 60), size=(8, 8), seed=0, clock=TimeClock(20, max_epochs=60), threads=1
    )
    assert trained.val.value >= 98
    assert trained.seconds <= 20.5
