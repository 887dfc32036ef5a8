"""NASWOT against codes compared one by one, and official numbers."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from edgewright.proxy.base import score
from edgewright.proxy.scores.naswot import naswot

# SLDGroup/ZiCo at b0fec65, `compute_nas_score` on the chain of blocks with its weights and batch in place of random
# ones. SLDGroup/survey-zero-shot-nas at b666902 gives -inf when first called (its hooks fail and are silenced), and
# N log 2 more than this when called a second time, because every hook is then there twice.
OFFICIAL = 46.04319067256462


def by_hand(codes: list[torch.Tensor]) -> float:
    """codes: (samples, units) of each layer."""
    count = len(codes[0])
    kernel = np.zeros((count, count))
    for layer in codes:
        for i in range(count):
            for j in range(count):
                kernel[i, j] += sum(a == b for a, b in zip(layer[i].tolist(), layer[j].tolist(), strict=True))
    return math.log(abs(np.linalg.det(kernel)))


def test_official_number(chain, chain_batch):
    value = score(chain, [(chain_batch[0], None)], [naswot()])["naswot"]
    assert value == pytest.approx(OFFICIAL, rel=1e-9)


class Branches(nn.Module):
    """One ReLU called twice, one nobody reads, one that is given zeros, and one that writes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.side = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.shared, self.unread, self.of_zeros, self.last = nn.ReLU(), nn.ReLU(), nn.ReLU6(), nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.shared(self.first(x))
        y = self.shared(self.second(x))
        self.unread(self.side(x))
        zeros = self.of_zeros(torch.zeros_like(x))
        return self.head(self.last(self.side(y)).mean((2, 3)) + zeros.mean((2, 3)))


def test_live_codes_one_by_one(batches):
    torch.manual_seed(0)
    model, values = Branches(), []
    for x, _ in batches(2):
        first = model.first(x)
        second = model.second(first.relu())
        codes = [first, second, model.side(second.relu())]
        values.append(by_hand([(code > 0).flatten(1) for code in codes]))
    assert score(model, [(x, None) for x, _ in batches(2)], [naswot()])["naswot"] == pytest.approx(
        np.mean(values), rel=1e-9
    )


def test_equal_samples_rank_last_and_order_does_not_matter(small, batches):
    x = batches(1)[0][0]
    x = torch.cat([x, x[:1]])
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(105, 4))
    assert score(model, [(x, None)], [naswot()])["naswot"] == -math.inf
    one, other = (
        score(model, [(x[:5][order], None)], [naswot()])["naswot"] for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3])
    )
    assert one == pytest.approx(other, rel=1e-12)


def test_missing_without_relu(batches):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert "naswot" not in score(model, batches(1), [naswot()])
