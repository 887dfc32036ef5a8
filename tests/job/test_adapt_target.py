"""The room that a board leaves a training step, counted by hand on a small network."""

from pathlib import Path

import pytest
import torch
from torch import nn

from edgewright.core.errors import BadInput, BudgetInfeasible
from edgewright.job.adapt.ground import AdaptGround
from edgewright.job.adapt.plan import AdaptPlan
from edgewright.job.adapt.target import check_device, within_target
from edgewright.task.load import load_task

# At the convolution: the image, 1 channel of 8 x 8, and 5 channels of 6 x 6 (its ReLU is fused).
RUNNING = 4 * (64 + 5 * 36)
WEIGHTS = 4 * (5 * 9 + 5 + 180 * 10 + 10)


def ground(device: str | None, memory_bytes: int | None = None) -> AdaptGround:
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(180, 10))
    asked = AdaptPlan(source="run", task="digits", device=device, memory_bytes=memory_bytes)
    return AdaptGround(asked, model, load_task("digits"), (8, 8))


def board(folder: Path, ram: float, flash: str = "flash_kb: 64") -> str:
    path = folder / "board.yaml"
    lines = ("name: board", "summary: A board.", "source: here", "runtime: mine", "types: [fp32]")
    path.write_text("\n".join((*lines, f"ram_kb: {ram / 1024}", flash)))
    return str(path)


def test_the_room_is_what_running_the_network_leaves(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = within_target(ground(board(tmp_path, 20 * 1024)))
    assert found.plan.memory_bytes == 20 * 1024 - RUNNING
    assert "board has 20 KB of RAM, of which running this network takes 1.0 KB" in capsys.readouterr().err


def test_without_flash_the_weights_lie_in_ram_too(tmp_path: Path) -> None:
    found = within_target(ground(board(tmp_path, 20 * 1024, flash="")))
    assert found.plan.memory_bytes == 20 * 1024 - RUNNING - WEIGHTS


def test_a_ceiling_of_ones_own_stays_unless_the_board_has_less(tmp_path: Path) -> None:
    name = board(tmp_path, RUNNING + 500)
    assert within_target(ground(name, 500)).plan.memory_bytes == 500
    with pytest.raises(BadInput, match=r"0\.5 KB are left for a training step, and 0\.6 KB were asked for"):
        within_target(ground(name, 580))


def test_where_nothing_is_left_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(BudgetInfeasible, match="nothing is left to train in"):
        within_target(ground(board(tmp_path, RUNNING)))


def test_a_device_without_known_ram_is_refused() -> None:
    with pytest.raises(BadInput, match="--device cpu: its RAM is not known"):
        check_device("cpu")
    with pytest.raises(BadInput, match="unknown device 'nope'"):
        check_device("nope")
    assert within_target(ground(None)).plan.memory_bytes is None
