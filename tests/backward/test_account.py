"""Predicted bytes equal those that a real pass keeps."""

import pytest
import torch
from torch import nn

from backward.networks import exact, odd
from edgewright.backward.account import measure_kept, measure_peak, predict_kept, total
from edgewright.backward.base import swapped
from edgewright.backward.plans.planner import plan
from edgewright.backward.plans.training_plan import TrainingBudget, applied
from edgewright.backward.survey import survey


def test_prediction_equals_measurement_with_and_without_rules() -> None:
    model, x = odd()
    assert total(predict_kept(model, x)) == total(measure_kept(model, x))
    with swapped(model, exact(model, x)):
        assert predict_kept(model, x) == measure_kept(model, x)
    model.train()
    assert total(predict_kept(model, x)) == total(measure_kept(model, x))


def test_what_is_kept_twice_is_counted_once() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.one(x).sum() + self.other(x).sum()

    x = torch.randn(3, 4, 7, 5)
    assert total(measure_kept(Fork(), x)) == x.numel() * 4
    assert total(predict_kept(Fork(), x)) == x.numel() * 4


def test_rules_say_what_they_keep_from_shapes_alone() -> None:
    model, x = odd()
    rules = exact(model, x)
    sites = {site.name: site for site in survey(model, x)}
    with swapped(model, rules):
        kept = measure_kept(model, x.requires_grad_())
    for name in ("stem", "norm2", "act", "act2", "depthwise", "groups", "head"):
        seen = sum(one.bytes for one in kept if one.layer == name)
        call = sites[name].calls[0]
        assert seen == rules[name].stored_bytes(call, (True,) * len(call.shapes)), name


def test_a_frozen_part_keeps_nothing() -> None:
    model, x = odd()
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    with swapped(model, exact(model, x)):
        assert [(one.layer, one.bytes) for one in measure_kept(model, x)] == [("head", 2 * 12 * 4)]


def test_the_allocators_peak_is_what_is_kept_and_what_single_operators_need() -> None:
    model, _ = odd()
    x = torch.randn(32, 3, 45, 38)
    largest = 4 * 32 * 16 * 23 * 19  # what the widest layer gives

    def step() -> None:
        model(x).sum().backward()
        model.zero_grad()

    peaks = []
    for memory in (None, 4_000_000, 2_000_000):
        found = plan(model, x, budget=TrainingBudget(memory_bytes=memory))
        with applied(model, found):
            step()  # the first one loads kernels
            peaks.append(measure_peak(step))
        assert found.stored_bytes <= peaks[-1] <= found.stored_bytes + found.gradient_bytes + 4 * largest
    assert peaks[0] > peaks[1] > peaks[2]


def test_the_peak_is_looked_for_where_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU, and a model that is not on it."""

    def no_gpu(*_: object) -> int:
        raise AssertionError("the model is on the CPU")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("synchronize", "reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, no_gpu)
    x = torch.randn(100, 250)
    assert 100_000 <= measure_peak(lambda: x + 1) <= 110_000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_peak_on_a_gpu() -> None:
    x = torch.randn(100, 250, device="cuda")
    assert 100_000 <= measure_peak(lambda: x + 1, "cuda") <= 110_000
    assert measure_peak(lambda: torch.ones(100, 250) + 1, "cuda") == 0
