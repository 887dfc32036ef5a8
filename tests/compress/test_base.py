"""Plans print, serialise and add up; a rewrite that is off is named with its largest difference."""

import re
from typing import Literal

import pytest
import torch
from torch import nn

from compress.networks import Inverted, images, lived_in, mobile
from edgewright.compress.base import Plan, Rewrite, Saving, Totals, apply, rebuilt
from edgewright.compress.planner import plan
from edgewright.core.errors import BadInput, GateFailed


class Scale(Rewrite):
    """A rewrite that says it is exact, and is off by `factor`."""

    kind: Literal["scale"] = "scale"
    saves: Saving = Saving(operators=1)
    factor: float

    def carry_out(self, model: nn.Module) -> None:
        for name in self.layers:
            layer = model.get_submodule(name)
            layer.weight = nn.Parameter(layer.weight * self.factor)  # pyright: ignore


def made(*rewrites: Rewrite, shape: tuple[int, ...] = (2, 3, 5, 4)) -> Plan:
    return Plan(input_shape=shape, rewrites=rewrites, before=Totals(), after=Totals())


@pytest.fixture
def network() -> nn.Module:
    return lived_in(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1)))


def test_a_rewrite_that_is_off_is_named_with_its_difference(network: nn.Module) -> None:
    x = images(2, 3, 5, 4)
    largest = network[0](x).abs().max().item()  # pyright: ignore[reportIndexIssue]
    with pytest.raises(GateFailed, match=r"rewrite 2, scale of 0: 0 is off by") as caught:
        apply(network, made(Scale(layers=("0",), factor=1 + 1e-6), Scale(layers=("0",), factor=1.01)), x)
    off = re.search(r"off by (\S+) at most", str(caught.value))
    assert off is not None
    assert float(off[1]) == pytest.approx(0.01 * largest, rel=0.05)


def test_a_difference_that_is_not_a_number_fails(network: nn.Module) -> None:
    with pytest.raises(GateFailed, match="off by nan"):
        apply(network, made(Scale(layers=("0",), factor=float("nan"))), images(1, 3, 5, 4))


def test_stated_tolerances_and_none_are_kept(network: nn.Module) -> None:
    x = images(1, 3, 5, 4)
    for tolerance in (0.02, None):
        result = apply(network, made(Scale(layers=("0",), factor=1.01, tolerance=tolerance)), x)
        torch.testing.assert_close(result(x), 1.01 * network(x), rtol=1e-4, atol=0)


def test_a_plan_that_saves_something_else_than_it_says_fails(network: nn.Module) -> None:
    wrong = Scale(layers=("0",), factor=1.0, saves=Saving(params=3))
    with pytest.raises(GateFailed, match="saves 0 parameters and 0 bytes where it says 3 and 0"):
        apply(network, made(wrong), images(1, 3, 5, 4))


def test_another_networks_plan_is_bad_input(network: nn.Module) -> None:
    with pytest.raises(BadInput, match="no layer 'stem'"):
        rebuilt(network, made(Scale(layers=("stem",), factor=2.0)))
    with pytest.raises(BadInput, match="cannot be carried out on this network"):
        rebuilt(network, made(Scale(layers=("1",), factor=2.0)))


def test_a_plan_prints_a_line_a_rewrite_and_sums() -> None:
    network = nn.Sequential(Inverted(4, 24, 4, 3, 1), nn.ReLU())
    found = plan(network, torch.zeros(1, 4, 10, 12))
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines] == [*["fold_batch_norm"] * 3, "merge_linear", "saved", "before", "after"]
    assert "3 layers into one 3x3" in lines[3]
    total = sum((rewrite.saves for rewrite in found.rewrites), Saving())
    assert total == found.saves
    for name in ("params", "macs", "bytes", "operators"):
        assert getattr(found.before, name) - getattr(found.after, name) == getattr(total, name), name
    assert found.saves.macs == (24 * 4 * 2 + 24 * 9 - 16 * 9) * 120
    assert f"{found.saves.macs:,}" in lines[4]


def test_samples_and_network_are_left_as_they_were() -> None:
    network = mobile().train()
    x = images(2, 3, 14, 10)
    before, state = x.clone(), {name: tensor.clone() for name, tensor in network.state_dict().items()}
    result = apply(network, plan(network, x), x)
    assert torch.equal(x, before)
    assert network.training
    assert not result.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
