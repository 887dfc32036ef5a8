"""SWAP-score against a count of tuples, and the official code's numbers."""

import math

import pytest
import torch
from torch import nn

from edgewright.core.errors import BadInput
from edgewright.proxy.base import score
from edgewright.proxy.scores.swap import swap


@pytest.fixture
def many() -> torch.Tensor:
    """70 inputs: more than one word of 64 bits."""
    return torch.randn(70, 3, 12, 12, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("count", [3, 8, 64, 70])
def test_equals_a_count_of_tuples(chain, many, count):
    inputs = many[:count, :, :7, :10]
    chain.train()
    patterns = []
    for layer in chain.modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda m, a, out: patterns.append((out > 0).flatten(1).T))
    with torch.no_grad():
        chain(inputs)
    expected = len({tuple(row.tolist()) for row in torch.cat(patterns)})
    assert score(type(chain)(), [(inputs, None)], [swap()])["swap"] == expected


def test_equals_the_official_code(chain, many):
    # pym1024/SWAP f6049f7c, src/metrics/swap.py, on these inputs, without and with mu 5, sigma 20 (1,969 parameters).
    assert score(chain, [(many, None)], [swap()])["swap"] == 3168
    found = score(chain, [(many, None)], [swap(mu=5, sigma=20)])["swap_regularised"]
    assert found == pytest.approx(2001.21085, rel=1e-6)
    assert found == pytest.approx(3168 * math.exp(-((1.969 - 5) ** 2) / 20), rel=1e-6)


def test_mean_over_batches_and_bounds(chain, many):
    values = [score(chain, [(part, None)], [swap()])["swap"] for part in (many[:5], many[5:40])]
    assert score(chain, [(many[:5], None), (many[5:40], None)], [swap()])["swap"] == sum(values) / 2
    assert values[0] <= 2**5


def test_missing_without_relu_and_half_a_regularisation(chain, many):
    assert score(nn.Conv2d(3, 2, 1), [(many, None)], [swap()]) == {}
    with pytest.raises(BadInput, match="mu and a sigma"):
        swap(mu=3)
    with pytest.raises(BadInput, match="sigma above 0"):
        swap(mu=3, sigma=-1)
