"""Facts of the signal: shares and influences by hand, and against the variances of random networks."""

import math

import numpy as np
import pytest
import torch

from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.ir.signal import BROKEN, DAMPING, FRESH, POWERS, SHORTENING, influences, signal


def residual(shape: tuple[int, int, int] = (4, 6, 5), *, twice: bool = False, pooled: bool = False) -> Graph:
    """x + conv(x), the plain connection once, twice or through a pooling."""
    builder = GraphBuilder(shape)
    made = builder.conv(builder.relu(0), shape[0], 3)
    plain = builder.avg_pool(0, 3) if pooled else 0
    total = builder.add(plain, made)
    return builder.graph(builder.add(total, 0) if twice else total)


def stem() -> Graph:
    builder = GraphBuilder((3, 6, 5))
    builder.conv(0, 4, 3)
    return builder.graph()


def test_influences_of_residual_blocks_by_hand():
    """After k blocks x_0 + U_1 + ... + U_k each share is 1 / (k + 1); a block reads the sum so far."""
    found = influences([stem(), residual(), residual(), residual()])
    third = 1 / 4
    second = third + third * 1 / 3
    first = third + third * 1 / 3 + second * 1 / 2
    assert found == pytest.approx([1.0, first, second, third])


def test_every_walk_meets_a_layer_that_all_paths_share():
    assert influences([stem(), residual(twice=True), residual()])[0] == pytest.approx(1)


def test_two_plain_connections_drown_the_convolutions():
    """2 x + U: amplitudes of what is the same add, so the convolution has one part in five."""
    assert influences([stem(), residual(twice=True)])[1] == pytest.approx(1 / 5)
    assert signal([stem(), residual(twice=True)]).balance == pytest.approx(-(1 + 4 / 5) / 2)


def test_shares_are_the_variances_of_a_random_network():
    """Share of the new part in the output of x + 2 more blocks, with batch norms, over many random convolutions."""
    torch.manual_seed(0)
    start = torch.randn(64, 32, 8, 8)
    outputs, shares = [], []
    for plain in (1, 2):
        x, made = start, []
        for _ in range(2):
            conv = torch.nn.Sequential(
                torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3, padding=1, bias=False), torch.nn.BatchNorm2d(32)
            )
            with torch.no_grad():
                made.append(conv(x))
                x = plain * x + made[-1]
        outputs.append(x.var().item())
        shares.append(made[-1].var().item() / x.var().item())
    blocks = {1: residual(), 2: residual(twice=True)}
    for plain, share in zip((1, 2), shares, strict=True):
        assert influences([stem(), blocks[plain], blocks[plain]])[-1] == pytest.approx(share, rel=0.12)


def test_pooling_coarsens_what_is_read_unless_it_halves_the_image():
    def read(kernel: int, stride: int) -> float:
        builder = GraphBuilder((4, 6, 5))
        builder.conv(builder.avg_pool(builder.conv(0, 4, 3), kernel, stride), 4)
        return signal([builder.graph()]).detail

    blurred = POWERS * DAMPING**2
    assert read(2, 2) == pytest.approx(-POWERS[0])
    assert read(3, 1) == pytest.approx(-(POWERS[0] + blurred[0] / blurred.sum()) / 2)
    builder = GraphBuilder((4, 6, 5))
    x = builder.conv(builder.avg_pool(0, 3), 4, 3)
    builder.conv(x, 4)
    bands = FRESH * POWERS + (1 - FRESH) * blurred / blurred.sum()
    assert signal([builder.graph()]).detail == pytest.approx(-(blurred[0] / blurred.sum() + bands[0]) / 2)


def test_work_by_hand():
    builder = GraphBuilder((4, 6, 5))
    wide = builder.conv(0, 8, 5, groups=2)
    one = builder.graph(builder.add(builder.conv(wide, 4), 0))
    found = signal([stem(), one])
    # the stem, two channels a group, and a pointwise one that has half of the output; who reads is met as often
    values, channels, seen = np.array([120, 240, 120]), np.array([3, 2, 8]), np.array([9, 9, 1])
    influence = np.array([1.0, 0.5, 0.5])
    assert found.work == pytest.approx((values ** (1 / 3) * channels**0.25 * seen) @ influence**0.65)


def test_shortcuts_by_hand():
    one = math.log(1 + 1 / SHORTENING)  # a way with no convolution around one with one
    assert signal([residual(), residual()]).shortcuts == pytest.approx(one)
    assert signal([residual(), stem()]).shortcuts == pytest.approx(one / 2)
    assert signal([residual(pooled=True)]).shortcuts == pytest.approx(0)
    assert signal([stem()]).shortcuts == pytest.approx(0)


def test_a_network_without_a_path_is_broken_and_dead_branches_do_not_count():
    builder = GraphBuilder((4, 6, 5))
    builder.zero(0)
    assert signal([stem(), builder.graph()]) == BROKEN
    builder = GraphBuilder((4, 6, 5))
    made = builder.conv(0, 4, 3)
    builder.conv(0, 4, 5)
    assert signal([stem(), builder.graph(made)]) == signal([stem(), _plain()])


def _plain() -> Graph:
    builder = GraphBuilder((4, 6, 5))
    builder.conv(0, 4, 3)
    return builder.graph()


def test_a_concatenation_shares_by_channels():
    builder = GraphBuilder((4, 6, 5))
    builder.concat(builder.conv(0, 12, 3), 0)
    assert influences([stem(), builder.graph()])[1] == pytest.approx(12 / 16)
