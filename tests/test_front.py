"""The front of the package: what `dir` lists loads, options are the plans' fields, one method on one's own network."""

import ast
import copy
import functools
import inspect
import operator
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import edgewright as ew
from edgewright.backward.base import has_rule, swapped
from edgewright.backward.rules.gradient_filter import GradientFilter
from edgewright.compress.wiring import trace
from edgewright.core.cost import Budget, Ceilings
from edgewright.core.data import Asked
from edgewright.core.errors import BadInput
from edgewright.core.plan import Plan
from edgewright.device.measure import Latency
from edgewright.export.onnx import export_onnx
from edgewright.export.ship.plan import ShipPlan
from edgewright.export.ship.ship import ship
from edgewright.job.adapt.plan import AdaptPlan
from edgewright.job.compress.plan import CompressPlan
from edgewright.proxy import base
from edgewright.proxy.resolve import resolve_proxy
from edgewright.task.kinds.resolve import make_kind

PACKAGES = (ew, ew.backward, ew.compress)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_dir_lists_what_there_is_and_all_of_it_loads(package: ModuleType) -> None:
    assert dir(package) == sorted(package.__all__)
    assert all(getattr(package, name).__doc__ for name in dir(package))
    with pytest.raises(AttributeError, match="has no attribute 'desing'"):
        package.desing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_a_checker_sees_the_names_from_where_they_load(package: ModuleType) -> None:
    assert package.__file__ is not None
    (block,) = [node for node in ast.parse(Path(package.__file__).read_text()).body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: str(node.module) for node in imports for alias in node.names}
    own = {f"{package.__name__}.{name}": package.__name__ for name in dir(package)}  # rooms: they are what is named
    assert seen == {name: own.get(home, home) for name, home in vars(package)["_HOMES"].items()}


def test_looking_at_the_package_loads_no_torch() -> None:
    code = "import edgewright, sys; dir(edgewright); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def types_of(plan: type[Asked]) -> dict[str, Any]:
    """Of the fields, as a function takes them: any sequence for a tuple of any length, any mapping for a dict."""
    hints = typing.get_type_hints(plan)
    return {name: _given(hints[name]) for name in plan.model_fields}


def _given(kind: Any) -> Any:
    inner = typing.get_args(kind)
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return functools.reduce(operator.or_, map(_given, inner))
    if typing.get_origin(kind) is dict:
        return Mapping[inner[0], _given(inner[1])]
    return Sequence[inner[0]] if typing.get_origin(kind) is tuple and inner[1:] == (...,) else kind


# Options of a function that stand for a field of another name.
ALSO: dict[Callable[..., Any], dict[str, str]] = {ew.adapt: {"memory_mb": "memory_bytes"}}
TYPED = [(ew.design, Plan), (ew.adapt, AdaptPlan), (ew.compress_run, CompressPlan), (ship, ShipPlan)]


@pytest.mark.parametrize(("function", "plan"), TYPED, ids=lambda one: one.__name__)
def test_typed_options_are_the_fields_of_the_plan(function: Callable[..., Any], plan: type[Asked]) -> None:
    hints = typing.get_type_hints(function)
    (rest,) = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.VAR_KEYWORD]
    (options,) = typing.get_args(hints[rest])
    own = {"schema_version", *hints} - {rest, "return"} - set(ALSO.get(function, {}))
    fields = {name: kind for name, kind in types_of(plan).items() if name not in own}
    if fields.pop("budget", None):  # ceilings one by one
        fields |= types_of(Budget)
    assert typing.get_type_hints(options) == fields
    assert options.__total__ is False and not options.__required_keys__


def test_ceilings_are_the_fields_of_a_budget() -> None:
    assert typing.get_type_hints(Ceilings) == types_of(Budget)


def test_one_memory_ceiling_not_two(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="memory_mb or memory_bytes, not both"):
        ew.adapt("run", task="digits", out=tmp_path / "out", memory_mb=1, memory_bytes=5)


def test_an_option_that_no_plan_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown key 'epoch'; did you mean 'epochs'"):
        ew.compress_run("run", out=tmp_path / "out", latency_ms=1, epoch=3)  # pyright: ignore[reportCallIssue]


# ---- one method on one's own network ----


class Net(nn.Module):
    """Oblong maps, a grouped convolution, a residual block, so many outputs."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.ReLU(), nn.Conv2d(16, 16, 1))
        self.wide = nn.Sequential(nn.Conv2d(16, 40, 1), nn.ReLU())
        self.head = nn.Linear(40, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.wide(x + self.inner(x)).mean((2, 3)))


def made(outputs: int = 3) -> Net:
    torch.manual_seed(1)
    return Net(outputs)


X, Y = torch.linspace(-1, 1, 4 * 2 * 11 * 15).reshape(4, 2, 11, 15), torch.tensor([0, 2, 1, 2])


def state_of(net: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(net.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_scores_are_those_of_the_mechanism_however_the_data_is_given() -> None:
    net, names = made(), ["zico", "grad_norm", "params"]
    proxies = [resolve_proxy(name) for name in names]
    two = [(X, Y), (X.flip(3), Y)]
    wanted = base.score(net, two, proxies)
    assert ew.score(net, two, names) == ew.score(net, iter(two), proxies) == ew.score(net, tuple(two), names) == wanted
    assert ew.score(net, (X, Y), "grad_norm") == base.score(net, [(X, Y)], proxies[1:2])
    assert ew.score(net, X, "params") == {"params": float(sum(p.numel() for p in net.parameters()))}
    one = ew.score(made(1), (X, X[:, :1, 0, 0]), "grad_norm", loss=functional.mse_loss)
    assert one["grad_norm"] > 0


def test_transfer_scores_by_name_and_pixels_by_a_kind() -> None:
    net, names = made(), ["logme", "leep"]
    proxies = [resolve_proxy(name) for name in names]
    assert ew.score(net, (X, Y), names) == base.score(net, [(X, Y)], proxies)
    cut = ew.score(net, (X, Y), "logme", settled=False)
    assert cut == base.score(net, [(X, Y)], proxies[:1], settled=False)
    kind = make_kind("segmentation", ("a", "b"), {})
    masks, pixels = (X[:, 0] > 0).to(torch.uint8), nn.Conv2d(X.shape[1], 2, 1)
    found = ew.score(pixels, (X, masks), "linear_probe", loss=kind.loss, examples=kind.examples)
    assert found["linear_probe"] > 70


def test_batches_that_are_none_are_refused() -> None:
    with pytest.raises(BadInput, match="a batch is a pair"):
        ew.score(made(), [X, X], "params")  # pyright: ignore[reportArgumentType]
    with pytest.raises(BadInput, match="needs targets"):
        ew.score(made(), X, "grad_norm")
    with pytest.raises(BadInput, match="unknown proxy 'zicco'"):
        ew.score(made(), (X, Y), "zicco")


def test_what_is_pruned_has_that_share_of_the_macs_and_the_network_stays() -> None:
    net = made(1)
    before = state_of(net)
    wanted = torch.tensor([[0.0], [1.0], [0.5], [2.0]])
    found = ew.prune(net, X, macs=0.75, targets=wanted, loss=functional.mse_loss, keep=("stem.*",))
    assert same(before, state_of(net)) and net.training
    assert trace(found.model, X).macs <= 0.75 * trace(net, X).macs
    assert found.model(X).shape == (4, 1) and not found.model.training
    assert found.model.get_submodule("stem.0").get_parameter("weight").shape[0] == 16
    assert found.ratio.low <= found.ratio.value <= found.ratio.high


def test_a_share_of_the_latency_is_held_by_a_boards_law() -> None:
    net = made()
    found = ew.prune(net, X, latency=0.8, device="stm32f746")
    assert found.ratio.value <= 0.8 * 1.02 and found.plan.trains


@pytest.mark.parametrize("shares", [{}, {"latency": 0.5, "macs": 0.5}])
def test_one_share_not_none_or_two(shares: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="say what may be left"):
        ew.prune(made(), X, **shares)  # pyright: ignore[reportArgumentType]


def test_the_fastest_computes_the_same() -> None:
    net = made().eval()
    with torch.no_grad():
        net.stem[1].running_mean.copy_(torch.linspace(-1, 1, 16))  # pyright: ignore
    found, before = ew.fastest(net, X), state_of(net)
    assert torch.allclose(found.model(X), net(X), rtol=1e-4, atol=1e-5)
    assert [rewrite.kind for rewrite in found.plan.rewrites] == ["fold_batch_norm"]
    assert same(before, state_of(net)) and found.model is not net


def test_where_nothing_helps_the_fastest_is_a_copy() -> None:
    net = nn.Sequential(nn.Conv1d(2, 3, 5), nn.ReLU(), nn.Flatten(), nn.Linear(15, 2))
    found = ew.fastest(net, torch.zeros(1, 2, 9))
    assert not found.plan.rewrites and found.ratio.value == 1
    assert found.model is not net and same(state_of(found.model), state_of(net))


def test_networks_and_files_are_measured_in_turns(tmp_path: Path) -> None:
    net, file = made(), tmp_path / "net.onnx"
    export_onnx(net, (2, 11, 15), file)
    one = ew.measure(file, runs=21)
    assert isinstance(one, Latency) and one.how == "measured" and one.runs == 30
    found = ew.measure([net, str(file)], X, runs=20)
    assert [latency.runs for latency in found] == [20, 20]
    assert found[0].reference_ms == found[1].reference_ms  # of one measurement


def test_a_boards_law_says_a_latency() -> None:
    assert ew.measure(made(), X, device="stm32f746").how == "law"


@pytest.mark.parametrize(
    ("what", "options", "words"),
    [
        (made(), {}, "a network needs an input"),
        ("nowhere.onnx", {}, "no such file"),
        ("net.xyz", {}, "no runtime opens files with this ending"),
        (made(), {"runs": 19}, "at least 20 runs"),
        (made(), {"device": "nonsense"}, "unknown device 'nonsense'"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(what: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        ew.measure(what, **options)


def gradients(net: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(functional.cross_entropy(net(X), Y), list(net.parameters())))


@pytest.mark.parametrize("exact_inputs", [False, True])
def test_filtered_is_the_rule_on_the_layers_that_are_named(exact_inputs: bool) -> None:
    net = made().eval()
    plain, out = gradients(net), net(X)
    with swapped(net, dict.fromkeys(("inner.0", "inner.2"), GradientFilter(2, filter_input=not exact_inputs))):
        wanted = gradients(net)
    with ew.backward.filtered(net, patch=2, only=("inner.*",), exact_inputs=exact_inputs) as inside:
        assert inside is net and torch.equal(net(X), out)
        assert {name for name, layer in net.named_modules() if has_rule(layer)} == {"inner.0", "inner.2"}
        found = gradients(net)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(gradients(net), plain, strict=True))


def test_a_pattern_that_no_convolution_has_names_some_that_are_there() -> None:
    words = r"no convolution is called head\*; the network has stem\.0, inner\.0"
    with pytest.raises(BadInput, match=words), ew.backward.filtered(made(), only=("head*",)):
        pass
