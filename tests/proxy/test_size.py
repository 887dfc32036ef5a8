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


def series_and_images() -> tuple[nn.Module, nn.Module]:
    """One network of 1-d convolutions, grouped, dilated and transposed ones too, and the same on images of one row."""
    torch.manual_seed(0)
    pools = (nn.AdaptiveAvgPool1d(1), nn.AdaptiveAvgPool2d(1))
    both = []
    for convs in ((nn.Conv1d, nn.BatchNorm1d, nn.ConvTranspose1d), (nn.Conv2d, nn.BatchNorm2d, nn.ConvTranspose2d)):
        one = (lambda k: k) if convs[0] is nn.Conv1d else (lambda k: (1, k))
        none = (lambda p: p) if convs[0] is nn.Conv1d else (lambda p: (0, p))
        both.append(
            nn.Sequential(
                convs[0](3, 8, one(5), one(2), none(2)), convs[1](8), nn.ReLU(),
                convs[0](8, 12, one(3), 1, none(2), one(2), groups=4), convs[1](12), nn.ReLU(),
                convs[2](12, 6, one(2), one(2), groups=2), convs[1](6), nn.ReLU(),
                pools[len(both)], nn.Flatten(), nn.Linear(6, 10),
            )
        )  # fmt: skip
    state = both[0].state_dict()
    both[1].load_state_dict({n: state[n].reshape(t.shape) for n, t in both[1].state_dict().items()})
    return both[0], both[1]


def test_series_are_counted_and_scored_as_images_of_one_row():
    """A network of Conv1d was its last layer to every proxy: 60 multiply-adds, and ZiCo of a single layer."""
    series, images = series_and_images()
    batches = [(torch.randn(4, 3, 50), torch.tensor([0, 3, 9, 1])) for _ in range(2)]
    names = ["macs", "live_macs", "capacity", "log_sizes", "zico", "snip", "grad_norm", "fisher", "synflow", "gradsign"]
    proxies = resolve_proxies(names)
    found = score(series, batches, proxies)
    rows = score(images, [(x[:, :, None], y) for x, y in batches], proxies)
    assert found["macs"] == found["live_macs"] == 25 * 8 * 3 * 5 + 25 * 12 * 2 * 3 + 25 * 12 * 3 * 2 + 6 * 10
    assert found == pytest.approx(rows, rel=1e-4)
