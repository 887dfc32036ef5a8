"""Budgets are kept, what may not go stays, and an answer that measures badly is an error."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress.networks import images, lived_in
from compress.prunable import networks, resnet
from edgewright.compress.base import Plan, apply
from edgewright.compress.prune.allocate import Allocation, levels_of
from edgewright.compress.prune.asked import Goal, Scope, Times, Worth
from edgewright.compress.prune.groups import Group, dependencies
from edgewright.compress.prune.importance import Batches, Loss
from edgewright.compress.prune.parts import latency_parts, macs_parts, timed_steps
from edgewright.compress.prune.prune import plan_pruning
from edgewright.compress.rewrites.prune_channels import Prune
from edgewright.compress.wiring import trace
from edgewright.core.errors import BadInput, BudgetInfeasible, GateFailed
from edgewright.device.table.pieces import Piece

EXAMPLE = torch.zeros(2, 3, 9, 12)


def law(piece: Piece) -> float:
    """Microseconds: steps of 16 channels, as vectors have."""
    wide = [-(-piece.source[0] // 16) * 16, -(-piece.result[0] // 16) * 16]
    weights = wide[1] * (wide[0] if piece.groups == 1 else 1) * piece.kernel**2
    return 1 + weights * (piece.result[1] * piece.result[2] if len(piece.result) == 3 else 1) / 1e4


def by_law(models: Sequence[nn.Module]) -> list[float]:
    """A clock that is 1.7 times the law, and 0.05 ms."""
    return [0.05 + 1.7 * told(model) for model in models]


def told(model: nn.Module) -> float:
    found = dependencies(model, trace(model, EXAMPLE))
    return sum(part.cost(found.full) for part in latency_parts(found, law))


def narrowed(found: Plan) -> list[Prune]:
    return [rewrite for rewrite in found.rewrites if isinstance(rewrite, Prune)]


def evenly(model: nn.Module, groups: Sequence[Group], batches: Batches, loss: Loss) -> list[Tensor]:
    return [torch.arange(1, group.units + 1, dtype=torch.float64) for group in groups]


SIZE, EVEN, NARROWED = Worth("magnitude"), Worth(evenly), Scope(blocks=False)


def test_macs_are_kept_and_no_layer_is_narrower_than_a_step() -> None:
    model = lived_in(resnet())
    whole = trace(model, EXAMPLE).macs
    for share in (0.8, 0.5):
        found = plan_pruning(model, EXAMPLE, Goal(share=share, of="macs"), worth=SIZE, scope=NARROWED)
        assert 0.75 * share * whole < found.after.macs <= share * whole
        assert all(len(rewrite.kept) % 8 == 0 for rewrite in narrowed(found))
        assert apply(model, found, images(2, 3, 9, 12))(EXAMPLE).shape == (2, 5)
    same = plan_pruning(model, EXAMPLE, Goal(macs=0.5 * whole), worth=SIZE, scope=NARROWED)
    assert same == found


def test_a_measured_target_is_met_though_the_sum_of_layers_is_wrong() -> None:
    model = lived_in(resnet())
    found = plan_pruning(model, EXAMPLE, Goal(share=0.6), worth=EVEN, times=Times(by_law, law), scope=Scope(round_to=4))
    before, after = by_law([model, apply(model, found, images(2, 3, 9, 12))])
    assert 0.5 < after / before <= 0.6 * 1.02
    absolute = plan_pruning(model, EXAMPLE, Goal(latency_ms=0.6 * before), worth=EVEN, times=Times(by_law, law))
    assert by_law([apply(model, absolute, images(2, 3, 9, 12))])[0] <= 0.6 * before * 1.02


def test_narrowing_that_saves_no_time_is_not_done() -> None:
    """Up to 16 channels cost the same: only those above go, or whole blocks."""
    model = lived_in(resnet())
    found = plan_pruning(model, EXAMPLE, Goal(share=0.75), worth=EVEN, times=Times(prices=law))
    for rewrite in narrowed(found):
        assert rewrite.units > 16
        assert len(rewrite.kept) == 16


def test_only_and_keep() -> None:
    model = lived_in(resnet())

    def pruned(scope: Scope) -> set[str]:
        found = plan_pruning(model, EXAMPLE, Goal(share=0.8, of="macs"), worth=Worth("fpgm"), scope=scope)
        return {rewrite.layers[0] for rewrite in found.rewrites}

    assert pruned(Scope(only=("5*", "6*"))) <= {"5.conv1", "5.conv2", "6.conv1", "6"}
    assert not pruned(Scope(keep=("5*", "6*"))) & {"5.conv1", "5.conv2", "6.conv1", "6"}
    assert all("." in name for name in pruned(Scope(blocks=False, keep=("0", "5.conv2"))))
    assert "3" not in pruned(Scope(keep=("3.conv2",)))  # a block goes with all that is in it
    with pytest.raises(BadInput, match="no layer that makes channels is among nothing"):
        pruned(Scope(only=("nothing",)))


def test_heads_and_hidden_units_of_a_transformer() -> None:
    model, shape = networks()["transformer"]
    x = images(*shape)
    found = plan_pruning(model, x, Goal(share=0.5, of="macs"), worth=Worth("nvit", [(x, torch.tensor([0, 3]))]))
    assert {rewrite.layers[0].rsplit(".", 1)[-1] for rewrite in found.rewrites} == {"qkv", "fc1"}
    result = apply(model, found, x)
    assert result(x).shape == (2, 5)
    assert found.after.macs <= 0.5 * found.before.macs
    priced = plan_pruning(model, x, Goal(share=0.95), worth=SIZE, times=Times(prices=law))
    assert priced.after.macs < priced.before.macs


def test_errors_say_what_is_wrong() -> None:
    model = lived_in(resnet())
    for none_or_two in ({}, {"share": 0.5, "macs": 1e6}, {"latency_ms": 1.0, "macs": 1e6}):
        with pytest.raises(BadInput, match="one goal"):
            Goal(**none_or_two)
    with pytest.raises(BadInput, match="between 0 and 1"):
        Goal(share=50)
    with pytest.raises(BadInput, match="there are taylor, nvit"):
        plan_pruning(model, EXAMPLE, Goal(share=0.5), worth=Worth("size"))
    with pytest.raises(BadInput, match="needs batches"):
        plan_pruning(model, EXAMPLE, Goal(share=0.5, of="macs"))
    with pytest.raises(BudgetInfeasible, match="of the cost at least, and 1 % was asked for"):
        plan_pruning(model, EXAMPLE, Goal(share=0.01, of="macs"), worth=SIZE)


def test_a_network_that_measures_no_faster_is_an_error() -> None:
    def backwards(models: Sequence[nn.Module]) -> list[float]:
        return [1.0, 1.1][: len(models)]

    def unmoved(models: Sequence[nn.Module]) -> list[float]:
        return [1.0, 1.005][: len(models)]

    with pytest.raises(GateFailed, match=r"not faster: measured, it takes 1.00 times"):
        plan_pruning(lived_in(resnet()), EXAMPLE, Goal(share=0.99), worth=SIZE, times=Times(unmoved, law))
    with pytest.raises(BadInput, match=r"takes 1 ms as it is, within the 1\.2 ms"):
        plan_pruning(lived_in(resnet()), EXAMPLE, Goal(latency_ms=1.2), worth=SIZE, times=Times(unmoved, law))
    with pytest.raises(BudgetInfeasible, match="measured, takes 157 % of the time"):
        plan_pruning(lived_in(resnet()), EXAMPLE, Goal(share=0.7), worth=SIZE, times=Times(backwards, law))


def test_parts_add_up_and_know_their_groups() -> None:
    """Every part costs the same after the surgery as it was said to before; and changes with its own groups only."""
    model = lived_in(resnet())
    found = dependencies(model, trace(model, EXAMPLE))
    plan = plan_pruning(model, EXAMPLE, Goal(share=0.6, of="macs"), worth=SIZE, scope=NARROWED)
    left = [next((len(r.kept) for r in narrowed(plan) if r.group == g.name), g.units) for g in found.groups]
    said = sum(part.cost(left) for part in latency_parts(found, law))
    assert told(apply(model, plan, images(2, 3, 9, 12))) == pytest.approx(said, rel=1e-12)
    assert sum(part.cost(left) for part in macs_parts(found)) == plan.after.macs
    for part in macs_parts(found):
        for group in range(len(left)):
            other = [units - 1 if number == group else units for number, units in enumerate(found.full)]
            assert (part.cost(other) != part.cost(found.full)) == (group in part.groups)


def test_pieces_are_those_of_the_runtime() -> None:
    model = lived_in(
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 5, groups=8))
    )
    found = dependencies(model, trace(model, torch.zeros(2, 3, 9, 12)))
    keys = [piece.key for timed in timed_steps(found) for piece in timed.pieces(found.full)]
    assert keys == ["conv+act 3x9x12>8x5x6 k3 s2 g1", "conv 8x5x6>8x1x2 k5 s1 g8"]


UNEVEN = nn.Conv2d(3, 8, (3, 5), (2, 1), (1, 4), (1, 2))
LARGER = nn.Sequential(
    UNEVEN,
    nn.ReLU(),
    nn.ConvTranspose2d(8, 4, 2, 2, groups=2),
    nn.Upsample(scale_factor=2),
    nn.Conv2d(4, 6, 1, groups=2),
)
SERIES = nn.Sequential(
    nn.Conv1d(3, 8, 5, 2, 2), nn.ReLU(), nn.Conv1d(8, 8, 3, groups=8), nn.ConvTranspose1d(8, 4, 3, 2)
)


@pytest.mark.parametrize(("model", "shape"), [(LARGER, (1, 3, 9, 12)), (SERIES, (1, 3, 21))])
def test_pieces_compute_what_the_network_computes(model: nn.Sequential, shape: tuple[int, ...]) -> None:
    """A series' kernel of 5 was one of 5 x 5, and what makes an image larger had no price."""
    found = dependencies(model, trace(model, torch.zeros(shape)))
    pieces = [piece for timed in timed_steps(found) for piece in timed.pieces(found.full)]
    assert sum(piece.work.macs for piece in pieces) == found.wiring.macs
    layers = [module for module in model if not isinstance(module, nn.ReLU)]
    assert len(pieces) == len(layers)


def test_greedy_is_near_the_best_of_all() -> None:
    """Against every combination of levels, on costs with steps: never more than a quarter above the least loss."""
    model = lived_in(resnet())
    found = dependencies(model, trace(model, EXAMPLE))
    parts = latency_parts(found, law)
    levels = [levels_of(group, 8, True) for group in found.groups]
    scores = [
        torch.rand(g.units, generator=torch.Generator().manual_seed(n)).double() for n, g in enumerate(found.groups)
    ]
    ranked = [score.sort().values for score in scores]
    whole = sum(part.cost(found.full) for part in parts)
    for share in (0.95, 0.9, 0.8, 0.7):
        best = min(
            sum(float(row[: len(row) - k].sum()) for row, k in zip(ranked, left, strict=True))
            for left in product(*levels)
            if sum(part.cost(left) for part in parts) <= share * whole
        )
        kept = Allocation(found, parts, scores, levels).run(share * whole)
        assert kept.cost <= share * whole
        lost = sum(
            float(scores[n].sum() - scores[n][list(kept.units[g.name])].sum())
            for n, g in enumerate(found.groups)
            if g.name in kept.units
        )
        assert best <= lost * (1 + 1e-12) <= 1.25 * best + 1e-9


def test_layers_are_measured_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CACHE", str(tmp_path))
    model = lived_in(resnet())
    found = plan_pruning(model, EXAMPLE, Goal(share=0.8), worth=SIZE)
    assert found.after.macs < found.before.macs
    assert (tmp_path / "latency.db").is_file()
