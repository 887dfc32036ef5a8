"""Decisions, masks, the direction of the search, and the published table."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from compress.networks import TimmInverted, images, lived_in, mobile, mobilenet_v2
from edgewright.compress.affine import BorderedConv
from edgewright.compress.base import apply, rebuilt
from edgewright.compress.planner import plan
from edgewright.compress.rewrites import depthshrinker as ds
from edgewright.compress.rewrites import merge_linear
from edgewright.compress.wiring import Wiring, trace
from edgewright.compress.worthwhile import saved_ms
from edgewright.core.errors import BadInput
from edgewright.device.measure import Latency
from edgewright.model.blocks import Stage
from made_network import mobile_net

# 1 = keep; order: stem, depthwise-separable block, 16 inverted residuals, head. MACs and parameters in millions, at
# 224 px, merged convolutions without bias.
PUBLISHED = {
    "A": ("0100110101011011111", 496.2, 5.96),
    "B": ("1000110000011011111", 481.9, 5.93),
    "C": ("1100100000011011111", 474.4, 5.92),
    "D": ("0000110000000011111", 466.6, 5.84),
    "E": ("0100100000000011111", 459.1, 5.83),
    "F": ("1000000000000000001", 407.9, 5.44),
}


@pytest.fixture(scope="module")
def v2() -> tuple[nn.Module, Wiring, tuple[ds.Decision, ...]]:
    with torch.device("meta"):
        model = mobilenet_v2(1.4).eval()
    wiring = trace(model, torch.zeros(1, 3, 224, 224))
    return model, wiring, ds.decisions(model, wiring)


def test_mobilenet_v2_has_nineteen_decisions(v2: tuple[nn.Module, Wiring, tuple[ds.Decision, ...]]) -> None:
    _, _, found = v2
    assert len(found) == 19
    assert [decision.block for decision in (found[0], found[1], found[-1])] == ["stem", "stage1", "head"]
    assert [len(decision.activations) for decision in found] == [1, 1, *[2] * 16, 1]
    assert [decision.mergeable for decision in found] == [False, *[True] * 17, False]
    # by hand, in millions of MACs: 24 to 32, stride 2 at 112; 224 to 448 at 7
    saved = [(found[index].saves.macs / 1e6) for index in (2, 17)]
    assert saved == pytest.approx([61.87 - 21.68, 44.85 - 44.26], abs=0.01)


@pytest.mark.parametrize("name", ["F"])
def test_published_table(name: str, v2: tuple[nn.Module, Wiring, tuple[ds.Decision, ...]]) -> None:
    check_table(name, v2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["A", "B", "C", "D", "E"])
def test_published_table_whole(name: str, v2: tuple[nn.Module, Wiring, tuple[ds.Decision, ...]]) -> None:
    check_table(name, v2)


def check_table(name: str, v2: tuple[nn.Module, Wiring, tuple[ds.Decision, ...]]) -> None:
    (model, wiring, found), (keep, macs, params) = v2, PUBLISHED[name]
    drop = [decision for decision, flag in zip(found, keep, strict=True) if flag == "0"]
    blocks = tuple(decision.block for decision in drop if decision.mergeable)
    linearise = partial(ds.find, drop=[decision.block for decision in drop])
    # the published nets keep the depthwise-separable block in two: as one convolution it has 6.5 times the MACs
    blocks = tuple(block for block in blocks if block != "stage1")
    merge = partial(merge_linear.find, only=blocks)
    made = plan(model, torch.zeros(1, 3, 224, 224), [linearise, merge], wiring)
    assert [rewrite.layers for rewrite in made.rewrites if rewrite.kind == "merge_linear"] == [(b,) for b in blocks]
    merged = [module for module in rebuilt(model, made).modules() if isinstance(module, BorderedConv)]
    biases = sum(module.border.numel() + module.conv.weight.shape[0] for module in merged)
    assert made.before.macs == 582_195_824
    assert made.before.params == pytest.approx(6.11e6, abs=5e3)
    assert made.after.macs / 1e6 == pytest.approx(macs, abs=0.05)
    assert (made.after.params - biases) / 1e6 == pytest.approx(params, abs=0.005)


@pytest.mark.parametrize("kernel", [3, *(pytest.param(kernel, marks=pytest.mark.slow) for kernel in (5, 7))])
@torch.no_grad()
def test_merged_equals_linearised_everywhere(kernel: int) -> None:
    network, x = lived_in(mobile(kernel)), images(2, 3, 45, 38)
    found = [d for d in ds.decisions(network, trace(network, x)) if d.mergeable]
    linear = apply(network, plan(network, x, [partial(ds.find, drop=[d.block for d in found])]), x)
    merge = partial(merge_linear.find, most_macs=100)
    merged = apply(linear, plan(linear, x, ["fold_batch_norm", merge]), x)
    for block in (d.block for d in found):
        seen = {name: _inside(net, block, x) for name, net in (("linear", linear), ("merged", merged))}
        assert (seen["linear"] - seen["merged"]).abs().max() < 1e-4
        assert len([m for m in merged.get_submodule(block).modules() if isinstance(m, nn.Conv2d)]) == 1
    assert (linear(x) - merged(x)).abs().max() < 1e-4
    assert isinstance(linear.get_submodule("stage2.1")[1], nn.ReLU6)  # pyright: ignore[reportIndexIssue]


def _inside(model: nn.Module, block: str, x: torch.Tensor) -> torch.Tensor:
    """What a block gives before its new activation."""
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(f"{block}.0").register_forward_hook(lambda *given: seen.append(given[2].clone()))
    model(x)
    handle.remove()
    return seen[0]


def test_blocks_that_would_not_merge_are_refused_by_name() -> None:
    gated = Stage(kind="inverted", depth=1, width=8, kernel=3, expansion=4, squeeze=True, stride=1)
    plain = Stage(kind="separable", depth=1, width=8, kernel=3, expansion=1, squeeze=False, stride=1)
    network, x = mobile_net(3, 4, 8, 2, [gated, plain], 0), torch.zeros(1, 3, 16, 12)
    found = {decision.block: decision for decision in ds.decisions(network, trace(network, x))}
    assert found["stage2"].closed, "its last activation stays"
    assert [len(found[name].activations) for name in ("stage1.0.body.2", "stage2")] == [1, 1] or "stage1" in str(found)
    for name, decision in found.items():
        if "body.2" in name:
            with pytest.raises(BadInput, match="would not merge into one convolution"):
                plan(network, x, [partial(ds.find, drop=[decision.block])])
    with pytest.raises(BadInput, match="'stage9' is no block"):
        plan(network, x, [partial(ds.find, drop=["stage9"])])


def test_exactly_k_are_kept_in_every_step_and_the_dearest_goes_first() -> None:
    masks = ds.Masks([1.0, 50.0, 2.0, 3.0, 0.0], keep=3)
    assert masks.dropped().tolist() == [0, 1, 0, 1, 0], "equal scores: the largest savings first"
    optimizer = torch.optim.SGD(masks.parameters(), lr=0.5)
    for step in range(30):
        gradient = torch.randn(5, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        ((masks.gates() * gradient * 0.01).sum() + masks.penalty()).backward()
        optimizer.step()
        assert int(masks.dropped().sum()) == 2
    assert masks.dropped()[1] == 1
    assert masks.scores.argmax() == 1, "the cost term pushes the dearest block towards being dropped"
    for wrong in (-1, 6):
        with pytest.raises(BadInput, match="cannot be kept"):
            ds.Masks([1.0] * 5, keep=wrong)


def test_mask_gradient_is_that_of_the_formula_and_zero_outside() -> None:
    masks = ds.Masks([3.0, 1.0], keep=1)
    layer = ds.MaskedActivation(nn.ReLU6(inplace=True), masks, 0)
    x = 4 * images(2, 3, 4, 5)
    g = images(2, 3, 4, 5, seed=5)
    assert torch.equal(layer(x), x), "dropped: the dearer of two equals"
    (layer(x) * g).sum().backward()
    expected = (g * (x - functional.relu6(x))).sum()
    assert masks.scores.grad is not None
    torch.testing.assert_close(masks.scores.grad, torch.stack([expected, torch.zeros(())]), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        masks.scores.copy_(torch.tensor([-0.1, 0.5]))
    assert torch.equal(layer(x), functional.relu6(x)), "kept now"
    masks.scores.grad = None
    (layer(x) * g).sum().backward()
    assert masks.scores.grad is not None
    assert masks.scores.grad[0] == 0


def test_searching_drops_what_saves_most_and_then_shrinks() -> None:
    network, x = mobile(), images(6, 3, 20, 14)
    found = ds.decisions(network, trace(network, x))
    savings = {"stage2.0": 1.0, "stage2.1": 60.0, "stage3": 0.5, "head": 0.5}
    net = ds.searched(network, found, keep=len(found) - 1, savings=savings)
    labels = torch.tensor([0, 3, 1, 9, 4, 4])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    loss = ds.search_loss(weight=20.0)  # far above what the untrained task asks for
    for _ in range(5):
        net.train()
        optimizer.zero_grad()
        loss(net, x, labels).backward()
        optimizer.step()
        assert len(net.drop()) == 1
    net(x)
    assert net.drop() == ("stage2.1",)
    assert all(0 <= score <= 1 for score in net.masks.scores.tolist())
    made = plan(network, x, [partial(ds.find, drop=net.drop())])
    assert made.rewrites[0].promises().macs > 0
    with pytest.raises(BadInput, match="network with masks"):
        loss(network, x, labels)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_other_numbers(dtype: torch.dtype) -> None:
    network, x = mobile().to(dtype), images(2, 3, 20, 14).to(dtype)
    plain = ds.decisions(mobile(), trace(mobile(), images(2, 3, 20, 14)))
    found = ds.decisions(network, trace(network, x))
    assert [(one.block, one.activations) for one in found] == [(one.block, one.activations) for one in plain]
    assert [one.saves.macs for one in found] == [one.saves.macs for one in plain]
    net = ds.searched(network, found, keep=len(found) - 1, savings={"stage2.0": 1.0, "stage2.1": 2.0, "stage3": 1.0})
    net.train()
    net(x).sum().backward()
    assert net(x).dtype == dtype
    made = plan(network, x, [partial(ds.find, drop=net.drop())])
    assert apply(network, made, x)(x).dtype == dtype
    saved = saved_ms(network, found, x, lambda modules, shape: [Latency.by_law(1.0)] * len(modules))
    assert set(saved) <= {one.block for one in found}


@torch.no_grad()
def test_activations_inside_norms_are_found_and_merge() -> None:
    network, x = lived_in(nn.Sequential(nn.Conv2d(3, 4, 1), TimmInverted(4, 40))), images(2, 3, 8, 11)
    (found,) = ds.decisions(network, trace(network, x))
    assert (found.block, found.activations, found.mergeable) == ("1", ("1.bn1.act", "1.bn2.act"), True)
    linear = apply(network, plan(network, x, [partial(ds.find, drop=["1"])]), x)
    merged = apply(linear, plan(linear, x), x)
    assert [type(module) for module in merged[1]] == [BorderedConv, nn.ReLU6]
    assert (merged(x) - linear(x)).abs().max() < 1e-4
