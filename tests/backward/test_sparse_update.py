"""Sparse updates: the slice and nothing else, chosen once; the paper's memory of a scheme."""

import copy

import pytest
import torch
from torch import Tensor, nn

from edgewright.backward.account import measure_kept, predict_kept, total
from edgewright.backward.base import swapped
from edgewright.backward.rules.sparse_update import (
    Scheme,
    SubTensor,
    convolutions,
    layer_bits,
    memory_bits,
    scheme_rules,
)
from edgewright.backward.survey import survey
from edgewright.core.errors import BadInput

LAYERS = {
    "dense": (nn.Conv2d(16, 6, 3, stride=(1, 2), padding=1), (2, 16, 7, 10)),
    "one of eight": (nn.Conv2d(8, 6, 1), (2, 8, 5, 3)),
    "few": (nn.Conv2d(3, 6, 3, dilation=2), (2, 3, 9, 8)),
    "depthwise": (nn.Conv2d(16, 16, (3, 5), groups=16, stride=2), (2, 16, 9, 12)),
    "doubled": (nn.Conv2d(8, 16, 3, groups=8), (2, 8, 5, 6)),
    "grouped": (nn.Conv2d(24, 9, 3, groups=3), (2, 24, 5, 6)),
    "linear": (nn.Linear(20, 7), (5, 20)),
    "tokens": (nn.Linear(16, 7), (2, 3, 5, 16)),
}


def build(name: str) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(7)
    layer, shape = LAYERS[name]
    model = nn.Sequential(copy.deepcopy(layer))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model, torch.randn(shape, requires_grad=True)


def chosen(layer: nn.Module, share: float) -> Tensor:
    """Which elements of the weight learn, by the words of the docstring alone."""
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    weight = layer.weight.detach()
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    depthwise = groups > 1 and weight.shape[1] == 1
    count = groups if depthwise else weight.shape[1]
    if depthwise:
        norms = [float(block.norm()) for block in weight.chunk(count, 0)]
    else:
        norms = [float(weight[:, channel].norm()) for channel in range(count)]
    best = sorted(range(count), key=lambda channel: -norms[channel])[: max(1, int(share * count))]
    mask = torch.zeros_like(weight, dtype=torch.bool)
    for channel in best:
        if depthwise:
            each = weight.shape[0] // count
            mask[channel * each : (channel + 1) * each] = True
        else:
            mask[:, channel] = True
    return mask


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    output = model(x)
    weights = torch.linspace(-1, 2, output.numel()).view_as(output)
    return list(torch.autograd.grad((output * weights).sum(), [x, *model.parameters()]))


@pytest.mark.parametrize("share", [1 / 8, 1 / 4, 1 / 2, 1.0])
@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_is_autograds_on_the_slice_and_zero_elsewhere(name: str, share: float) -> None:
    model, x = build(name)
    gx, gw, gb = gradients(model, x)
    with swapped(model, {"0": SubTensor(share)}):
        ours = gradients(model, x)
    mask = chosen(model[0], share)
    torch.testing.assert_close(ours[0], gx, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[2], gb, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[1], torch.where(mask, gw, 0.0), rtol=1e-4, atol=1e-5)
    assert not ours[1][~mask].any()


@pytest.mark.parametrize("name", LAYERS)
def test_no_other_weight_moves_by_a_bit_and_the_choice_stays(name: str) -> None:
    model, x = build(name)
    before = model[0].get_parameter("weight").detach().clone()
    mask = chosen(model[0], 1 / 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    with swapped(model, {"0": SubTensor(1 / 4)}):
        for _ in range(4):  # large steps that turn the order of the norms round
            optimizer.zero_grad()
            (model(x.detach()) ** 2).mean().backward()
            optimizer.step()
            with torch.no_grad():
                model[0].get_parameter("weight")[mask] *= 0.01
    after = model[0].get_parameter("weight").detach()
    assert torch.equal(after[~mask], before[~mask])
    assert (after[mask] != before[mask]).all()
    assert not torch.equal(chosen(model[0], 1 / 4), mask)


def test_a_bound_rule_repeats_its_choice_on_other_weights() -> None:
    model, x = build("dense")
    rule = SubTensor(1 / 4).bound(model[0])
    assert rule.channels is not None and len(rule.channels) == 4 and rule.bound(model[0]) is rule
    mask = chosen(model[0], 1 / 4)
    nn.init.normal_(model[0].get_parameter("weight"))
    with swapped(model, {"0": rule}):
        moved = gradients(model, x)[1] != 0
    assert torch.equal(moved.flatten(2).any(2), mask.flatten(2).any(2))


def test_only_the_slice_is_kept() -> None:
    model, x = build("dense")
    with swapped(model, {"0": SubTensor(1 / 8)}):
        assert total(measure_kept(model, x)) == x.numel() * 4 // 8 == total(predict_kept(model, x))
    with swapped(model, {"0": SubTensor(0.0)}):
        assert total(measure_kept(model, x)) == 0
        assert not gradients(model, x)[1].any()
    (site,) = survey(model, x)
    call = site.calls[0]
    assert SubTensor(1 / 8).macs(call, (True, True, True)) == call.macs() * 9 // 8


def test_a_share_is_a_share() -> None:
    with pytest.raises(BadInput, match="between 0 and 1"):
        SubTensor(1.5)


def small() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ReLU6(),
        nn.Conv2d(8, 12, 1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )
    return model, torch.randn(2, 3, 13, 18)


def test_the_memory_of_a_scheme_is_counted_as_the_paper_does() -> None:
    model, x = small()
    convs = convolutions(survey(model, x))
    scheme = Scheme(2, {"4": 1 / 4, "2": 1 / 2})
    pixels = 7 * 9
    by_hand = (8 * pixels + 32 * 8 + 8 * pixels * 4 + 8 * 4 * 9) + (12 * pixels + 32 * 12 + 8 * pixels * 2 + 8 * 12 * 2)
    assert memory_bits(scheme, convs) == by_hand
    assert memory_bits(Scheme(0), convs) == 0
    assert memory_bits(Scheme(1), convs) == 12 * pixels + 32 * 12 == layer_bits(convs[2], 0.0)


def test_a_step_keeps_what_the_memory_model_says_of_activations() -> None:
    """32 bits an input where the paper has 8; biases and weights are no activations; the head is not counted."""
    model, x = small()
    sites = survey(model, x)
    rules, trained = scheme_rules(Scheme(2, {"4": 1 / 4, "2": 1 / 2}), sites, model)
    assert trained == ("2.weight", "2.bias", "4.weight", "4.bias", "8.weight", "8.bias")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    with swapped(model, rules):
        kept = [one for one in measure_kept(model, x) if one.layer in rules]
        assert predict_kept(model, x) == measure_kept(model, x)
    pixels = 7 * 9
    inputs = 2 * 4 * pixels * (4 + 2)
    masks = -(-2 * 8 * pixels // 8) + -(-2 * 12 * pixels // 8)
    assert total(tuple(kept)) == inputs + masks


def test_impossible_schemes_are_refused() -> None:
    model, x = small()
    sites = survey(model, x)
    with pytest.raises(BadInput, match="not among the last 1 layers"):
        scheme_rules(Scheme(1, {"2": 0.5}), sites, model)
    with pytest.raises(BadInput, match="the model has 3"):
        memory_bits(Scheme(4), convolutions(sites))
