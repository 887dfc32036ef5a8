"""Zen-score against the definition written out, and the official code's number."""

import math

import pytest
import torch
from torch import nn

from edgewright.core.seed import derive
from edgewright.proxy.base import score
from edgewright.proxy.scores.zen import zen


def test_equals_the_definition(chain):
    inputs = torch.zeros(5, 3, 9, 14)
    generator = torch.Generator().manual_seed(derive(7, "proxy", "zen", 0))
    with torch.no_grad():
        for layer in chain.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    x = torch.randn(inputs.shape, generator=generator)
    moved = x + 0.01 * torch.randn(inputs.shape, generator=generator)
    variances = []
    for layer in chain.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_pre_hook(
                lambda m, a: variances.append(a[0].movedim(1, 0).flatten(1).var(1, correction=0).mean())
            )
    chain.train()
    with torch.no_grad():
        first = chain.forward_pre_GAP(x)
        expected = sum(math.log(math.sqrt(float(v))) for v in variances)
        change = (first - chain.forward_pre_GAP(moved)).abs().flatten(1).sum(1).mean()
    expected += math.log(float(change))
    fresh = type(chain)()
    assert score(fresh, [(inputs, None)], [zen()], seed=7)["zen"] == pytest.approx(expected, rel=1e-4)


def test_equals_the_official_code(chain, chain_batch):
    # SLDGroup/ZiCo b0fec659, compute_zen_score.py, batch 6, side 12, one repeat, torch.manual_seed(derive(0, ...)).
    assert score(chain, [chain_batch], [zen(compat=True)])["zen_compat"] == pytest.approx(4.0725946, rel=1e-4)


def test_only_the_shape_of_the_inputs_and_no_weight_matters(chain, chain_batch, batches):
    plain = score(chain, [chain_batch], [zen()])["zen"]
    nn.init.normal_(chain.stem[0].weight)
    assert score(chain, [(1 + chain_batch[0] ** 2, None)], [zen()])["zen"] == plain


@pytest.mark.parametrize("momentum", [0.3, None])
def test_variance_does_not_depend_on_momentum_or_held_statistics(chain, chain_batch, momentum):
    plain = score(chain, [chain_batch], [zen()])["zen"]
    for layer in chain.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum
            layer.running_var.fill_(40)
            layer.num_batches_tracked.fill_(9)
    assert score(chain, [chain_batch], [zen()])["zen"] == pytest.approx(plain, rel=1e-4)


def test_norms_without_statistics_and_norms_used_twice(chain, chain_batch):
    plain = score(chain, [chain_batch], [zen()])["zen"]
    chain.last[0] = nn.BatchNorm2d(12, track_running_stats=False)
    assert score(chain, [chain_batch], [zen()])["zen"] == pytest.approx(plain, rel=1e-4)
    twice = nn.Sequential(nn.Conv2d(3, 4, 1), norm := nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), norm)
    apart = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    values = [score(net, [chain_batch], [zen()])["zen"] for net in (twice, apart)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_missing_without_batch_norm(chain_batch):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 5))
    assert score(network, [chain_batch], [zen(), zen(compat=True)]) == {}
    assert "batch norm" in zen().undefined(network)
