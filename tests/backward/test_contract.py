"""Every method, over a table of layers and three whole networks: what holds for all of them.

Whether an approximate gradient is the right one is for the method's own tests (closed forms, naive references).
"""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from backward.networks import odd
from edgewright.backward.account import measure_kept, predict_kept, total
from edgewright.backward.base import Rule, swapped
from edgewright.backward.calls import Call
from edgewright.backward.resolve import methods
from edgewright.backward.survey import survey
from edgewright.model.mcunet import int8_network
from model.integers import small

# Methods whose gradients are those of autograd; the others approximate that of the weight or of the input.
EXACT = {"full", "bias", "frozen", "mask", "tune"}

conv, linear, norm = nn.Conv2d, nn.Linear, nn.BatchNorm2d
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "3x3": (conv(16, 12, 3, padding=1), (2, 16, 9, 14)),
    "3x3 in patches": (conv(8, 16, 3, padding=1, bias=False), (3, 8, 8, 16)),
    "1x1": (conv(16, 24, 1), (2, 16, 7, 10)),
    "1x1 strided": (conv(8, 8, 1, stride=2), (2, 8, 9, 7)),
    "depthwise": (conv(16, 16, 3, padding=1, groups=16), (2, 16, 10, 7)),
    "depthwise strided": (conv(8, 8, 5, stride=2, padding=2, groups=8), (2, 8, 13, 16)),
    "depthwise doubled": (conv(8, 16, 3, groups=8), (1, 8, 6, 9)),
    "grouped": (conv(16, 8, 3, padding=1, groups=4), (2, 16, 8, 11)),
    "strided": (conv(3, 8, 3, stride=(2, 3), padding=(1, 0)), (2, 3, 15, 19)),
    "dilated": (conv(8, 4, 3, dilation=(2, 1), padding=2), (2, 8, 11, 8)),
    "same": (conv(8, 4, (4, 3), padding="same"), (2, 8, 9, 7)),
    "reflected": (conv(8, 4, 3, padding=1, padding_mode="reflect"), (2, 8, 9, 7)),
    "one pixel": (conv(16, 4, 3, padding=1), (4, 16, 1, 1)),
    "1 d": (nn.Conv1d(8, 6, 3, padding=1), (2, 8, 17)),
    "3 d": (nn.Conv3d(4, 6, 3, padding=1), (2, 4, 3, 6, 5)),
    "linear": (linear(24, 10), (6, 24)),
    "linear on tokens": (linear(16, 24), (2, 16, 16)),
    "linear on a ragged grid of tokens": (linear(16, 8, bias=False), (2, 7, 5, 16)),
    "norm": (norm(8), (3, 8, 5, 7)),
    "norm without scale": (norm(8, affine=False), (3, 8, 5, 7)),
    "norm 1 d": (nn.BatchNorm1d(12), (5, 12)),
    "relu": (nn.ReLU(), (2, 5, 3, 7)),
    "relu in place": (nn.ReLU(inplace=True), (2, 5, 3, 7)),
    "relu6": (nn.ReLU6(), (2, 5, 3, 7)),
    "hardtanh": (nn.Hardtanh(-0.5, 0.7), (3, 11)),
    "hardswish": (nn.Hardswish(), (2, 5, 3, 7)),
    "hardsigmoid": (nn.Hardsigmoid(), (2, 5, 3, 7)),
    "silu in place": (nn.SiLU(inplace=True), (2, 7, 9)),
    "gelu": (nn.GELU(approximate="tanh"), (2, 7, 9)),
}


class Case(NamedTuple):
    """One layer behind a scaling (so that in-place activations do not change a leaf), a batch, and a rule for it."""

    method: str
    model: nn.Sequential
    x: Tensor
    rule: Rule

    @property
    def layer(self) -> nn.Module:
        return self.model[1]

    @property
    def rules(self) -> dict[str, Rule]:
        return {"1": self.rule}


class Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1.5


def build(name: str) -> tuple[nn.Sequential, Tensor]:
    layer, shape = LAYERS[name]
    random = torch.Generator().manual_seed(len(name))
    model = nn.Sequential(Scale(), copy.deepcopy(layer)).eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=random) + 0.1)
                tensor.sub_(0.0 if "running_var" in dict(model[1].named_buffers()) else 0.6)
    return model, torch.randn(shape, generator=random)


def call_of(model: nn.Module, x: Tensor) -> Call:
    (site,) = survey(model, x)
    return site.calls[0]


def cases() -> Iterator[tuple[str, str]]:
    for method in methods():
        for name in LAYERS:
            model, x = build(name)
            call = call_of(model, x)
            if any(call.kind in rule.kinds and rule.refuse(call) is None for rule in methods()[method]):
                yield method, name


CASES = list(cases())
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
each = pytest.mark.parametrize(("method", "name"), CASES, ids=[f"{m} on {n}" for m, n in CASES])


def case(method: str, name: str) -> Case:
    model, x = build(name)
    call = call_of(model, x)
    rule = next(r for r in methods()[method] if call.kind in r.kinds and r.refuse(call) is None)
    rule = rule.bound(model[1])
    for parameter, tensor in model[1].named_parameters():
        tensor.requires_grad_(parameter in rule.trained(model[1]))
    return Case(method, model, x, rule)


def gradients(model: nn.Module, x: Tensor, through: bool = False) -> dict[str, Tensor]:
    """Of a weighted sum of the outputs, by parameter and for the input; `through` a checkpoint."""
    model.zero_grad()
    x = x.detach().requires_grad_()
    output = checkpoint(model, x, use_reentrant=False) if through else model(x)
    assert isinstance(output, Tensor)
    weights = (0.4 + torch.cos(torch.arange(output.numel(), dtype=torch.float64))).view(output.shape).to(output.dtype)
    (output * weights).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {**found, "input": x.grad}


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor], rtol: float = 1e-4) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        scale = float(theirs[name].abs().max())
        torch.testing.assert_close(
            tensor, theirs[name], rtol=rtol, atol=rtol * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@each
def test_outputs_are_those_of_the_plain_layer_bit_by_bit(method: str, name: str) -> None:
    one = case(method, name)
    for x in (one.x, one.x.to(memory_format=torch.channels_last) if one.x.dim() == 4 else one.x):
        wanted = one.model(x)
        with swapped(one.model, one.rules):
            assert torch.equal(one.model(x), wanted)
            with torch.no_grad():
                assert torch.equal(one.model(x), wanted)


@each
def test_gradients_fit_and_are_exact_where_they_say_so(method: str, name: str) -> None:
    one = case(method, name)
    wanted = gradients(one.model, one.x)
    with swapped(one.model, one.rules):
        ours = gradients(one.model, one.x)
    assert ours.keys() == wanted.keys()
    for key, tensor in ours.items():
        assert tensor.shape == wanted[key].shape and tensor.dtype == wanted[key].dtype
        assert tensor.isfinite().all() and tensor.abs().sum() > 0
    if method in EXACT:
        equal(ours, wanted)
    equal({k: v for k, v in ours.items() if k == "1.bias"}, {k: v for k, v in wanted.items() if k == "1.bias"})


@each
def test_predicted_bytes_are_those_that_are_kept(method: str, name: str) -> None:
    one = case(method, name)
    call = call_of(one.model, one.x)
    learns = {parameter for parameter, tensor in one.layer.named_parameters() if tensor.requires_grad}
    needs = (True, "weight" in learns, "bias" in learns, False, False)[: len(call.shapes)]
    with swapped(one.model, one.rules):
        one.x.requires_grad_()
        seen = sum(kept.bytes for kept in measure_kept(one.model, one.x) if kept.layer == "1")
        padding = one.x.numel() * 4 if name == "reflected" else 0  # reflection keeps what it reflects
        assert seen - padding == one.rule.stored_bytes(call, needs)
        assert one.rule.macs(call, needs) >= 0


@each
def test_it_is_as_good_in_double_precision_and_channels_last_and_under_checkpoints(method: str, name: str) -> None:
    one = case(method, name)
    with swapped(one.model, one.rules):
        single = gradients(one.model, one.x)
        equal(gradients(one.model, one.x, through=True), single, 1e-6)
        if one.x.dim() == 4:
            equal(gradients(one.model, one.x.to(memory_format=torch.channels_last)), single)
        one.model.double()
        double = gradients(one.model, one.x.double())
    assert all(tensor.dtype == torch.float64 for tensor in double.values())
    equal({key: tensor.float() for key, tensor in double.items()}, single)


@each
def test_it_runs_under_autocast(method: str, name: str) -> None:
    one = case(method, name)
    with swapped(one.model, one.rules):
        single = gradients(one.model, one.x)
    with torch.autocast("cpu", torch.bfloat16):
        output = one.model(one.x)
        with swapped(one.model, one.rules):
            assert torch.equal(one.model(one.x), output)
            half = gradients(one.model, one.x)
    for key, tensor in half.items():
        assert tensor.dtype == single[key].dtype
        assert functional.cosine_similarity(tensor.flatten(), single[key].flatten(), dim=0) > 0.99, key


@each
def test_a_copy_learns_alone(method: str, name: str) -> None:
    one = case(method, name)
    with swapped(one.model, one.rules):
        wanted = gradients(one.model, one.x)
        one.model.zero_grad()
        twin = copy.deepcopy(one.model)
        equal(gradients(twin, one.x), wanted, 1e-6)
    equal(gradients(twin, one.x), wanted, 1e-6)
    assert all(parameter.grad is None for parameter in one.model.parameters())


@pytest.mark.parametrize("name", LAYERS)
def test_what_cannot_be_served_is_refused_in_half_a_sentence(name: str) -> None:
    model, x = build(name)
    call = call_of(model, x)
    for method, rules in methods().items():
        for rule in rules:
            said = rule.refuse(call)
            if said is not None:
                assert len(said) > 15 and "\n" not in said and not said.endswith("."), (method, said)
            assert (said is not None) or call.kind in rule.kinds


def test_rules_are_data() -> None:
    for rules in methods().values():
        for rule in rules:
            assert hash(rule) == hash(copy.deepcopy(rule)) and rule == copy.deepcopy(rule)
            assert not any(isinstance(getattr(rule, slot, None), Tensor) for slot in rule.__slots__)


class Mobile(nn.Module):
    """An inverted residual with squeeze-and-excitation, then two tokens' worth of a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm1 = nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32)
        self.depthwise, self.norm2 = nn.Conv2d(32, 32, 5, 1, 2, groups=32, bias=False), nn.BatchNorm2d(32)
        self.act, self.gate = nn.Hardswish(inplace=True), nn.Hardsigmoid()
        self.reduce, self.raise_ = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.project, self.norm3 = nn.Conv2d(32, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.mix, self.gelu, self.out = nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.expand(x)))
        y = self.act(self.norm2(self.depthwise(y)))
        y = y * self.gate(self.raise_(functional.relu(self.reduce(y.mean((2, 3), keepdim=True)))))
        y = x + self.norm3(self.project(y))
        return self.out(self.gelu(self.mix(y.flatten(2).transpose(1, 2)))).mean(1)


def networks(which: str) -> tuple[nn.Module, Tensor]:
    if which == "odd":
        return odd()
    if which == "int8":
        whole = np.random.default_rng(2).integers(-128, 128, (2, 3, 17, 22))
        return int8_network(*small(2)), torch.from_numpy(whole).float()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Mobile().eval(), torch.randn(2, 8, 8, 10)


@pytest.mark.parametrize("which", ["odd", "mobile", "int8"])
@pytest.mark.parametrize("method", methods())
def test_whole_networks(method: str, which: str) -> None:
    model, x = networks(which)
    rules: dict[str, Rule] = {}
    for site in survey(model, x):
        fit = [r for r in methods()[method] if all(r.refuse(call) is None for call in site.calls)]
        if fit:
            rules[site.name] = fit[0]
    # One has no activations but clamps, the other no 1x1 convolution and no tokens.
    assert rules or (method, which) == ("signed", "int8") or (method.startswith("wht"), which) == (True, "odd")
    output, wanted = model(x), gradients(model, x)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with swapped(model, rules):
        assert torch.equal(model(x), output)
        ours = gradients(model, x)
        assert total(predict_kept(model, x)) == total(measure_kept(model, x))
    assert ours.keys() == wanted.keys()
    assert all(tensor.isfinite().all() for tensor in ours.values())
    if method in EXACT:
        equal(ours, wanted)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
