"""The tangent kernel and the linear regions against what is known of them, and the official code's numbers."""

import pytest
import torch
from torch import nn

from edgewright.core.seed import derive
from edgewright.proxy.base import score
from edgewright.proxy.scores.te_nas import linear_regions, ntk_condition


def test_kernel_of_a_linear_network_is_the_inputs_gram_matrix():
    x = torch.randn(4, 3, 2, 5, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Flatten(), nn.Linear(30, 3, bias=True))
    rows = x.flatten(1).double()
    for compat, gram in ((True, 3 * rows @ rows.T), (False, 3 * (rows @ rows.T + 1))):
        values = torch.linalg.eigvalsh(gram)
        proxy = ntk_condition(compat=compat)
        found = score(network, [(x, None)], [proxy])[proxy.name]
        assert found == pytest.approx(float(values[-1] / values[0]), rel=1e-4)


@pytest.mark.parametrize("compat", [False, True])
def test_equals_per_sample_gradients_of_a_network(chain, chain_batch, compat):
    x = torch.cat([chain_batch[0], chain_batch[0] ** 2])
    chain.train()
    sums = chain(x[:5]).sum(1)
    wanted = [p for n, p in chain.named_parameters() if not compat or "weight" in n]
    rows = []
    for value in sums:
        found = torch.autograd.grad(value, wanted, retain_graph=True)
        rows.append(torch.cat([g.flatten() for g in found]).double())
    values = torch.linalg.eigvalsh(torch.stack(rows) @ torch.stack(rows).T)
    proxy = ntk_condition(samples=5, compat=compat)
    found = score(chain, [(x, None)], [proxy])[proxy.name]
    assert found == pytest.approx(float(values[-1] / values[0]), rel=1e-4)


def test_equals_the_official_code(chain, chain_batch):
    # SLDGroup/ZiCo b0fec659, compute_te_nas_score.py, on this batch; symeig, gone from torch, stood in for by eigh.
    found = score(chain, [chain_batch], [ntk_condition(compat=True)])["ntk_condition_compat"]
    assert found == pytest.approx(5.7127542, rel=1e-4)
    # The same file, 300 inputs of 1 x 1 from torch.manual_seed(derive(0, "proxy", "linear_regions", 0)).
    assert score(chain, [chain_batch], [linear_regions(samples=300, side=1)])["linear_regions"] == 271


def test_a_singular_kernel_is_the_worst(chain, chain_batch):
    same = chain_batch[0][:1].repeat(4, 1, 1, 1)
    assert score(chain, [(same, None)], [ntk_condition()])["ntk_condition"] == ntk_condition().worst == float("inf")


def test_regions_equal_a_count_of_patterns(chain):
    chain.train()
    patterns = []
    for layer in chain.modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda m, a, out: patterns.append((out > 0).flatten(1)))
    generator = torch.Generator().manual_seed(derive(3, "proxy", "linear_regions", 0))
    with torch.no_grad():
        chain(torch.randn(90, 3, 1, 1, generator=generator))
    expected = len({tuple(row.tolist()) for row in torch.cat(patterns, 1)})
    found = score(type(chain)(), [(torch.zeros(2, 3, 8, 6), None)], [linear_regions(samples=90, side=1)], seed=3)
    assert found["linear_regions"] == expected < 90


def test_regions_missing_without_relu():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Hardswish())
    assert score(network, [(torch.zeros(2, 3, 4, 4), None)], [linear_regions()]) == {}
