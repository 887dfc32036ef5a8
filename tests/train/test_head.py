import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from train_toys import conv_net, toy_task

from edgewright.core.errors import BadInput
from edgewright.task.base import Split
from edgewright.task.kinds.classification import Classification
from edgewright.train.evaluate import evaluate
from edgewright.train.head import first_lesson, put_layers, replace_outputs

EXAMPLE = torch.zeros(2, 2, 8, 8)
HEAD = Classification(("a", "b"), {}).head


def renew(model: nn.Module, outputs: int, example: torch.Tensor = EXAMPLE) -> dict[str, nn.Module]:
    spec = toy_task().spec.model_copy(update={"names": tuple(map(str, range(outputs)))})
    return replace_outputs(model, spec, example)


class Gated(nn.Module):
    """Its classifier is not the last linear layer that was made, nor the only one that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(6, 4)
        self.gate = nn.Linear(6, 6)
        self.stem = nn.Conv2d(2, 6, 3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).mean((2, 3))
        return self.classifier(x * self.gate(x).sigmoid())


def convolutional() -> nn.Module:
    """A linear layer runs in it, and it ends in a convolution."""
    gate = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(2), nn.Linear(64, 64), nn.Unflatten(2, (8, 8)))
    return nn.Sequential(gate, nn.Conv2d(4, 3, 8), nn.Flatten())


def test_the_head_is_what_the_network_ends_in() -> None:
    assert HEAD.find(conv_net(), EXAMPLE) == ("11",)
    assert HEAD.find(Gated().train(), EXAMPLE) == ("classifier",)


@pytest.mark.parametrize("model", [convolutional(), nn.Sequential(nn.Conv2d(2, 3, 8), nn.Flatten())])
def test_a_network_without_a_linear_end_is_refused(model: nn.Module) -> None:
    with pytest.raises(BadInput, match="does not end in a linear layer"):
        HEAD.find(model, EXAMPLE)


def test_a_new_head_says_nothing_yet_and_the_old_one_goes_back() -> None:
    model = conv_net().eval()
    x = torch.rand(5, 2, 8, 8)
    before = model(x)
    old = renew(model, 7)
    assert torch.equal(model(x), torch.zeros(5, 7))
    assert model[11].bias is not None
    new = put_layers(model, old)
    assert torch.equal(model(x), before)
    put_layers(model, new)
    assert model[11] is new["11"]


def test_a_head_below_is_reached_by_its_name() -> None:
    model = nn.Sequential(nn.Flatten(), nn.ModuleDict({"body": nn.Identity(), "last": nn.Linear(3, 2)}))
    old = put_layers(model, {"1.last": nn.Linear(3, 5)})
    assert (old["1.last"].out_features, model[1]["last"].out_features) == (2, 5)  # pyright: ignore


@pytest.mark.parametrize("bias", [True, False])
def test_the_first_lesson_beats_chance_and_leaves_the_rest(bias: bool) -> None:
    """Only the head changes: not the norms' statistics, not who is training, not the global random state."""
    task, model = toy_task(classes=4), conv_net(width=12).train()
    renew(model, 4)
    if not bias:
        model[11].bias = None
    before = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("11.")}
    state = torch.get_rng_state()
    first_lesson(model, "11", task.train, task.spec, (8, 8), seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name in before)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert (
        evaluate(model, task.test, task.spec, (8, 8)).score.value > 45
    )  # 25 is chance; the features were never learned


def test_the_lesson_is_softmax_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the features as they are, without normalisation: at its end the gradient of the loss is near zero."""
    monkeypatch.setattr("edgewright.train.head.ROUNDS", 4000)
    monkeypatch.setattr("edgewright.train.head.DECAY", 0.0)
    task = toy_task(train=60)
    noisy = Split(task.train.inputs, (task.train.targets + (torch.arange(60) % 5 == 0)) % 3)  # not separable
    model: Any = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(2, 3))
    renew(model, 3)
    first_lesson(model, "2", noisy, task.spec, (8, 8), seed=4)
    x = (noisy.inputs.float() - 80) / 50
    nn.functional.cross_entropy(model(x), noisy.targets).backward()
    assert model[2].weight.grad.abs().max() < 1e-3
    assert model[2].bias.grad.abs().max() < 1e-3


def test_the_same_seed_teaches_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewright.train.head.SAMPLES", 20)  # so that the seed chooses among the images
    task, heads = toy_task(), []
    for seed in (1, 1, 2):
        model = conv_net()
        renew(model, 3)
        first_lesson(model, "11", task.train, task.spec, (8, 8), seed)
        heads.append(model[11].weight.detach())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_features_of_half_size_teach_too() -> None:
    task = toy_task()
    model = conv_net().to(torch.bfloat16)
    renew(model, 3, EXAMPLE.to(torch.bfloat16))
    first_lesson(model, "11", task.train, task.spec, (8, 8), seed=0)
    assert model[11].weight.dtype == torch.bfloat16
    assert model[11].weight.isfinite().all() and model[11].weight.abs().max() > 0


def test_features_that_are_no_numbers_are_refused() -> None:
    model, task = conv_net(), toy_task()
    nn.init.constant_(model[0].weight, float("nan"))
    with pytest.raises(BadInput, match="not numbers; look at its weights"):
        first_lesson(model, "11", dataclasses.replace(task.train), task.spec, (8, 8), seed=0)
