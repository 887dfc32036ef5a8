import pytest
import torch
from torch import nn
from train_toys import RECIPE, conv_net, toy_task

from edgewright.core.errors import BadInput
from edgewright.task.base import Split
from edgewright.train.clock import StepClock
from edgewright.train.evaluate import Evaluation, evaluate
from edgewright.train.finetune import FineTuneRecipe, fine_tune
from edgewright.train.loop import fit


def test_counts_by_hand() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7]])
    found = Evaluation(50.0, probabilities, torch.tensor([0, 1, 1, 0]))
    assert found.predictions.tolist() == [0, 0, 1, 2]
    assert found.confusion().tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert found.per_class_accuracy()[:2].tolist() == [50.0, 50.0]
    assert found.per_class_accuracy()[2].isnan()


def test_a_network_that_knows_the_answer_scores_100_percent() -> None:
    task = toy_task(val=41)

    class BrightestRows(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x.mean((1, 3))
            return torch.stack([rows[:, 2 * c : 2 * c + 2].mean(1) for c in range(3)], 1)

    found = evaluate(BrightestRows(), task.val, task.spec, 8, batch_size=7)
    assert found.accuracy == 100.0
    assert found.confusion().diagonal().sum() == 41
    wrong = Split(task.val.images, (task.val.labels + 1) % 3)
    assert evaluate(BrightestRows(), wrong, task.spec, 8).accuracy == 0.0


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
    evaluate(model, task.val, task.spec, 8)
    x = torch.randn(4, 2, 8, 8, requires_grad=True)
    model(x).sum().backward()
    assert x.grad is not None
    recipe = FineTuneRecipe(lr=0.01, batch_size=8, accumulate=1)
    found = fine_tune(Remembering(), task, recipe, resolution=8, seed=0, clock=StepClock(6))
    assert found.steps == 6
    assert fit(Remembering(), task, RECIPE, resolution=8, seed=0, clock=StepClock(6)).steps == 6


def test_model_and_random_state_stay_as_they_were() -> None:
    task, model = toy_task(), conv_net()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, random = [m.training for m in model.modules()], torch.get_rng_state()
    evaluate(model, task.val, task.spec, 8)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_an_empty_split_is_refused() -> None:
    task = toy_task()
    with pytest.raises(BadInput, match="no images"):
        evaluate(conv_net(), task.val.take(torch.arange(0)), task.spec, 8)
