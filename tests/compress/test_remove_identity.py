"""What gives back what it reads goes, bit by bit the same; what only looks like it stays."""

import pytest
import torch
from torch import nn

from compress.networks import images, lived_in
from edgewright.compress.base import apply
from edgewright.compress.planner import plan
from edgewright.core.errors import BadInput


@torch.no_grad()
def test_only_what_changes_nothing_is_removed() -> None:
    network = lived_in(
        nn.Sequential(
            nn.Dropout(0.3), nn.AvgPool2d(1), nn.Conv2d(3, 4, 1), nn.Dropout2d(), nn.AvgPool2d(3, 1, 1),
            nn.AdaptiveAvgPool2d((7, 5)), nn.MaxPool2d(1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
        )
    )  # fmt: skip
    x = images(2, 3, 7, 5)
    found = plan(network, x, ["remove_identity"])
    assert [rewrite.layers for rewrite in found.rewrites] == [("0",), ("1",), ("3",), ("5",), ("6",)]
    assert found.before.operators - found.after.operators == found.saves.operators == 5
    assert torch.equal(apply(network, found, x)(x), network(x))


def test_nothing_to_remove_is_said() -> None:
    with pytest.raises(BadInput, match="nothing to save"):
        plan(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.zeros(1, 3, 4, 4), ["remove_identity"])
