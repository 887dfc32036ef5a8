"""Merged networks against what they came from, borders included; the customary merge fails the same test."""

from functools import partial
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from compress.networks import Branches, Collapsible, Inverted, ReadTwice, images, lived_in
from edgewright.compress.affine import BorderedConv
from edgewright.compress.base import Plan, apply
from edgewright.compress.planner import plan
from edgewright.compress.rewrites import merge_linear
from edgewright.core.errors import BadInput
from edgewright.export.onnx import export_onnx

ONLY = ("merge_linear",)


def customary(block: Inverted) -> nn.Conv2d:
    """What everybody does: all of b_1 goes through the whole depthwise kernel into the bias."""

    def folded(conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None
        assert norm.running_mean is not None
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        return conv.weight * factor[:, None, None, None], norm.bias - norm.running_mean * factor

    (w1, b1), (d, b2), (w3, b3) = (folded(block.body[i], block.body[i + 1]) for i in (0, 2, 4))
    kernel = torch.einsum("om,muv,mi->oiuv", w3[:, :, 0, 0], d[:, 0], w1[:, :, 0, 0])
    side, dw = d.shape[2], block.body[2]
    assert isinstance(dw, nn.Conv2d)
    conv = nn.Conv2d(w1.shape[1], w3.shape[0], side, dw.stride, side // 2)  # pyright: ignore[reportArgumentType]
    if block.residual:
        kernel[range(len(kernel)), range(len(kernel)), side // 2, side // 2] += 1
    conv.weight = nn.Parameter(kernel)
    conv.bias = nn.Parameter(w3[:, :, 0, 0] @ (b1 * d.sum((1, 2, 3)) + b2) + b3)
    return conv


@pytest.mark.parametrize(("kernel", "stride", "width"), [(3, 1, 5), (5, 2, 9), (7, 1, 5), (3, 2, 5), (5, 1, 9)])
@torch.no_grad()
def test_inverted_block_is_one_convolution_everywhere(kernel: int, stride: int, width: int) -> None:
    block = lived_in(nn.Sequential(Inverted(5, 40, width, kernel, stride), nn.ReLU6()))
    x = images(2, 5, 13, 10)
    found = plan(block, x, [partial(merge_linear.find, most_macs=10)])
    merged = apply(block, found, x)
    assert len([module for module in merged.modules() if isinstance(module, nn.Conv2d)]) == 1

    def inner(net: nn.Module) -> Tensor:  # before ReLU6, which would hide differences
        return net.get_submodule("0")(x)

    assert (inner(merged) - inner(block)).abs().max() < 1e-4
    inverted = block[0]
    assert isinstance(inverted, Inverted)
    off = customary(inverted)(x) - inner(block)
    edge = kernel // 2
    assert off.abs().max() > 0.3, "the customary merge is wrong at the border"
    assert off[..., edge:-edge, edge:-edge].abs().max() < 1e-4, "and right inside"


@pytest.mark.parametrize(
    ("model", "channels", "convs"),
    [(Branches(6), 6, 1), (Branches(6, groups=3), 6, 1), (Collapsible(4, 30, 5), 4, 1)],
    ids=["repvgg", "repvgg grouped", "sesr"],
)
@torch.no_grad()
def test_branches_and_collapsible_blocks(model: nn.Module, channels: int, convs: int) -> None:
    network = lived_in(nn.Sequential(model, nn.Conv2d(channels, 2, 1))).double()
    x = images(2, channels, 9, 12, dtype=torch.float64)
    found = plan(network, x, ONLY)
    merged = apply(network, found, x)
    torch.testing.assert_close(merged(x), network(x), rtol=0, atol=1e-10)
    inside = [module for module in merged[0].modules() if isinstance(module, nn.Conv2d)]
    assert len(inside) == convs
    assert not any(isinstance(module, BorderedConv) for module in merged.modules()), "no bias meets a padding"
    assert inside[0].groups == (3 if isinstance(model, Branches) and model.wide[0].groups == 3 else 1)


def _chain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(4, 3, 1))


@torch.no_grad()
def test_a_chain_is_cut_where_it_costs_least() -> None:
    # 1x1 narrowing then 1x1 widening stays two; the widening 1x1 and the 3x3 that narrows again become one
    network = lived_in(_chain(nn.Conv2d(12, 2, 1), nn.Dropout(0.2), nn.Conv2d(2, 20, 1), nn.Conv2d(20, 4, 3)))
    x = images(1, 12, 7, 9)
    found = plan(network, x, ONLY)
    assert [rewrite.layers for rewrite in found.rewrites] == [("2", "3")]
    merged = apply(network, found, x)
    assert (merged(x) - network(x)).abs().max() < 1e-4
    assert merged[2].weight.shape == (4, 2, 3, 3)
    assert isinstance(merged[3], nn.Identity)


@torch.no_grad()
def test_two_padded_kernels_do_not_merge_until_the_padding_is_moved() -> None:
    network = lived_in(_chain(nn.Conv2d(6, 2, 3, padding=1), nn.Conv2d(2, 4, 3, stride=2, padding=1)))
    x = images(2, 6, 8, 10)
    with pytest.raises(BadInput, match=r"nothing to save.*pad_first"):
        plan(network, x, [partial(merge_linear.find, most_macs=10)])
    found = plan(network, x, ["pad_first", partial(merge_linear.find, most_macs=10)])
    assert found.trains
    moved = apply(network, Plan(**{**dict(found), "rewrites": found.rewrites[:1]}), x)
    merged = apply(network, found, x)
    assert moved(x).shape == network(x).shape
    assert (moved(x) - network(x)).abs().max() > 0.1, "borders change, so training must follow"
    assert (merged(x) - moved(x)).abs().max() < 1e-4
    assert merged[0].kernel_size == (5, 5)
    assert merged[0].padding == (2, 2)
    assert merged[0].stride == (2, 2)


def test_what_would_grow_is_left_alone_by_name() -> None:
    network = _chain(nn.Conv2d(12, 2, 1), nn.Conv2d(2, 4, 1))
    with pytest.raises(BadInput, match=r"0, 1: as one convolution it would have 3,024 MACs instead of 2,016"):
        plan(network, torch.zeros(1, 12, 7, 9), ONLY)


def test_what_is_read_twice_is_left_alone_by_name() -> None:
    network = nn.Sequential(ReadTwice(), nn.Conv2d(5, 9, 1), nn.Conv2d(9, 2, 1))
    found = plan(network, torch.zeros(1, 3, 7, 9), ONLY)
    assert [rewrite.layers for rewrite in found.rewrites] == [("1", "2")]
    assert [(one.layers, "read by 2 others" in one.why) for one in found.declined] == [(("0.conv", "0.norm"), True)]


@torch.no_grad()
def test_a_merged_block_ships_with_its_border_as_a_constant(tmp_path: Path) -> None:
    block, x = lived_in(nn.Sequential(Inverted(4, 24, 4, 3, 1), nn.ReLU6())), images(1, 4, 9, 12)
    merged = apply(block, plan(block, x), x)
    export_onnx(merged, (4, 9, 12), tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"input": x.numpy()})
    assert (torch.from_numpy(got) - block(x)).abs().max() < 1e-4
    graph = onnx.load(tmp_path / "x.onnx").graph
    assert [node.op_type for node in graph.node] == ["Conv", "Add", "Clip"]
