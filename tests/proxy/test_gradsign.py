"""GradSign against per-sample autograd, and the published code's number."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgewright.core.errors import BadInput
from edgewright.proxy.base import score
from edgewright.proxy.scores.gradsign import gradsign


def test_equals_per_sample_gradients(chain, chain_batch):
    x, y = chain_batch
    chain.train()
    losses = F.cross_entropy(chain(x[:4]), y[:4], reduction="none")
    weights = [layer.weight for layer in chain.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    signs = [
        torch.cat([g.flatten().sign() for g in torch.autograd.grad(v, weights, retain_graph=True)]) for v in losses
    ]
    found = score(chain, [chain_batch], [gradsign(samples=4)])["gradsign"]
    # A sign may fall either way where a gradient is 0 to rounding.
    assert found == pytest.approx(float(torch.stack(signs).sum(0).abs().sum()), rel=2e-3)


def test_equals_the_published_code(chain, chain_batch):
    # HamsterMimi/MeCo 0d830dd2, foresight/pruners/measures/gradsign.py, on this batch.
    assert score(chain, [chain_batch], [gradsign(compat=True)])["gradsign_compat"] == pytest.approx(3620, rel=2e-3)


def test_one_sample_agrees_with_itself_on_every_live_weight(chain, chain_batch):
    found = score(chain, [chain_batch], [gradsign(samples=1)])["gradsign"]
    assert found == pytest.approx(sum(p.numel() for p in chain.parameters() if p.ndim > 1), rel=0.35)


def test_a_single_value_per_channel_is_the_worst_and_no_crash():
    network = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    found = score(network, [(torch.randn(3, 3, 2, 2), torch.tensor([0, 1, 1]))], [gradsign(compat=True)])
    assert found["gradsign_compat"] == float("-inf")


def test_labels_of_pixels_and_losses_of_ones_own():
    """A map of classes a sample, and one number a sample: the loss of a sample is whatever is scored with."""
    torch.manual_seed(0)
    x, maps = torch.randn(3, 2, 6, 5), torch.randint(0, 4, (3, 6, 5))
    dense, number = nn.Conv2d(2, 4, 3, padding=1), nn.Sequential(nn.Flatten(), nn.Linear(60, 1))

    def squares(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ((z[:, 0] - y) ** 2).mean()

    for network, labels, loss in ((dense, maps, F.cross_entropy), (number, torch.randn(3), squares)):
        weight = next(p for p in network.parameters() if p.ndim > 1)
        each = [torch.autograd.grad(loss(network(x[i : i + 1]), labels[i : i + 1]), weight)[0].sign() for i in range(3)]
        found = score(network, [(x, labels)], [gradsign()], loss=loss)["gradsign"]
        assert found == pytest.approx(float(torch.stack(each).sum(0).abs().sum()), abs=4)


def test_no_samples_is_refused():
    with pytest.raises(BadInput, match="at least one sample"):
        gradsign(samples=0)
