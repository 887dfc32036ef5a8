"""How far a network is narrowed down, and in which steps."""

import numpy as np
import pytest

from edgewright.compress.rewrites.prune_channels import Prune
from edgewright.core.errors import BudgetInfeasible
from edgewright.job.compress import run as job
from edgewright.job.compress.decide import narrow
from edgewright.job.compress.ground import survey
from edgewright.job.compress.plan import CompressPlan
from edgewright.job.compress.shrink import Pruner


@pytest.mark.parametrize("least", [0.0, 0.25])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.3, 0.77, 1.0])
def test_narrowing_finds_the_largest_share_that_keeps(share: float, least: float) -> None:
    """Costs that go in steps, as channels do; below `least` nothing can be had."""
    tried = []

    def make(asked: float) -> tuple[float, float]:
        tried.append(asked)
        if asked < least:
            raise BudgetInfeasible("so little is not possible")
        kept = np.floor(20 * asked) / 20
        return (kept / share if share else 9.0), kept

    found = narrow(make)
    assert len(tried) <= 7
    if share <= least:
        assert found is None
    else:
        assert share - 0.1 <= found <= share


@pytest.mark.parametrize(("device", "step"), [(None, 8), ("stm32f746", 4)])
def test_channels_go_in_the_steps_that_the_board_takes(digits_run, tmp_path, device: str | None, step: int) -> None:
    asked = CompressPlan.parse({"source": str(digits_run.path), "budget": {"macs": 140_000}, "device": device}, "")
    ground = survey(job.resolved(asked), tmp_path)
    kept = [len(cut.kept) for cut in Pruner(ground, ground.model)(0.3).rewrites if isinstance(cut, Prune)]
    assert kept and not any(count % step for count in kept)
    assert step == 8 or any(count % 8 for count in kept)


def test_what_cannot_be_is_found_out_at_once() -> None:
    tried = []
    assert narrow(lambda share: (tried.append(share) or 50.0, None)) is None
    assert len(tried) == 2
