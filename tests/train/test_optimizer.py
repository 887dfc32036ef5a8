import copy

import pytest
import torch
from torch import nn
from train_toys import conv_net

from edgewright.train.optimizer import make_optimizer, parameter_groups
from edgewright.train.recipe import Recipe


def test_norms_and_biases_do_not_decay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    decayed, free = parameter_groups(model, 0.1)
    assert [id(p) for p in decayed["params"]] == [id(model[0].weight), id(model[2].weight)]
    assert [id(p) for p in free["params"]] == [
        id(p) for p in (model[0].bias, model[1].weight, model[1].bias, model[2].bias)
    ]
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    optimizer = make_optimizer(model, Recipe())
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 2


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_fused_step_equals_the_plain_one_in_channels_last(name: str) -> None:
    model = conv_net().to(memory_format=torch.channels_last)
    other = copy.deepcopy(model)
    recipe = Recipe(optimizer=name, lr=0.02, weight_decay=0.1)
    fused = make_optimizer(model, recipe)
    groups = parameter_groups(other, 0.1)
    plain = (
        torch.optim.SGD(groups, lr=0.02, momentum=0.9, nesterov=True, foreach=False)
        if name == "sgd"
        else torch.optim.AdamW(groups, lr=0.02, foreach=False)
    )
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            a.grad = torch.empty_like(a).copy_(torch.randn(a.shape, generator=generator))
            b.grad = a.grad.clone()
        fused.step()
        plain.step()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
