"""Sizes by hand."""

import math

import pytest
import torch
from torch import nn

from edgewright.proxy.base import score
from edgewright.proxy.resolve import resolve_proxies


def test_params_and_macs_by_hand(small, batches):
    values = score(small(), batches(1), resolve_proxies(["params", "macs"]))
    # stem 6*2*9 + BN 12; deep 6*25 + 6; BN 12; dead 3*6 + 3; head 4*6 + 4
    assert values["params"] == 108 + 12 + 156 + 12 + 21 + 28
    # (9, 7) with stride 2 is (5, 4): 20 places
    assert values["macs"] == 108 * 20 + 150 * 20 + 18 * 20 + 24


def test_log_sizes_counts_live_layers_only(small, batches):
    value = score(small(), batches(2), resolve_proxies(["log_sizes"]))["log_sizes"]
    assert value == pytest.approx(math.log(108) + math.log(150) + math.log(24))


def test_log_sizes_leaves_out_the_border_of_a_kernel_over_one_pixel(batches):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 5, 3, padding=1), nn.Flatten())
    x, y = batches(1)[0]
    value = score(model, [(x, y)], resolve_proxies(["log_sizes"]))["log_sizes"]
    assert value == pytest.approx(math.log(6) + math.log(15))
