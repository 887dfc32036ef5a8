"""Plans keep their ceilings by exact count, say what they cost, and give the model back as it was."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from backward.networks import odd
from edgewright.backward.account import measure_kept, total
from edgewright.backward.plans.planner import Menu, plan, plan_of
from edgewright.backward.plans.training_plan import TrainingBudget, TrainingPlan, applied
from edgewright.core.errors import BadInput, BudgetInfeasible


@pytest.mark.parametrize("memory", [2_000, 8_000, 20_000, 40_000, None])
def test_a_plan_keeps_its_budget_and_real_steps_keep_what_it_says(memory: int | None) -> None:
    model, x = odd()
    found = plan(model, x, budget=TrainingBudget(memory_bytes=memory))
    assert memory is None or found.memory_bytes <= memory
    assert found.memory_bytes == found.stored_bytes + found.gradient_bytes + found.state_bytes
    assert found.stored_bytes == found.other_bytes + sum(row.stored_bytes for row in found.layers)
    with applied(model, found):
        kept = measure_kept(model, x)
        assert total(kept) == found.stored_bytes
        for row in found.layers:
            assert sum(one.bytes for one in kept if one.layer == row.layer) == row.stored_bytes
        learning = [p for p in model.parameters() if p.requires_grad]
        assert sum(p.numel() for p in learning) == sum(row.learns for row in found.layers)
        assert 4 * sum(p.numel() for p in learning) == found.gradient_bytes
        model(x).sum().backward()
        assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_the_full_reference_is_what_plain_pytorch_keeps() -> None:
    model, x = odd()
    found = plan(model, x)
    assert found.full_stored_bytes == total(measure_kept(model, x))
    assert found.full_memory_bytes == found.full_stored_bytes + 8 * sum(p.numel() for p in model.parameters())


def test_full_everywhere_costs_three_forwards_but_for_the_first_input() -> None:
    model, x = odd()
    chosen = dict.fromkeys(("stem", "norm", "twice", "depthwise", "norm2", "groups", "head"), "full")
    found = plan_of(model, x, chosen)
    forward = sum(row.forward_macs for row in found.layers)
    assert found.macs == found.full_macs == 3 * forward - found.layers[0].forward_macs
    assert found.stored_bytes < found.full_stored_bytes  # masks in place of inputs


def test_macs_are_kept_as_well() -> None:
    model, x = odd()
    everything = plan(model, x)
    found = plan(model, x, budget=TrainingBudget(macs=int(0.6 * everything.macs)))
    assert found.macs <= 0.6 * everything.macs
    assert any(row.learns for row in found.layers)


def test_more_memory_is_never_worth_less() -> None:
    model, x = odd()
    points = plan(model, x, curve=True).curve
    assert len(points) > 3
    assert [point.share for point in points] == sorted(point.share for point in points)
    assert points[-1].share == pytest.approx(1.0)


def test_a_budget_below_the_least_says_what_the_least_is() -> None:
    model, x = odd()
    with pytest.raises(
        BudgetInfeasible, match=r"keeps 3 bytes: the least possible takes .* for head \(bias\); give more"
    ):
        plan(model, x, budget=TrainingBudget(memory_bytes=3))
    with pytest.raises(BudgetInfeasible, match="head"):
        plan(model, x, budget=TrainingBudget(memory_bytes=300), menu=Menu(always=("head",)))


def test_contributions_decide() -> None:
    model, x = odd()
    alone = plan_of(model, x, {"groups": "full"}).memory_bytes
    for memory in (alone, int(1.2 * alone)):
        found = plan(model, x, menu=Menu({("groups", "full"): 1.0}), budget=TrainingBudget(memory_bytes=memory))
        assert found.methods()["groups"] == "full"
    early = plan(model, x, menu=Menu({("stem", "bias"): 1.0}), budget=TrainingBudget(memory_bytes=alone))
    assert early.methods()["stem"] != "frozen"


def test_with_memory_to_spare_everything_learns_in_full_whatever_a_few_batches_say() -> None:
    model, x = odd()
    measured = {("groups", "full"): 1.0, ("stem", "full"): -2.0, ("stem", "filter-2w"): 0.5, ("head", "bias"): 0.1}
    found = plan(model, x, menu=Menu(measured))
    learning = {row.layer: row.method for row in found.layers if row.kind != "activation"}
    assert set(learning.values()) == {"full"}
    assert sum(row.share or 0 for row in found.layers) == pytest.approx(1.0)


def test_where_nothing_brings_anything_the_plan_is_by_guess() -> None:
    """A network that knows its images by heart has no gradient on them; new ones may yet come."""
    model, x = odd()
    budget = TrainingBudget(memory_bytes=plan_of(model, x, {"groups": "full"}).memory_bytes)
    measured = plan(model, x, menu=Menu({("stem", "full"): -1.0}), budget=budget)
    assert measured.methods() == plan(model, x, budget=budget).methods()


def test_methods_that_can_learn_nowhere_are_refused() -> None:
    model, x = odd()
    with pytest.raises(BadInput, match="none of the methods allowed"):
        plan(model, x, menu=Menu(allowed=("frozen",)))


def test_frozen_weights_stay_bit_identical_through_steps() -> None:
    model, x = odd()
    found = plan_of(model, x, {"groups": "full", "norm2": "bias"})
    before = copy.deepcopy(model.state_dict())
    with applied(model, found):
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
        model.train()
        for _ in range(3):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), torch.tensor([1, 3])).backward()
            optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"groups.weight", "groups.bias", "norm2.bias"}
    assert all(p.requires_grad for p in model.parameters())


def test_plans_round_trip_and_print() -> None:
    model, x = odd()
    found = plan(model, x, budget=TrainingBudget(memory_bytes=20_000), curve=True)
    assert TrainingPlan.model_validate_json(found.to_json()) == found
    text = str(found)
    assert "memory" in text and all(row.layer in text for row in found.layers if row.learns)


def test_models_that_cannot_learn_or_run_on_shapes_are_one_sentence() -> None:
    with pytest.raises(BadInput, match="no layer that can learn"):
        plan(nn.Sequential(nn.AvgPool2d(2)), torch.zeros(1, 3, 8, 8))

    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) if x.mean().item() > 0 else x

    with pytest.raises(BadInput, match="cannot be run on shapes alone"):
        plan(Stubborn(), torch.zeros(1, 3, 8, 8))
    model, x = odd()
    with pytest.raises(BadInput, match="unknown backward method 'magic'; choose from full, bias"):
        plan(model, x, menu=Menu(allowed=("magic",)))
    with pytest.raises(BadInput, match="no layer 'nowhere' that can learn"):
        plan_of(model, x, {"nowhere": "full"})


def test_a_divided_batch_is_held_in_parts_only_where_that_buys_contribution() -> None:
    model, x = odd()
    worth = {(row.layer, "full"): 1.0 for row in plan(model, x).layers}
    rich = plan(model, x, held=(1, 2), menu=Menu(worth), budget=TrainingBudget(memory_bytes=10**9))
    assert rich.held == len(x)
    tight = TrainingBudget(memory_bytes=rich.memory_bytes // 3)
    whole = plan(model, x, menu=Menu(worth), budget=tight)
    divided = plan(model, x, menu=Menu(worth), budget=tight, held=(1, 2))
    assert divided.held < len(x) and divided.memory_bytes <= tight.memory_bytes
    assert sum(row.share or 0 for row in divided.layers) > sum(row.share or 0 for row in whole.layers)
    assert divided.batch == tuple(x.shape) and divided.full_memory_bytes == whole.full_memory_bytes
    assert f"{divided.held} held at a time" in str(divided)


def test_held_parts_store_less_and_compute_the_same() -> None:
    model, x = odd()
    chosen: dict[str, str] = dict.fromkeys(("stem", "norm", "twice", "head"), "full")
    whole, parts = plan_of(model, x, chosen), plan_of(model, x, chosen, held=1)
    assert (parts.macs, parts.full_macs, parts.full_stored_bytes) == (
        whole.macs,
        whole.full_macs,
        whole.full_stored_bytes,
    )
    assert [row.forward_macs for row in parts.layers] == [row.forward_macs for row in whole.layers]
    with applied(model, parts):
        assert total(measure_kept(model, x[:1].clone())) == parts.stored_bytes < whole.stored_bytes
    with pytest.raises(BadInput, match="divisor"):
        plan_of(model, x, chosen, held=len(x) + 1)


def test_the_least_of_a_divided_batch_is_of_one_image() -> None:
    model, x = odd()
    with pytest.raises(BudgetInfeasible) as whole:
        plan(model, x, budget=TrainingBudget(memory_bytes=10))
    with pytest.raises(BudgetInfeasible) as one:
        plan(model, x, budget=TrainingBudget(memory_bytes=10), held=(1, 2))
    assert "smaller batch" in str(whole.value) and "smaller batch" not in str(one.value)
    assert "1 held at a time" in str(one.value)
