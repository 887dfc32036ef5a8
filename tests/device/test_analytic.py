"""The linear law finds the coefficients it was made with, and its features are what the graphs compute and move."""

from random import Random

import numpy as np
import pytest

from edgewright.core.errors import BadInput
from edgewright.device.few.analytic import FEATURES, features, fit_analytic, network_features, peak_bytes
from edgewright.ir.graph import GraphBuilder, count_macs
from edgewright.ir.liveness import graph_peak_bytes
from edgewright.space.spaces.linked import LinkedMobile

TRUE = np.array([0.02, 3e-8, 5e-8, 2e-7, 1e-7, 2e-9, 1e-8, 1e-3])


def networks(count: int) -> list[list]:
    space, random = LinkedMobile.for_images(3, 10, 32), Random(3)
    return [[graph for _, graph in space.blocks(space.sample(random))] for _ in range(count)]


def test_features_of_a_block_by_hand() -> None:
    builder = GraphBuilder((16, 6, 10))
    x = builder.relu(builder.conv(0, 32, 3, 2))  # 3 x 5: dense
    x = builder.conv(x, 32, 5, 1, 32)  # depthwise
    builder.conv(x, 24)  # pointwise, 24 counts as 32
    found = dict(zip(FEATURES, features(builder.graph()), strict=True))
    assert found["dense"] == 15 * 9 * 16 * 32
    assert found["depthwise"] == 15 * 25 * 32
    assert found["pointwise"] == 15 * 32 * 32
    assert found["linear"] == 0
    assert found["moved"] == 4 * (16 * 60 + 5 * 32 * 15)
    assert found["weights"] == 4 * (9 * 16 * 32 + 25 * 32 + 32 * 32)
    assert found["operators"] == 3


def test_features_count_macs_where_widths_fill_the_vectors() -> None:
    builder = GraphBuilder((16, 7, 9))
    builder.conv(builder.relu(builder.conv(0, 48, 3)), 16)
    assert features(builder.graph())[1:5].sum() == count_macs(builder.graph())


def test_a_law_that_holds_is_found_and_predicts() -> None:
    found = np.array([network_features(blocks) for blocks in networks(60)])
    times = found @ TRUE
    model = fit_analytic(found[:30], times[:30])
    assert model.median_error < 1e-6
    assert model.rank_correlation == pytest.approx(1)
    predicted = [model.latency_ms(row) for row in found[30:]]
    np.testing.assert_allclose(predicted, times[30:], rtol=1e-5)
    assert min(model.coefficients) >= 0


def test_energy_by_hand() -> None:
    found = np.array([1, 1e6, 0, 2e6, 0, 4e5, 1e5, 7])
    model = fit_analytic(np.eye(8)[[0] * 5] * 1.0, [2.0] * 5)  # 2 ms whatever the network
    joule = 3e6 * 1e-12 + 5e5 * 1e-11
    assert model.energy_mj(found, mac_joule=1e-12, byte_joule=1e-11, idle_watt=0.5) == pytest.approx(1e3 * joule + 1.0)


def test_the_worst_block_is_the_networks_peak() -> None:
    space, random = LinkedMobile.for_images(3, 10, 32), Random(5)
    for _ in range(10):
        architecture = space.sample(random)
        blocks = [graph for _, graph in space.blocks(architecture)]
        assert peak_bytes(blocks) == graph_peak_bytes(space.graph(architecture))


def test_too_few_or_impossible_latencies_are_refused() -> None:
    found = np.array([network_features(blocks) for blocks in networks(6)])
    with pytest.raises(BadInput, match="at least 5"):
        fit_analytic(found[:4], [1, 2, 3, 4])
    with pytest.raises(BadInput, match="positive"):
        fit_analytic(found, [1, 2, 3, 4, 5, -1])
