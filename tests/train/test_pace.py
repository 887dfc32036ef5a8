"""The law of training's pace: exact where the times are made by such a law, and monotone in what is done."""

import pytest
import torch
from tests.train.train_toys import toy_task

from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.model.heads.pool import PoolHead
from edgewright.model.network import with_head
from edgewright.train.pace import LAYERS, amounts, fit_pace, measured_pace


def network(width: int, kernel: int, groups: bool, size: int = 16) -> Graph:
    builder = GraphBuilder((3, size, size))
    x = builder.relu(builder.conv(0, width, 3))
    x = builder.conv(x, width, kernel, groups=width if groups else 1)
    builder.linear(builder.flatten(builder.global_pool(builder.conv(x, 2 * width))), 5)
    return builder.graph()


GRAPHS = [
    network(width, kernel, groups, size)
    for width, kernel, groups, size in (
        (8, 3, False, 16), (8, 7, True, 16), (24, 5, True, 12), (16, 3, False, 20), (40, 3, True, 8), (8, 5, False, 28),
        (32, 7, True, 24), (48, 1, False, 10),
    )
]  # fmt: skip


def test_amounts_are_the_hand_count_of_a_small_network() -> None:
    found = dict(zip(("one", *LAYERS[:3], "made", "ops"), amounts(network(8, 5, True)), strict=True))
    cells = 16 * 16
    assert found["one"] == 1
    assert found["dense"] == 3 * 8 * 9 * cells
    assert found["pointwise"] == 8 * 16 * cells + 16 * 5
    assert found["depthwise"] == 8 * 25 * cells
    assert found["made"] == (8 + 8 + 8 + 16) * cells + 16 + 16 + 5
    assert found["ops"] == 7


def test_a_law_that_made_the_times_is_found_again() -> None:
    true = [1e-5, 2e-11, 4e-11, 5e-10, 1e-9, 3e-6]
    seconds = [float(amounts(graph) @ torch.tensor(true, dtype=torch.float64).numpy()) for graph in GRAPHS]
    law = fit_pace(GRAPHS, seconds)
    assert law.error < 1e-6
    unseen = network(20, 3, False, 14)
    assert law.seconds(unseen) == pytest.approx(float(amounts(unseen) @ torch.tensor(true).double().numpy()), rel=0.02)


def test_no_work_makes_a_network_quicker() -> None:
    law = fit_pace(GRAPHS, [1e-3 * (1 + index) for index in range(len(GRAPHS))])
    assert all(coefficient >= 0 for coefficient in law.coefficients)
    assert law.seconds(network(64, 5, False, 32)) >= law.seconds(network(8, 5, False, 16))


def test_a_step_is_timed_and_the_task_is_left_alone() -> None:
    task = toy_task()
    shape = task.spec.input.shape
    model = with_head({"conv": torch.nn.Conv2d(int(shape[0] or 1), 4, 3, padding=1)}, PoolHead(len(task.spec.names)), 4)
    before = task.train.inputs.clone()
    assert measured_pace(model, task, task.spec.size) > 0
    assert torch.equal(task.train.inputs, before)
