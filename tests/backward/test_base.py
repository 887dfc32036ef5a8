"""The mechanism on whole networks: outputs bit by bit, exact rules equal to autograd, models left as they were."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from backward.networks import Odd, exact, odd
from edgewright.backward.base import swapped
from edgewright.backward.exact import Exact
from edgewright.backward.survey import Site, survey
from edgewright.core.errors import BadInput


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    output = model(x)
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    return list(torch.autograd.grad((output * weights).sum(), [x, *model.parameters()]))


def test_outputs_are_equal_bit_by_bit_and_exact_gradients_equal_autograds() -> None:
    model, x = odd()
    output, wanted = model(x), gradients(model, x)
    with swapped(model, exact(model, x)):
        assert torch.equal(model(x), output)
        assert len(gradients(model, x)) == len(wanted)
        for ours, theirs in zip(gradients(model, x), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_leaving_restores_classes_flags_and_state() -> None:
    model, x = odd()
    kinds = [type(layer) for layer in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attributes = [set(layer.__dict__) for layer in model.modules()]
    with pytest.raises(ZeroDivisionError), swapped(model, exact(model, x)):
        assert list(model.state_dict()) == list(state)
        assert [type(layer).__name__ for layer in model.modules()] == [kind.__name__ for kind in kinds]
        raise ZeroDivisionError
    assert [type(layer) for layer in model.modules()] == kinds
    assert [set(layer.__dict__) for layer in model.modules()] == attributes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_copy_made_inside_has_the_rules_on_its_own_weights() -> None:
    model, x = odd()
    with swapped(model, exact(model, x)):
        twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.head.weight.mul_(2.0)
    alone = gradients(twin, x)
    for layer in twin.modules():
        assert layer not in set(model.modules())
    plain = Odd().eval()
    plain.load_state_dict(twin.state_dict())
    for ours, theirs in zip(alone, gradients(plain, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_norms_stay_frozen_in_training_mode() -> None:
    model, x = odd()
    wanted = model(x)
    before = model.get_buffer("norm.running_mean").clone()
    with swapped(model, exact(model, x)):
        model.train()
        assert torch.equal(model(x), wanted)
        with torch.no_grad():
            assert torch.equal(model(x), wanted)
    assert torch.equal(model.get_buffer("norm.running_mean"), before)


def test_a_gradient_that_is_not_wanted_is_not_made() -> None:
    model, x = odd()
    model.requires_grad_(False)
    model.twice.weight.requires_grad_(True)
    with swapped(model, exact(model, x)):
        model(x).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["twice.weight"]


def test_checkpointing_accumulation_and_autocast() -> None:
    model, x = odd()
    with swapped(model, exact(model, x)):
        whole = gradients(model, x)
        source = x.clone().requires_grad_()
        output = checkpoint(model, source, use_reentrant=False)
        assert isinstance(output, Tensor)
        weights = torch.linspace(-1, 1, output.numel()).view_as(output)
        (output * weights).sum().backward()
        for ours, theirs in zip([source, *model.parameters()], whole, strict=True):
            assert ours.grad is not None
            torch.testing.assert_close(ours.grad, theirs, rtol=1e-4, atol=1e-5)
        model.zero_grad()
        for half, part in zip(x.split(1), weights.split(1), strict=True):
            (model(half) * part).sum().backward()
        for parameter, theirs in zip(model.parameters(), whole[1:], strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, theirs, rtol=1e-4, atol=1e-5)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        plain = gradients(model, x)
        output = model(x)
        with swapped(model, exact(model, x)):
            assert torch.equal(model(x), output) and output.dtype == torch.bfloat16
            for ours, theirs in zip(gradients(model, x), plain, strict=True):
                assert ours.dtype == theirs.dtype
                assert functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.999


def test_a_second_derivative_is_refused_not_wrong() -> None:
    model, x = odd()
    x.requires_grad_()
    with swapped(model, exact(model, x)):
        (first,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


def test_the_survey_names_every_layer_in_running_order_with_its_calls() -> None:
    model, x = odd()
    sites = survey(model, x)
    assert [site.name for site in sites] == [
        "stem", "norm", "act", "twice", "depthwise", "norm2", "act2", "groups", "head",
    ]  # fmt: skip
    by_name: dict[str, Site] = {site.name: site for site in sites}
    assert len(by_name["twice"].calls) == 2
    assert {site.name: site.feeds for site in sites if site.feeds} == {"stem": "norm", "depthwise": "norm2"}
    call = by_name["groups"].calls[0]
    assert call.output == tuple(model.groups(torch.zeros(call.input)).shape)
    assert call.macs() == 2 * 12 * call.output[2] * call.output[3] * 4 * 9


def test_bad_names_and_kinds_are_one_sentence() -> None:
    model, _ = odd()
    with pytest.raises(BadInput, match="no layer 'nowhere'"), swapped(model, {"nowhere": Exact()}):
        pass
    pooled = nn.Sequential(nn.AvgPool2d(2))
    with pytest.raises(BadInput, match="layer '0' is a AvgPool2d"), swapped(pooled, {"0": Exact()}):
        pass
    again = pytest.raises(BadInput, match="already has another backward")
    with swapped(model, {"stem": Exact()}), again, swapped(model, {"stem": Exact()}):
        pass
    assert type(model.stem) is nn.Conv2d
