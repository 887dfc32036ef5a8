"""A residual block that is gone leaves what the network without its branch computes."""

import json
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from compress.networks import images, lived_in, mobile
from compress.prunable import Residual, resnet
from edgewright.compress.base import apply, rebuilt
from edgewright.compress.planner import plan, read_plan
from edgewright.compress.rewrites.drop_block import blocks, find
from edgewright.compress.wiring import trace
from edgewright.core.errors import BadInput


def test_which_blocks_can_go() -> None:
    model = resnet()
    assert blocks(model, trace(model, torch.zeros(2, 3, 9, 12))) == {"3": "", "4": "", "6": ""}  # not the strided one
    net = mobile()
    found = blocks(net, trace(net, torch.zeros(1, 3, 16, 16)))
    assert set(found) == {"stage1", "stage2.0", "stage2.1"}  # the first stage is one block
    assert set(found.values()) == {""}


@torch.no_grad()
def test_equals_the_network_whose_branch_gives_zero() -> None:
    model, x = lived_in(resnet()).double(), images(2, 3, 9, 12, dtype=torch.float64)
    found = plan(model, x, [partial(find, drop=["4", "6"])])
    assert (found.before.macs - found.after.macs, found.before.operators - found.after.operators) == (
        found.saves.macs,
        found.saves.operators,
    )
    result = apply(model, found, x)
    for name in ("4", "6"):
        norm: Any = model.get_submodule(f"{name}.bn2")
        norm.weight.zero_()
        norm.bias.zero_()
    torch.testing.assert_close(result(x), model(x), rtol=0, atol=1e-12)
    again = rebuilt(resnet().double(), read_plan(json.loads(found.to_json()), "plan"))
    again.load_state_dict(result.state_dict())
    assert torch.equal(again(x), result(x))


@torch.no_grad()
def test_an_activation_that_was_not_there_before_stays() -> None:
    model: Any = lived_in(nn.Sequential(nn.Conv2d(3, 6, 1), Residual(6, 4, 6), nn.Conv2d(6, 2, 1)))
    x = images(1, 3, 5, 8)
    result = apply(model, plan(model, x, [partial(find, drop=["1"])]), x)
    assert torch.equal(result(x), model[2](torch.relu(model[0](x))))


def test_what_is_no_block_is_refused() -> None:
    with pytest.raises(BadInput, match="'5' is no residual block that could go; there are 3, 4, 6"):
        plan(resnet(), torch.zeros(2, 3, 9, 12), [partial(find, drop=["5"])])
