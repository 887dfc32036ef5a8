"""The label-free combination: log ranks by hand, and what it does on a published table."""

import math

import numpy as np
import pytest

from edgewright.core.ranking import kendall, spearman
from edgewright.ir.signal import BROKEN, Signal, signal
from edgewright.proxy.combination import USUAL, combine, combine_columns
from edgewright.space.spaces.nasbench201 import NASBench201
from edgewright.space.spaces.nasbench_macro import NASBenchMacro
from edgewright.space.table import read_table


def test_log_ranks_by_hand():
    columns = {"a": [1.0, 5.0, 3.0], "b": [7.0, 7.0, 7.0], "c": [2.0, 1.0, 1.0]}
    found = combine_columns(columns, {"a": 2.0, "b": 1.0, "c": 1.0})
    expected = [
        2 * math.log(1 / 3) + math.log(2 / 3) + math.log(3 / 3),
        2 * math.log(3 / 3) + math.log(2 / 3) + math.log(1.5 / 3),
        2 * math.log(2 / 3) + math.log(2 / 3) + math.log(1.5 / 3),
    ]
    assert found == pytest.approx(expected)


def test_better_in_all_ranks_above_and_broken_ranks_last():
    low, high = Signal(1, -2, -0.9, -0.8), Signal(2, -1, -0.5, -0.7)
    scores = combine([low, BROKEN, high])
    assert scores[1] < scores[0] < scores[2]


def test_a_fact_that_hardly_differs_says_little():
    """Ranks alone would let the shares of a thousandth overrule the work."""
    ones = [Signal(work, 0, -0.5 - work / 1e5, -0.6) for work in (3, 1, 2)]
    scores = combine(ones)
    assert scores[1] < scores[2] < scores[0]
    apart = [Signal(work, 0, -0.1 * work, -0.6) for work in (3, 1, 2)]
    share = 0.02 / 3 / USUAL["balance"]  # the variance of -0.3, -0.1, -0.2
    expected = [
        6 * math.log(work / 3) + 2 * share * math.log(balance / 3) for work, balance in ((3, 1), (1, 3), (2, 2))
    ]
    assert combine(apart) == pytest.approx(expected)


def test_sums_in_another_order_tie():
    first = Signal(0.1 + 0.2 + 0.3, 0, -1, -1)
    second = Signal(0.3 + 0.2 + 0.1, 0, -1, -1)
    scores = combine([first, second, Signal(0.1, 0, -1, -1)])
    assert scores[0] == scores[1] > scores[2]


def test_orders_cells_of_a_published_table(shared_data):
    """On 400 cells; the floors are four standard errors below what all cells give."""
    with np.load(shared_data / "nas/nasbench201/nb201_acc.npz") as table:
        rows = np.unique(table["unique_id"], return_index=True)[1]
        rows = np.random.default_rng(0).choice(rows, 400, replace=False)
        truths = {name: table[name][rows] for name in ("c10_test_200", "c100_test_200")}
    space = NASBench201.for_images(3, 10, 32)
    scores = combine([signal(graph for _, graph in space.blocks(space.at(int(row)))) for row in rows])
    for truth in truths.values():
        assert (spearman(scores, truth) or 0) > 0.90
        assert (kendall(scores, truth) or 0) > 0.73


def test_orders_networks_whose_stages_differ(shared_data):
    """On 400 networks of a space without pooling or free wiring, where early layers are worth more than late ones."""
    space = NASBenchMacro.for_images(3, 10, 32)
    table = read_table(f"{shared_data}/nas/nasbench_macro/nasbench_macro.npz:mean_acc", space)
    rows = np.random.default_rng(0).choice(len(space), 400, replace=False)
    scores = combine([signal(graph for _, graph in space.blocks(space.at(int(row)))) for row in rows])
    assert (spearman(scores, table.at(rows)) or 0) > 0.90
    assert (kendall(scores, table.at(rows)) or 0) > 0.73
