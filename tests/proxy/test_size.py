"""Sizes by hand."""

import math

import pytest
import torch
from torch import nn

from edgewright.proxy.base import score
from edgewright.proxy.resolve import resolve_proxies
from edgewright.space.resolve import make_space
from edgewright.task.base import TaskSpec


def test_params_and_macs_by_hand(small, batches):
    values = score(small(), batches(1), resolve_proxies(["params", "macs"]))
    # stem 6*2*9 + BN 12; deep 6*25 + 6; BN 12; dead 3*6 + 3; head 4*6 + 4
    assert values["params"] == 108 + 12 + 156 + 12 + 21 + 28
    # (9, 7) with stride 2 is (5, 4): 20 places
    assert values["macs"] == 108 * 20 + 150 * 20 + 18 * 20 + 24


def test_live_macs_leave_out_what_nothing_reads(small, batches):
    assert score(small(), batches(1), resolve_proxies(["live_macs"]))["live_macs"] == 108 * 20 + 150 * 20 + 24


@pytest.mark.parametrize(
    ("given", "pruned"),
    [
        # edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3: node 2 is read by nobody; node 1 holds zeros
        ("c3 c3 c1 sk c1 no", "c3 no no sk c1 no"),
        ("no c3 c3 po c1 c1", "no c3 no po no c1"),
        ("c1 c1 c1 no no no", "no no no no no no"),
    ],
)
def test_live_macs_of_a_cell_are_the_macs_without_its_dead_edges(given, pruned):
    names = {"c3": "nor_conv_3x3", "c1": "nor_conv_1x1", "sk": "skip_connect", "po": "avg_pool_3x3", "no": "none"}
    spec = TaskSpec(
        name="noise", source="dataset", classes=tuple("abcd"), channels=3, resolution=32, mean=(127.5,) * 3,
        std=(73.9,) * 3, flip=True, num_train=8, num_val=0, num_test=0, digest="",
    )  # fmt: skip
    space = make_space("nb201", spec)
    batch = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), None
    both = [space.build(space.of([names[op] for op in text.split()])) for text in (given, pruned)]
    values = [score(model, [batch], resolve_proxies(["macs", "live_macs"])) for model in both]
    assert values[0]["live_macs"] == values[1]["live_macs"] <= values[0]["macs"]
    if pruned != "no no no no no no":  # there the reductions run on zeros
        assert values[1]["live_macs"] == values[1]["macs"]


def test_log_sizes_counts_live_layers_only(small, batches):
    value = score(small(), batches(2), resolve_proxies(["log_sizes"]))["log_sizes"]
    assert value == pytest.approx(math.log(108) + math.log(150) + math.log(24))


def test_log_sizes_leaves_out_the_border_of_a_kernel_over_one_pixel(batches):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 5, 3, padding=1), nn.Flatten())
    x, y = batches(1)[0]
    value = score(model, [(x, y)], resolve_proxies(["log_sizes"]))["log_sizes"]
    assert value == pytest.approx(math.log(6) + math.log(15))
