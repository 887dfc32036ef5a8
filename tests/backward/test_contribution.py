"""Contributions equal dot products of gradients that are made one method at a time."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from backward.networks import odd
from edgewright.backward.base import swapped
from edgewright.backward.plans.contribution import measure
from edgewright.backward.resolve import methods, rule_for
from edgewright.core.errors import BadInput


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(4, 3, 15, 18, generator=generator), torch.randint(0, 5, (4,), generator=generator))
        for _ in range(count)
    ]


def test_it_is_the_dot_product_with_the_mean_of_earlier_exact_gradients_at_unit_length() -> None:
    model, _ = odd()
    data = batches(3)

    def gradient(names: list[str], rules: dict[str, str], x: Tensor, y: Tensor) -> Tensor:
        layers = dict(model.named_modules())
        kinds = {"depthwise": "conv", "groups": "conv", "norm2": "norm"}
        own = [model.get_parameter(name) for name in names]
        with swapped(model, {name: rule_for(m, kinds[name]).bound(layers[name]) for name, m in rules.items()}):  # pyright: ignore
            found = torch.autograd.grad(functional.cross_entropy(model(x), y), own, materialize_grads=True)
        return torch.cat([one.flatten() for one in found])

    contributions = measure(model, data, functional.cross_entropy)
    for layer, method, parts in (
        ("depthwise", "full", ("weight", "bias")),
        ("groups", "slice-4", ("weight", "bias")),
        ("groups", "bias", ("bias",)),
        ("norm2", "full", ("weight", "bias")),
    ):
        names = [f"{layer}.{part}" for part in parts]
        exact = [gradient(names, {}, x, y) for x, y in data]
        other = [gradient(names, {layer: method}, x, y) for x, y in data]
        length = (sum(one @ one for one in other) / 3) ** 0.5
        wanted = (other[1] @ exact[0] + other[2] @ (exact[0] + exact[1]) / 2) / 2 / length
        assert contributions[layer, method] == pytest.approx(float(wanted), rel=1e-4, abs=1e-8)


def test_every_layer_and_method_that_can_learn_there_is_in_it_and_the_model_is_as_before() -> None:
    model, _ = odd()
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = measure(model, batches(2), functional.cross_entropy)
    assert {layer for layer, _ in found} == {"stem", "norm", "twice", "depthwise", "norm2", "groups", "head"}
    assert {method for _, method in found} <= set(methods())
    assert ("norm", "bias") in found and ("twice", "bias") not in found  # it has none
    assert model.training and all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_what_is_measured_predicts_the_loss_of_a_small_step() -> None:
    model, _ = odd()
    data = batches(2)
    data = [data[0], data[0]]  # the same batch twice: what is found is the gradient's length
    found = measure(model, data, functional.cross_entropy)["groups", "full"]
    with torch.no_grad():
        before = functional.cross_entropy(model(data[0][0]), data[0][1])
    gradients = torch.autograd.grad(
        functional.cross_entropy(model(data[0][0]), data[0][1]), [model.groups.weight, model.groups.bias]
    )
    length = sum(gradient.pow(2).sum() for gradient in gradients) ** 0.5
    with torch.no_grad():
        for parameter, gradient in zip((model.groups.weight, model.groups.bias), gradients, strict=True):
            assert parameter is not None
            parameter -= 1e-3 * gradient / length
        after = functional.cross_entropy(model(data[0][0]), data[0][1])
    assert float(before - after) == pytest.approx(1e-3 * found, rel=0.05)


def test_too_few_batches_and_broken_losses_are_one_sentence() -> None:
    model, _ = odd()
    with pytest.raises(BadInput, match="need two batches at least; got 1"):
        measure(model, batches(1), functional.cross_entropy)
    with pytest.raises(BadInput, match="the loss is nan in calibration batch 1"):
        measure(model, [(torch.full((2, 3, 15, 18), torch.nan), torch.tensor([0, 1]))], functional.cross_entropy)
