"""Jacobian covariance against numpy on one backward pass per sample, and the official number."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from edgewright.proxy.base import score
from edgewright.proxy.scores.jacob_cov import jacob_cov

# SamsungLabs/zero-cost-nas at a43bfbc and SLDGroup/survey-zero-shot-nas at b666902, on the chain of blocks.
OFFICIAL = -6.051888626421832


def by_hand(rows: np.ndarray) -> float:
    values = np.linalg.eigvalsh(np.corrcoef(rows))
    return -sum(math.log(v + 1e-5) + 1 / (v + 1e-5) for v in values)


def test_official_number(chain, chain_batch):
    value = score(chain, [(chain_batch[0], None)], [jacob_cov()])["jacob_cov"]
    assert value == pytest.approx(OFFICIAL, rel=1e-4)


def test_samples_one_by_one_where_no_norm_joins_them(batches):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Conv2d(6, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(75, 4))
    values = []
    for x, _ in batches(2):
        rows = []
        for sample in x:
            leaf = sample[None].clone().requires_grad_()
            model(leaf).sum().backward()
            rows.append(leaf.grad.flatten().double().numpy())
        values.append(by_hand(np.stack(rows)))
    assert score(model, batches(2), [jacob_cov()])["jacob_cov"] == pytest.approx(np.mean(values), rel=1e-4)


def test_independent_jacobians_score_minus_the_number_of_samples():
    x = torch.zeros(4, 1, 2, 4)  # the Jacobian of a squared sum of each sample's own signs, orthogonal to the others'
    signs = torch.tensor([[1, 1, 1, 1, -1, -1, -1, -1], [1, 1, -1, -1, 1, 1, -1, -1]] * 2).float()
    signs[2:] *= torch.tensor([1, -1] * 4)
    x += signs.view(4, 1, 2, 4)

    class Square(nn.Module):
        def forward(self, inputs):
            return inputs.flatten(1).square()

    value = score(Square(), [(x, None)], [jacob_cov()])["jacob_cov"]
    assert value == pytest.approx(-4 * (math.log(1 + 1e-5) + 1 / (1 + 1e-5)), rel=1e-9)


def test_a_network_that_does_not_see_its_inputs_ranks_last(batches):
    class Blind(nn.Module):
        def forward(self, inputs):
            return inputs.new_ones(len(inputs), 3)

    assert score(Blind(), [(batches(1)[0][0], None)], [jacob_cov()])["jacob_cov"] == -math.inf
