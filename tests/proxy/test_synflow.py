"""SynFlow in closed form, on a rewritten network, and official numbers."""

import copy
import itertools

import pytest
import torch
from torch import nn

from edgewright.proxy.base import score
from edgewright.proxy.scores.synflow import synflow

# SamsungLabs/zero-cost-nas at a43bfbc, measures synflow and synflow_bn, on the chain of blocks with inputs (3, 12, 12);
# SLDGroup/survey-zero-shot-nas at b666902 calls the second one synflow.
OFFICIAL = {"synflow": 256642.36156775063, "synflow_compat": 10.903470240289604}


@pytest.mark.parametrize("compat", [False, True])
def test_official_number(compat, chain, chain_batch):
    values = score(chain, [chain_batch], [synflow(compat=compat)])
    assert values == pytest.approx({name: OFFICIAL[name] for name in values}, rel=1e-6)


def test_every_linear_layer_of_a_chain_carries_the_whole_flow(batches):
    torch.manual_seed(1)
    sizes = (126, 7, 5, 3)
    layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(sizes)]
    model = nn.Sequential(nn.Flatten(), *layers)
    flow = torch.ones(126, dtype=torch.float64)
    for layer in layers:
        flow = layer.weight.detach().double().abs() @ flow
    value = score(model, [(batches(1)[0][0], None)], [synflow()])["synflow"]
    assert value == pytest.approx(3 * float(flow.sum()), rel=1e-12)


def test_equals_a_rewritten_network(small, batches):
    model = small()
    nn.init.uniform_(model.norm.weight, -2, 2)
    plain = copy.deepcopy(model).double().eval()
    plain.stem[1] = plain.norm = nn.Identity()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.abs_()
    plain(torch.ones(1, 2, 9, 7, dtype=torch.float64)).sum().backward()
    layers = (plain.stem[0], plain.deep, plain.head)
    expected = sum(float((layer.weight * layer.weight.grad).detach().abs().sum()) for layer in layers)
    assert score(model, batches(2), [synflow()])["synflow"] == pytest.approx(expected, rel=1e-12)


def test_inputs_and_signs_do_not_matter(small, batches):
    model = small()
    value = score(model, batches(1), [synflow()])
    with torch.no_grad():
        model.deep.weight.neg_()
    assert score(model, batches(3, seed=9), [synflow()]) == value


def test_deep_networks_do_not_overflow(batches):
    layers = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(60)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1.0)
    model = nn.Sequential(nn.Conv2d(2, 8, 1), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert 1e100 < score(model, batches(1), [synflow()])["synflow"] < float("inf")
