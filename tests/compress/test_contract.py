"""Every rewrite over a table of small networks: exact to rounding, counted truly, the same again from JSON."""

import importlib
import json
import pkgutil
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from compress.networks import (
    Branches,
    Collapsible,
    Inverted,
    ReadTwice,
    Shared,
    TimmInverted,
    UnevenBlock,
    images,
    lived_in,
    mobile,
)
from edgewright import compress
from edgewright.compress import planner
from edgewright.compress.base import EXACT, Plan, Rewrite, apply, rebuilt
from edgewright.compress.planner import METHODS, REWRITES, plan, read_plan
from edgewright.compress.rewrites import merge_linear
from edgewright.compress.wiring import trace


class _Unet(nn.Module):
    """Two paths joined along the channels; the convolution before the fork is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.down = nn.Sequential(nn.Conv2d(6, 4, 1), nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Dropout())
        self.last = nn.Conv2d(11, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.last(torch.cat([self.down(torch.relu(self.norm(y))), y], 1))


NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "residual": (nn.Sequential(Inverted(4, 24, 4, 3, 1), nn.ReLU6(), nn.Conv2d(4, 3, 1)), (2, 4, 9, 6)),
    "strided, odd": (nn.Sequential(nn.Conv2d(3, 6, 1), Inverted(6, 40, 5, 5, 2), nn.Dropout()), (2, 3, 13, 7)),
    "branches, grouped": (nn.Sequential(Branches(6, 2), Branches(6, 3)), (1, 6, 5, 8)),
    "depthwise": (
        nn.Sequential(nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1, groups=6)),
        (2, 6, 7, 10),
    ),
    "collapsible": (nn.Sequential(Collapsible(3, 40, 3), nn.PReLU(3), Collapsible(3, 20, 5)), (1, 3, 6, 11)),
    "dilated, same": (
        nn.Sequential(
            nn.Conv2d(5, 2, 3, dilation=2, padding="same"), nn.Conv2d(2, 3, 1, stride=(1, 2)), nn.BatchNorm2d(3)
        ),
        (2, 5, 12, 9),
    ),
    "mobile": (mobile(), (2, 3, 21, 26)),
    "norms with activations": (nn.Sequential(TimmInverted(4, 12), nn.ReLU()), (1, 4, 6, 9)),
    "uneven padding": (nn.Sequential(UnevenBlock(3, 30, 4, 3), UnevenBlock(4, 50, 5, 5)), (2, 3, 14, 11)),
    "uneven squares": (
        nn.Sequential(
            nn.Conv2d(4, 6, 2, padding="same"), nn.Conv2d(6, 2, 1), nn.ZeroPad2d((1, 2, 0, 1)), nn.Conv2d(2, 1, 3)
        ),
        (1, 4, 8, 6),
    ),
    "fork": (_Unet(), (2, 3, 8, 5)),
    "shared": (nn.Sequential(Shared(), nn.Conv2d(2, 8, 1), nn.Conv2d(8, 2, 1)), (1, 4, 7, 3)),
    "read twice": (nn.Sequential(ReadTwice(), nn.Conv2d(5, 9, 1), nn.Conv2d(9, 2, 1)), (1, 3, 7, 9)),
}
# What must be left alone in them, by name.
LEFT = {
    "fork": {("stem", "norm")},
    "shared": {("0.conv", "0.norm")},
    "read twice": {("0.conv", "0.norm")},
}


def made(name: str) -> tuple[nn.Module, Tensor, Plan]:
    model, shape = NETWORKS[name]
    model = lived_in(model)
    return model, images(*shape), plan(model, torch.zeros(shape))


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_every_rewrite_keeps_its_word(name: str) -> None:
    model, x, found = made(name)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    result = apply(model, found, x)
    # exact where it says so, on other samples and in double
    other = images(*x.shape, seed=8)
    scale = model(other).abs().max()
    assert (result(other) - model(other)).abs().max() <= EXACT * scale
    double = apply(model.double(), found.model_copy(update={"rewrites": _doubled(model, found)}), x.double())
    torch.testing.assert_close(double(other.double()), model(other.double()), rtol=0, atol=1e-10 * float(scale))
    model.float()
    # as many parameters, bytes, multiply-adds and operators less as it said
    wiring = trace(result, x)
    assert found.after.params == sum(parameter.numel() for parameter in result.parameters())
    assert found.after.macs == wiring.macs
    assert found.after.operators == len(wiring.steps)
    for field in ("params", "macs", "bytes", "operators"):
        assert getattr(found.before, field) - getattr(found.after, field) == getattr(found.saves, field), field
    # the network came to no harm, and the plan serves a fresh one, read from JSON
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    again = read_plan(json.loads(found.to_json()), "plan")
    assert again == found
    fresh = rebuilt(NETWORKS[name][0], again)
    fresh.load_state_dict(result.state_dict())
    assert torch.equal(fresh(x), result(x))


def _doubled(model: nn.Module, found: Plan) -> tuple[Rewrite, ...]:
    """The rewrites with what they save in float64, as `apply` holds them to it."""
    return plan(model, torch.zeros(found.input_shape, dtype=torch.float64)).rewrites


@pytest.mark.parametrize("name", LEFT)
def test_what_is_used_or_read_twice_is_named_and_stays(name: str) -> None:
    model, x, found = made(name)
    assert LEFT[name] <= {one.layers for one in found.declined}
    touched = {layer for rewrite in found.rewrites for layer in rewrite.layers}
    assert not touched & {layer for pair in LEFT[name] for layer in pair}
    assert all(any(", ".join(pair) in line for line in str(found).splitlines()) for pair in LEFT[name])
    result = apply(model, found, x)
    for pair in LEFT[name]:
        for layer in pair:
            assert type(result.get_submodule(layer)) is type(model.get_submodule(layer))


@pytest.mark.parametrize("name", ["residual", "strided, odd", "fork"])
@torch.no_grad()
def test_padding_moved_first_then_merges_exactly(name: str) -> None:
    model, shape = NETWORKS[name]
    model, x = lived_in(model), images(*shape)
    found = plan(model, x, ["remove_identity", "fold_batch_norm", "pad_first", partial(merge_linear.find, most_macs=9)])
    merged = apply(model, found, x)
    assert merged(x).shape == model(x).shape
    assert any(rewrite.kind == "pad_first" for rewrite in found.rewrites)
    assert "border" not in " ".join(name for name, _ in merged.named_parameters())


def test_the_table_has_every_method_and_every_rewrite() -> None:
    kinds = {kind.model_fields["kind"].default for kind in REWRITES}
    assert set(METHODS) <= kinds
    found = {rewrite.kind for name in NETWORKS for rewrite in made(name)[2].rewrites}
    assert set(planner.EXACT_METHODS) == found
    for module in pkgutil.walk_packages(compress.__path__, "edgewright.compress."):
        importlib.import_module(module.name)
    assert _below(Rewrite) == set(REWRITES)


def _below(kind: type) -> set[type]:
    """All that derive from it in the package."""
    own = {one for one in kind.__subclasses__() if one.__module__.startswith("edgewright.")}
    return own.union(*map(_below, own))
