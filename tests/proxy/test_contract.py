"""Every proxy through the laws of the room."""

import copy
import math

import pytest
import torch
from torch import nn

from edgewright.core.errors import BadInput
from edgewright.proxy.base import score
from edgewright.proxy.resolve import proxies

PROXIES = list(proxies().values())
by_name = pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.name)


@by_name
def test_says_what_it_is(proxy):
    assert proxy.source and proxy.summary and proxies()[proxy.name].name == proxy.name


@by_name
def test_leaves_model_and_random_state_untouched(proxy, small, batches):
    model = small()
    model.train()
    model.drop.eval()  # a mixed mode must come back
    model.head.weight.requires_grad_(False)
    model.stem[0].weight.grad = torch.ones_like(model.stem[0].weight)
    model.norm.running_mean.fill_(0.25)
    calls = []
    model.deep.register_forward_hook(lambda *arguments: calls.append(1))
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()]
    numbers = torch.get_rng_state()
    score(model, batches(), [proxy])
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert hooks == [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()
    ]
    assert model.stem[2].inplace
    assert torch.equal(model.stem[0].weight.grad, torch.ones_like(model.stem[0].weight))
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name != "stem.0.weight")


@by_name
def test_deterministic_and_independent_of_global_random_state(proxy, small, batches):
    torch.manual_seed(1)
    first = score(small(), batches(), [proxy], seed=5)
    torch.manual_seed(2)
    assert score(small(), batches(), [proxy], seed=5) == first


@by_name
def test_independent_of_the_other_proxies_and_of_their_order(proxy, small, batches):
    alone = score(small(), batches(), [proxy])[proxy.name]
    assert score(small(), batches(), PROXIES)[proxy.name] == alone
    assert score(small(), batches(), PROXIES[::-1])[proxy.name] == alone


@by_name
def test_finite_on_a_normal_network_and_with_gradients_off(proxy, small, batches):
    with torch.no_grad():
        assert math.isfinite(score(small(), batches(), [proxy])[proxy.name])


@by_name
def test_a_wholly_dead_network_does_not_crash(proxy, small, batches):
    model = small()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    nn.init.zeros_(model.stem[1].weight)
    value = score(model, batches(), [proxy])[proxy.name]
    assert not math.isnan(value)


@by_name
def test_not_a_number_ranks_last(proxy, small, batches):
    model = small()
    nn.init.constant_(model.deep.weight, math.nan)
    value = score(model, batches(), [proxy])[proxy.name]
    assert value == proxy.worst or ("gradients" not in proxy.needs and math.isfinite(value))


@by_name
def test_survives_an_error_in_the_model(proxy, small, batches):
    model = small()
    model.head.forward = None  # type: ignore[assignment]
    before = copy.deepcopy(model.state_dict())
    if proxy.needs:
        with pytest.raises(TypeError):
            score(model, batches(), [proxy])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training and not model.stem[0]._forward_hooks


@by_name
def test_missing_batches_and_labels_are_named(proxy, small, batches):
    if proxy.needs:
        with pytest.raises(BadInput, match=proxy.name):
            score(small(), [], [proxy])
    if proxy.needs & {"gradients", "activation_gradients", "targets"}:
        with pytest.raises(BadInput, match=f"{proxy.name} needs targets"):
            score(small(), [(batches()[0][0], None)], [proxy])
