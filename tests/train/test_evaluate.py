import math

import pytest
import torch
from torch import nn
from train_toys import RECIPE, TUNING, conv_net, learned, toy_task

from edgewright.core.errors import BadInput
from edgewright.task.base import Split
from edgewright.train.evaluate import evaluate


class Said(nn.Module):
    """Says of each image what its first pixel is, as a class."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot((x[:, 0, 0, 0] * 50 + 80).round().long(), 3).float() * 9


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_counts_by_hand(batch_size: int) -> None:
    """Said 0, 0, 1, 2 where 0, 1, 1, 0 is true, in batches of any size."""
    spec = toy_task().spec
    images = torch.zeros(4, 2, 8, 8)
    images[:, 0, 0, 0] = torch.tensor([0.0, 0.0, 1.0, 2.0])
    found = evaluate(Said(), Split(images, torch.tensor([0, 1, 1, 0])), spec, (8, 8), batch_size=batch_size)
    assert found.answers.tolist() == [0, 0, 1, 2]
    assert found.values["accuracy"] == found.values["balanced_accuracy"] == 50.0
    assert found.each["recall"]["a"] == found.each["recall"]["b"] == 50.0
    assert found.each["recall"]["c"] != found.each["recall"]["c"]  # not a number: no image is of it
    right, wrong = math.log(1 + 2 * math.exp(-9)), math.log(1 + 2 * math.exp(-9)) + 9
    assert found.loss == pytest.approx((2 * right + 2 * wrong) / 4, rel=1e-4)
    assert found.finite and found.score.name == "accuracy"


def test_the_metric_of_the_task_decides() -> None:
    task = toy_task()
    spec = task.spec.model_copy(update={"metric": "balanced_accuracy"})
    assert evaluate(conv_net(), task.val, spec, (8, 8)).score.name == "balanced_accuracy"


def test_outputs_that_are_no_numbers_are_noticed() -> None:
    task, model = toy_task(), conv_net()
    nn.init.constant_(model[11].bias, float("inf"))
    assert not evaluate(model, task.val, task.spec, (8, 8), batch_size=5).finite


def test_a_network_that_knows_the_answer_scores_100_percent() -> None:
    task = toy_task(val=41)

    class BrightestRows(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.mean((1, 3))
            return torch.stack([rows[:, 2 * c : 2 * c + 2].mean(1) for c in range(3)], 1)

    found = evaluate(BrightestRows(), task.val, task.spec, (8, 8), batch_size=7)
    assert found.score.value == 100.0
    assert torch.equal(found.answers, task.val.targets)
    wrong = Split(task.val.inputs, (task.val.targets + 1) % 3)
    assert evaluate(BrightestRows(), wrong, task.spec, (8, 8)).score.value == 0.0


class Remembering(nn.Module):
    """Makes its grid for a size of image once, as position encodings do, and multiplies by it."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.grids = conv_net(), {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2:] not in self.grids:
            self.grids[x.shape[2:]] = x.new_ones(x.shape[2:]) * 0.9
        return self.net(self.grids[x.shape[2:]] * x)


def test_a_network_that_keeps_what_it_made_learns_after_it_was_looked_at() -> None:
    task, model = toy_task(), Remembering()
    evaluate(model, task.val, task.spec, (8, 8))
    x = torch.randn(4, 2, 8, 8, requires_grad=True)
    model(x).sum().backward()
    assert x.grad is not None
    for recipe in (RECIPE, TUNING):
        assert learned(Remembering(), task, recipe, steps=6).steps == 6


def test_model_and_random_state_stay_as_they_were() -> None:
    task, model = toy_task(), conv_net()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, random = [m.training for m in model.modules()], torch.get_rng_state()
    evaluate(model, task.val, task.spec, (8, 8))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_an_empty_split_is_refused() -> None:
    task = toy_task()
    with pytest.raises(BadInput, match="no samples"):
        evaluate(conv_net(), task.val.take(torch.arange(0)), task.spec, (8, 8))
