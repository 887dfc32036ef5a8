import math
from pathlib import Path

import pytest
import torch
from torch import nn
from train_toys import RECIPE, conv_net, toy_task

from edgewright.train import loop, precision
from edgewright.train.clock import StepClock, TimeClock
from edgewright.train.loop import Running, fit
from edgewright.train.precision import Turns, computing, prepared
from edgewright.train.record import Record
from edgewright.train.step import loss_of


def mixed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 5, 2, 2, groups=6), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(96, 3)
    )


def follow(turns: Turns, plain: list[float], short: list[float]) -> list[str]:
    """The precisions of the steps, where they take these seconds."""
    taken, left = [], {"float32": iter(plain), "bfloat16": iter(short)}
    for _ in range(len(plain) + len(short)):
        taken.append(turns.next())
        turns.took(taken[-1], next(left[taken[-1]]))
        if turns.chosen:
            break
    return taken


@pytest.mark.parametrize(
    ("plain", "short", "chosen"),
    [
        # the least after the first counts
        ([9.0, 1.0, 1.1, 1.0, 1.2, 1.3], [0.1, 0.8, 2.0, 0.9, 2.0, 2.0], "bfloat16"),
        ([9.0, 1.0, 1.1, 1.0, 1.2, 1.3], [0.1] + [0.95] * 5, "float32"),  # not worth it
        ([1.0] * 6, [3.9] + [0.5] * 5, "bfloat16"),  # the first prepares its kernels
    ],
)
def test_steps_take_turns_and_the_quicker_precision_is_chosen(
    plain: list[float], short: list[float], chosen: str
) -> None:
    turns = Turns(None)
    assert follow(turns, plain, short) == ["float32", "bfloat16"] * precision.TURNS
    assert turns.chosen == turns.next() == chosen


def test_a_hopeless_precision_is_tried_once_and_a_known_one_is_not_judged() -> None:
    turns = Turns(None)
    assert follow(turns, [1.0, 1.0], [5.0, 0.1]) == ["float32", "bfloat16"]
    assert turns.chosen == "float32"
    turns = Turns("bfloat16")
    for _ in range(20):
        turns.took(turns.next(), 1.0)
    assert turns.chosen == turns.next() == "bfloat16"


def test_a_layer_without_a_kernel_ends_the_turns_and_its_images_are_taken_again() -> None:
    turns, tried = Turns(None), []

    def gradients(wanted: str) -> float:
        tried.append(wanted)
        if wanted == "bfloat16":
            raise RuntimeError("not implemented for 'BFloat16'")
        return 3.0

    assert [turns.take(gradients) for _ in range(3)] == [3.0] * 3
    assert tried == ["float32", "bfloat16", "float32", "float32"]
    with pytest.raises(RuntimeError):  # asked for, so not put right
        Turns("bfloat16").take(gradients)

    def broken(wanted: str) -> float:
        raise RuntimeError("in any precision")

    with pytest.raises(RuntimeError, match="in any"):
        Turns(None).take(broken)


def test_prepared_answers_in_float32_near_the_exact_answer_and_undoes_itself() -> None:
    model, x = mixed(), torch.randn(4, 2, 8, 8)
    exact, seen = model(x), []
    handles = [
        layer.register_forward_hook(lambda m, given, out: seen.append((given[0].dtype, out.dtype)))
        for layer in model[:2]
    ]
    weights = []
    with prepared(model, None), computing("bfloat16", "cpu"):
        kept = nn.functional.conv2d

        def spy(x: torch.Tensor, weight: torch.Tensor, *rest: object) -> torch.Tensor:
            weights.append((x.dtype, torch.is_autocast_enabled("cpu")))
            return kept(x, weight, *rest)  # pyright: ignore[reportArgumentType]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nn.functional, "conv2d", spy)
            output = model(x)
        output.sum().backward()
    assert weights == [(torch.float32, True), (torch.float32, False)]  # the second is the depthwise one
    assert seen == [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16)]
    assert output.dtype == torch.float32 and model[1].weight.grad.dtype == torch.float32
    torch.testing.assert_close(output, exact, rtol=0.05, atol=0.05)
    for handle in handles:
        handle.remove()
    assert "forward" not in vars(model[1]) and not model._forward_hooks
    torch.testing.assert_close(model(x), exact)


def test_prepared_is_undone_after_an_error_and_does_nothing_for_float32() -> None:
    model = mixed()
    with pytest.raises(RuntimeError), prepared(model, "bfloat16"):
        model(torch.zeros(1, 9, 8, 8))
    assert "forward" not in vars(model[1]) and not model._forward_hooks
    with prepared(model, "float32"):
        assert "forward" not in vars(model[1]) and not model._forward_hooks


def test_a_training_in_bfloat16_learns_and_keeps_its_numbers_in_float32() -> None:
    model = conv_net()
    recipe = RECIPE.model_copy(update={"precision": "bfloat16"})
    trained = fit(model, toy_task(), recipe, size=(8, 8), seed=0, clock=StepClock(150))
    assert (trained.val.value, trained.history[-1].precision) == (100.0, "bfloat16")
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32, torch.int64}


def test_a_training_that_counts_steps_is_in_float32_and_one_in_time_takes_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "bfloat16_possible", lambda device: True)
    seen: list[bool] = []
    plain = loss_of(toy_task().kind)

    def loss(model: nn.Module, x: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return plain(model, x, targets)

    trained = fit(conv_net(), toy_task(), RECIPE, size=(8, 8), seed=0, clock=StepClock(12), loss=loss)
    assert (trained.history[-1].precision, set(seen)) == ("float32", {False})
    seen.clear()
    trained = fit(
        conv_net(), toy_task(), RECIPE, size=(8, 8), seed=0, clock=TimeClock(60, max_epochs=4), loss=loss,
    )  # fmt: skip
    tried = 2 * precision.TURNS if len(seen) > 2 and seen[:4] == [False, True, False, True] else 2
    assert seen[:2] == [False, True]
    assert set(seen[tried:]) == {trained.history[-1].precision == "bfloat16"}
    monkeypatch.setattr(loop, "bfloat16_possible", lambda device: False)
    seen.clear()
    fit(conv_net(), toy_task(), RECIPE, size=(8, 8), seed=0, clock=TimeClock(60, max_epochs=1), loss=loss)
    assert set(seen) == {False}


def test_a_training_that_goes_on_does_so_in_the_precision_it_chose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "bfloat16_possible", lambda device: True)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(precision, "WORTH", math.inf)  # bfloat16 whatever it takes
    monkeypatch.setattr(precision, "HOPELESS", math.inf)

    def stop(record: Record) -> None:
        if record.epoch == 3:  # of five steps: the turns are over
            raise KeyboardInterrupt

    def train(tell=None):
        clock = TimeClock(60, max_epochs=5)
        return fit(
            conv_net(), toy_task(), RECIPE, size=(8, 8), seed=0, clock=clock, running=Running(tmp_path / "c", tell),
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        train(stop)
    monkeypatch.setattr(precision, "WORTH", 0.0)  # it would choose float32 now
    assert train().history[-1].precision == "bfloat16"
