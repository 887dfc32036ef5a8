"""NAS-Bench-201 is the published one: order, parameters, multiply-adds, classes; and the cell is the official cell."""

import json
import random
import re

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr
from torch import nn
from torch.nn import functional

from edgewright.core.errors import BadInput
from edgewright.ir.graph import count_macs
from edgewright.model.nasbench201 import EDGES, OPS, Cell, Reduce
from edgewright.space.spaces.nasbench201 import NASBench201, cell_text
from edgewright.space.table import read_table

SPACE = NASBench201.for_images(3, 10, 32)
PATHS = ((3,), (0, 4), (1, 5), (0, 2, 5))  # the edges of the four paths through a cell


@pytest.fixture(scope="module")
def published(shared_data) -> dict[str, np.ndarray]:
    with np.load(shared_data / "nas" / "nasbench201" / "nb201_acc.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def facts() -> dict[str, np.ndarray]:
    return SPACE.facts()


def test_the_order_is_the_published_one(published):
    assert tuple(published["op_names"]) == OPS
    assert [SPACE.encode(SPACE.at(row)) for row in range(len(SPACE))] == [tuple(row) for row in published["ops"]]
    assert all(SPACE.index(SPACE.at(row)) == row for row in range(0, len(SPACE), 7))
    # What the official interface answers for its index 0.
    first = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    assert cell_text(SPACE.at(0).ops) == first


def test_parameters_and_macs_are_the_published_ones(published):
    ones, threes = ((published["ops"] == OPS.index(f"nor_conv_{k}")).sum(axis=1) for k in ("1x1", "3x3"))
    assert np.array_equal(73_306 + 28_000 * ones + 243_040 * threes, published["params_c10"])
    assert np.array_equal(7_783_040 + 3_932_160 * ones + 35_389_440 * threes + 10, published["flops_c10"])
    for row in range(0, len(SPACE), 131):
        architecture = SPACE.at(row)
        assert SPACE.params(architecture) == published["params_c10"][row]
        assert count_macs(SPACE.graph(architecture)) + 10 == published["flops_c10"][row]


@pytest.mark.slow
def test_every_cell_costs_what_is_published(published):
    for row in range(len(SPACE)):
        architecture = SPACE.at(row)
        assert SPACE.params(architecture) == published["params_c10"][row]
        assert count_macs(SPACE.graph(architecture)) + 10 == published["flops_c10"][row]


def test_a_built_network_has_the_published_parameters(published):
    for row in (0, 6111, 9930, 11472):
        model = SPACE.build(SPACE.at(row))
        assert sum(p.numel() for p in model.parameters()) == published["params_c10"][row]


def test_isomorphic_cells_are_the_published_classes(published):
    ours = np.array([SPACE.canonical(row) for row in range(len(SPACE))])
    theirs = published["unique_id"]
    assert len(np.unique(ours)) == 6466 == len(np.unique(theirs))
    assert len(np.unique(np.stack([ours, theirs]), axis=1).T) == 6466
    assert (ours <= np.arange(len(SPACE))).all() and np.array_equal(ours[ours], ours)


def test_cells_that_compute_the_same_untrained_are_twins(facts):
    twins = np.array([SPACE.twin(row) for row in range(len(SPACE))])
    assert len(np.unique(twins)) == 5260
    assert (twins <= np.arange(len(SPACE))).all() and np.array_equal(twins[twins], twins)
    for name in ("live_macs", "mean_convs", "paths", "depth"):
        assert np.array_equal(facts[name], facts[name][twins]), name


def test_twins_compute_the_same_with_the_same_weights():
    """0>1 and 0>2 change places; a pooling is read through a skip or made twice; what reads zeros is left out."""
    x = torch.randn(2, 16, 7, 6)
    conv, one, pool, skip, none = "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3", "skip_connect", "none"
    pairs = (
        ((conv, one, none, pool, skip, skip), (one, conv, none, pool, skip, skip), {"0>1": "0>2", "0>2": "0>1"}),
        ((pool, pool, none, none, skip, skip), (pool, skip, none, pool, skip, none), {}),
        ((none, none, conv, skip, one, pool), (none, none, none, skip, none, none), {}),
    )
    for first, second, moved in pairs:
        assert SPACE.twin(SPACE.index(SPACE.of(first))) == SPACE.twin(SPACE.index(SPACE.of(second)))
        a, b = Cell(first, 16), Cell(second, 16)
        for mine, theirs in moved.items():
            b.edges[theirs].load_state_dict(a.edges[mine].state_dict())
        torch.testing.assert_close(a(x), b(x), rtol=1e-4, atol=1e-5)


def _by_paths(published) -> dict[str, np.ndarray]:
    """The facts of a cell from its four paths written out."""
    ops = published["ops"]
    whole = np.stack([(ops[:, path] != 0).all(axis=1) for path in PATHS])
    convs = np.stack([np.isin(ops[:, path], (2, 3)).sum(axis=1) for path in PATHS])
    live = np.zeros(ops.shape, bool)
    for open_, path in zip(whole, PATHS, strict=True):
        live[:, path] |= open_[:, None]
    paths = whole.sum(axis=0)
    mean = (whole * convs).sum(axis=0) / np.maximum(paths, 1)
    count = [(live & (ops == op)).sum(axis=1) for op in range(len(OPS))]
    return {
        "live_macs": np.where(paths > 0, 7_783_040 + 3_932_160 * count[2] + 35_389_440 * count[3], 0),
        "live_poolings": np.where(paths > 0, 2 + 15 * count[4], 0),
        "mean_convs": np.where(paths > 0, 1 + 2 * 1.5 + 15 * mean, 0),
        "depth": np.where(paths > 0, 1 + 2 * 2 + 15 * (whole * convs).max(axis=0), 0),
    }


def test_facts_are_those_of_the_paths(published, facts):
    for name, expected in _by_paths(published).items():
        np.testing.assert_allclose(facts[name], expected, rtol=1e-12, err_msg=name)


def test_naive_scores_rank_as_the_benchmark_knows(shared_data, published, facts):
    for data, plain, live, summed in (("c10", 0.753, 0.822, 0.890), ("c100", 0.728, 0.797, 0.874)):
        path = shared_data / "nas" / "nasbench201" / "nb201_acc.npz"
        accuracy = read_table(f"{path}:{data}_test_200", SPACE)
        assert len(accuracy) == len(SPACE)
        assert spearmanr(published["params_c10"], accuracy.values)[0] == pytest.approx(plain, abs=1e-3)
        assert spearmanr(facts["live_macs"], accuracy.values)[0] == pytest.approx(live, abs=2e-3)
        ranks = {name: rankdata(facts[name]) for name in ("live_macs", "mean_convs", "mean_poolings")}
        together = ranks["live_macs"] + 0.3 * ranks["mean_convs"] - 0.3 * ranks["mean_poolings"]
        assert spearmanr(together, accuracy.values)[0] == pytest.approx(summed, abs=4e-3)


def official_cell(cell: Cell, ops: tuple[str, ...], x: torch.Tensor) -> torch.Tensor:
    """The published definition: every edge computed, `none` multiplies by 0."""
    nodes = [x]
    for node in (1, 2, 3):
        terms = [
            nodes[start] * 0.0 if op == "none" else cell.edges[f"{start}>{end}"](nodes[start])
            for (start, end), op in zip(EDGES, ops, strict=True)
            if end == node
        ]
        nodes.append(torch.stack(terms).sum(dim=0))
    return nodes[3]


def test_a_cell_computes_what_the_official_one_does():
    rng, x = random.Random(3), torch.randn(2, 16, 7, 10)
    for _ in range(60):
        ops = tuple(rng.choice(OPS) for _ in EDGES)
        cell = Cell(ops, 16).eval()
        for norm in (m for m in cell.modules() if isinstance(m, nn.BatchNorm2d)):
            for tensor in (norm.bias, norm.running_mean):
                assert tensor is not None
                nn.init.uniform_(tensor, -0.5, 0.5)
        with torch.no_grad():
            torch.testing.assert_close(cell(x), official_cell(cell, ops, x), rtol=1e-4, atol=1e-5)


def test_the_halving_block_is_the_official_one():
    block, x = Reduce(16, 32).eval(), torch.randn(2, 16, 8, 10)
    first, second = block.body
    y = second(first(x))
    expected = y + functional.conv2d(functional.avg_pool2d(x, 2, 2), block.shortcut.get_parameter("1.weight"))
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)
    assert block(torch.randn(1, 16, 7, 9)).shape == (1, 32, 4, 5)


def test_what_nothing_reaches_gets_no_gradient():
    """1>2 is none and 1>3 is none: 0>1 leads nowhere. 0>2 is none: node 2 is zeros, 2>3 gives its shift only."""
    ops = ("nor_conv_3x3", "none", "none", "skip_connect", "none", "nor_conv_1x1")
    cell = Cell(ops, 16)
    cell(torch.randn(2, 16, 6, 5)).square().sum().backward()
    assert cell.edges.get_parameter("0>1.1.weight").grad is None
    gradient = cell.edges.get_parameter("2>3.1.weight").grad
    assert gradient is not None and not gradient.any()
    assert SPACE.structure(SPACE.of(ops)).live_macs == 7_783_040


@pytest.mark.parametrize(("side", "stride"), [(32, 2), (11, 1)])
def test_the_thin_network_has_every_weight_of_one_cell_a_stage(side, stride):
    space = NASBench201.for_images(2, 3, side)
    for ops in (OPS[:1] * 5 + OPS[1:2], ("nor_conv_3x3", "none", "nor_conv_1x1", "avg_pool_3x3", *OPS[2:4])):
        thin, whole = space.thin(space.of(ops)), space.build(space.of(ops))
        names = [name for name, _ in whole.named_parameters() if not re.match(r"stage\d\.[1-4]\.", name)]
        assert [name for name, _ in thin.named_parameters()] == names
        assert [p.shape for p in thin.parameters()] == [whole.get_parameter(name).shape for name in names]
        assert thin(torch.randn(4, 2, side, side)).shape == (4, 3)
        assert thin.get_submodule("stem")(torch.randn(1, 2, side, side)).shape[-1] == -(-side // stride)


def test_faults_are_named():
    good = json.loads(SPACE.at(5).model_dump_json())
    for change, word in (({"classes": 4}, "classes"), ({"ops": ["none"] * 5}, "ops"), ({"space": "x"}, "space")):
        with pytest.raises(BadInput, match=word):
            SPACE.read({**good, **change})
    with pytest.raises(BadInput, match="choice 2 is 5"):
        SPACE.decode((0, 0, 5, 0, 0, 0))
    with pytest.raises(BadInput, match="6 choices, not 5"):
        SPACE.decode((0,) * 5)
    for wrong in (-1, 15_625):
        with pytest.raises(IndexError, match="0 to 15624"):
            SPACE.at(wrong)
