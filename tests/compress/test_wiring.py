"""What torch.export says of a network: readers, uses, multiply-adds; the network stays as it was."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compress.networks import Collapsible, ReadTwice, Shared, mobile
from edgewright.compress.wiring import INPUT, OUTPUT, trace
from edgewright.core.errors import BadInput


def test_readers_and_edges() -> None:
    wiring = trace(ReadTwice(), torch.zeros(1, 3, 4, 6))
    conv = wiring.by_module["conv"][0]
    assert conv.inputs == (INPUT,)
    assert set(conv.readers) == {wiring.by_module["norm"][0].name, list(wiring.steps)[-1]}
    assert wiring.steps[list(wiring.steps)[-1]].readers == (OUTPUT,)
    assert wiring.edges("then") == ({"relu"}, {wiring.by_module["then"][0].name})
    assert wiring.shape(INPUT) == (1, 3, 4, 6)
    assert conv.shape == (1, 5, 4, 6)


def test_macs_are_those_of_the_flop_counter_on_the_meta_device() -> None:
    model = mobile(5).to("meta")
    example = torch.zeros(1, 3, 27, 22, device="meta")
    with FlopCounterMode(display=False) as counter:
        model.eval()(example)
    assert trace(model, example).macs == counter.get_total_flops() // 2


def test_macs_do_not_depend_on_the_batch() -> None:
    model = Collapsible(3, 7, 3)
    assert trace(model, torch.zeros(3, 3, 5, 6)).macs == (3 * 7 * 9 + 7 * 3) * 30


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


def test_what_is_used_more_than_once_is_named() -> None:
    shared = trace(Shared(), torch.zeros(1, 4, 3, 5))
    assert shared.once("conv") == "conv is called 2 times"
    assert shared.once("last") is None
    assert "are used 2 times" in str(trace(_Tied(), torch.zeros(1, 3, 4, 4)).once("one"))
    layer = nn.Conv2d(3, 3, 1)
    named = nn.ModuleDict({"a": layer, "b": layer})
    named.forward = lambda x: named["a"](x)  # pyright: ignore[reportAttributeAccessIssue]
    assert trace(named, torch.zeros(1, 3, 4, 4)).once("a") == "a stands in the network under several names"


class _Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.table = nn.Conv2d(2, 2, 1), nn.Parameter(torch.ones(1, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + torch.exp(self.table) * 2


def test_what_is_made_of_parameters_alone_is_no_step() -> None:
    assert [step.operator for step in trace(_Constant(), torch.zeros(1, 2, 3, 4)).steps.values()] == ["conv2d", "add"]


def test_tracing_leaves_modes_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    model.train()
    model[1].eval()
    trace(model, torch.zeros(2, 3, 4, 4))
    assert [module.training for module in model] == [True, False, True]


class _Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class _Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, x + 2


def test_what_cannot_be_followed_is_one_sentence() -> None:
    with pytest.raises(BadInput, match=r"cannot be traced by torch\.export"):
        trace(_Branching(), torch.zeros(1, 2))
    with pytest.raises(BadInput, match="take one tensor and give one"):
        trace(_Two(), torch.zeros(1, 2))
