"""AZ-NAS against numpy on stored features, linear blocks, and the official code's numbers."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgewright.core.errors import BadInput
from edgewright.core.seed import derive
from edgewright.proxy.base import score
from edgewright.proxy.scores.az_nas import aggregate_ranks, az_expressivity, az_progressivity, az_trainability

THREE = (az_expressivity(), az_progressivity(), az_trainability())


def test_equal_the_official_code(chain, chain_batch):
    # cvlab-yonsei/AZ-NAS 5e6683a2, NB201/ZeroShotProxy/compute_az_nas_score.py, random inputs (6, 3, 12, 12),
    # torch.manual_seed(derive(0, "proxy", "az_nas", 0)).
    found = score(chain, [chain_batch], THREE)
    assert found["az_expressivity"] == pytest.approx(8.358805, rel=1e-4)
    assert found["az_progressivity"] == pytest.approx(-0.27669096, rel=1e-4)
    assert found["az_trainability"] == pytest.approx(-0.37160879, rel=1e-4)


def test_entropies_equal_numpy_on_stored_features(chain):
    inputs = torch.zeros(5, 3, 10, 7)
    generator = torch.Generator().manual_seed(derive(4, "proxy", "az_nas", 0))
    with torch.no_grad():
        for layer in chain.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                drawn = torch.randn(layer.weight.shape, generator=generator)
                layer.weight.copy_(drawn * math.sqrt(2 / layer.weight[0].numel()))
        chain.train()
        features = chain.extract_cell_features(torch.randn(inputs.shape, generator=generator))
    entropies = []
    for feature in features:
        rows = feature.double().permute(0, 2, 3, 1).reshape(-1, feature.shape[1]).numpy()
        values = np.linalg.eigvalsh(np.cov(rows.T, ddof=0))
        shares = values / values.sum()
        entropies.append(-(shares * np.log(shares + 1e-8)).sum())
    found = score(type(chain)(), [(inputs, None)], THREE, seed=4)
    assert found["az_expressivity"] == pytest.approx(sum(entropies), rel=1e-4)
    assert found["az_progressivity"] == pytest.approx(np.diff(entropies).min(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("few", "many"), [(3, 24), (3, 64), (2, 40)])
def test_a_network_whose_features_span_little_has_a_score(few, many):
    """Of as many eigenvalues as channels all but a few are 0, and rounding puts some of them below it."""
    network = nn.Sequential(nn.Conv2d(few, many, 1), nn.Conv2d(many, 5, 1))
    inputs = torch.zeros(4, few, 11, 9)
    found = score(network, [(inputs, None)], THREE, seed=3)
    generator = torch.Generator().manual_seed(derive(3, "proxy", "az_nas", 0))
    weights = [
        torch.randn(layer.weight.shape, generator=generator) * math.sqrt(2 / layer.in_channels) for layer in network
    ]
    x, entropies = torch.randn(inputs.shape, generator=generator), []
    for weight in weights:
        x = nn.functional.conv2d(x.double(), weight.double())
        values = np.linalg.eigvalsh(np.cov(x.movedim(1, 0).flatten(1).numpy(), ddof=0)).clip(0)
        shares = values / values.sum()
        entropies.append(-(shares * np.log(shares + 1e-8)).sum())
    assert found["az_expressivity"] == pytest.approx(sum(entropies), rel=1e-4)


class Scale(nn.Module):
    """A block that multiplies by a number; holds a part, so that it is seen as a block."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.part, self.factor = nn.Identity(), factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.part(x)


@pytest.mark.parametrize("factor", [0.5, 1.7])
def test_trainability_of_a_scaling_is_known(factor):
    # g_in = f g_out: the mean of g_in g_out^T is f times a near-identity (1 + noise of 1 / sqrt(pixels)).
    network = nn.Sequential(nn.Conv2d(3, 2, 1), Scale(factor), nn.Flatten(), nn.Linear(2 * 40 * 50, 4))
    found = score(network, [(torch.zeros(8, 3, 40, 50), None)], THREE)["az_trainability"]
    assert found == pytest.approx(2 - factor - 1 / factor, abs=0.03)


def test_an_identity_ranks_last_and_a_dead_block_low():
    shape = (torch.zeros(3, 3, 4, 6), None)
    head = (nn.Flatten(), nn.Linear(48, 4))
    assert score(nn.Sequential(nn.Conv2d(3, 2, 1), Scale(1.0), *head), [shape], THREE)["az_trainability"] == -math.inf
    dead = score(nn.Sequential(nn.Conv2d(3, 2, 1), Scale(0.0), *head), [shape], THREE)
    assert dead["az_trainability"] == pytest.approx(2 - 1e6)
    assert dead["az_expressivity"] == -math.inf  # nothing varies


def test_sides_that_the_stride_does_not_divide():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(6, 5, 3, 3, 1))
    found = score(network, [(torch.zeros(2, 3, 13, 9), None)], THREE)
    assert all(math.isfinite(value) for value in found.values())


def test_missing_with_fewer_than_two_blocks():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    assert score(network, [(torch.zeros(2, 3, 5, 5), None)], THREE) == {}


def test_aggregation_by_hand():
    # ranks of the columns: 1, 2.5, 2.5, 4 and 4, 3, 2, 1
    found = aggregate_ranks([[0.1, 7, 7, 9], [5, 4, 3, math.nan]])
    expected = [1 * 4, 2.5 * 3, 2.5 * 2, 4 * 1]
    assert found == pytest.approx([math.log(product / 16) for product in expected])
    best = aggregate_ranks([[1, 2, 3], [10, 20, 30]])
    assert best[2] == 0 and best.argmax() == 2


@pytest.mark.parametrize("columns", [[], [[]], [[1, 2], [1]], [[[1, 2]]]])
def test_aggregation_refuses_unequal_columns(columns):
    with pytest.raises(BadInput, match="equally many"):
        aggregate_ranks(columns)
