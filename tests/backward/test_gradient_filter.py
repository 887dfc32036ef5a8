"""Filtered gradients are those of the formulas, written out as loops; exact and unbiased where they should be."""

from math import ceil
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.backward.account import measure_kept, predict_kept, total
from edgewright.backward.base import swapped
from edgewright.backward.rules.gradient_filter import GradientFilter
from edgewright.backward.survey import survey
from edgewright.core.errors import BadInput


def run(conv: nn.Module, x: Tensor, g: Tensor, rule: GradientFilter) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of input, weight and bias for the output gradient g."""
    x = x.detach().requires_grad_()
    parameters = list(conv.parameters())
    with swapped(nn.Sequential(conv), {"0": rule}):
        found = torch.autograd.grad(conv(x), [x, *parameters], g)
    return found[0], found[1], found[2] if len(found) > 2 else None


def patches(pixels: int, count: int, size: int) -> list[range]:
    """The pixels of each patch: the first begins ceil((count * size - pixels) / 2) outside."""
    first = -ceil((count * size - pixels) / 2)
    return [range(max(first + i * size, 0), min(first + (i + 1) * size, pixels)) for i in range(count)]


def naive(conv: Any, x: Tensor, g: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """The formulas of the module's docstring for 2-d kernels without dilation, one patch at a time."""
    s, groups = conv.stride[0], conv.groups
    step = s if conv.kernel_size == (1, 1) else 1  # pixels that a 1x1 kernel does not read do not count
    full, x, s = x, x[:, :, ::step, ::step], s // step
    weight = conv.weight.detach().double().sum((2, 3)).view(groups, -1, conv.in_channels // groups)
    gx, gw = torch.zeros_like(x), torch.zeros_like(weight)
    rows, columns = ceil(g.shape[2] / r), ceil(g.shape[3] / r)
    down = zip(patches(g.shape[2], rows, r), patches(x.shape[2], rows, r * s), strict=True)
    for out_rows, in_rows in list(down):
        across = zip(patches(g.shape[3], columns, r), patches(x.shape[3], columns, r * s), strict=True)
        for out_columns, in_columns in across:
            for n in range(len(x)):
                pixels = [g[n, :, i, j] for i in out_rows for j in out_columns]
                mean = torch.stack(pixels).mean(0).view(groups, -1)
                window = torch.zeros(x.shape[1], dtype=x.dtype)
                for i in in_rows:
                    for j in in_columns:
                        window += x[n, :, i, j]
                        gx[n, :, i, j] = torch.einsum("goi,go->gi", weight, mean).flatten() / s**2
                gw += torch.einsum("go,gi->goi", mean, window.view(groups, -1)) / s**2
    spread = torch.zeros_like(full)
    spread[:, :, ::step, ::step] = gx
    return spread, gw.view(conv.weight.shape[:2])[:, :, None, None].expand(conv.weight.shape)


SIZES = [(7, 14), (14, 15), (15, 28), (28, 7)]
KERNELS: dict[str, dict[str, Any]] = {
    "dense": {"in_channels": 3, "out_channels": 5, "kernel_size": 3, "padding": 1},
    "1x1": {"in_channels": 3, "out_channels": 4, "kernel_size": 1, "bias": False},
    "depthwise": {"in_channels": 4, "out_channels": 4, "kernel_size": (3, 5), "padding": (1, 2), "groups": 4},
    "depthwise doubled": {"in_channels": 3, "out_channels": 6, "kernel_size": 5, "padding": 2, "groups": 3},
    "grouped": {"in_channels": 6, "out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 2},
    "unpadded": {"in_channels": 2, "out_channels": 3, "kernel_size": 5},
    "padded more": {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "padding": 4, "bias": False},
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("r", [1, 2, 4, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_are_those_of_the_loops(kernel: str, stride: int, r: int, layout: torch.memory_format) -> None:
    random = torch.Generator().manual_seed(r)
    conv = nn.Conv2d(**KERNELS[kernel], stride=stride).double().to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    for height, width in SIZES:
        x = torch.randn(2, conv.in_channels, height, width, generator=random, dtype=torch.float64)
        x = x.to(memory_format=layout)
        g = torch.randn(conv(x).shape, generator=random, dtype=torch.float64).to(memory_format=layout)
        gx, gw, gb = run(conv, x, g, GradientFilter(r))
        wanted_gx, wanted_gw = naive(conv, x, g, r)
        torch.testing.assert_close(gx, wanted_gx)
        torch.testing.assert_close(gw, wanted_gw)
        assert gx.is_contiguous(memory_format=layout) and gw.is_contiguous(memory_format=layout)
        if gb is not None:
            torch.testing.assert_close(gb, g.sum((0, 2, 3)))


@pytest.mark.parametrize(("r", "height", "width"), [(1, 5, 7), (2, 6, 4), (4, 8, 12), (7, 14, 7)])
def test_a_1x1_kernel_is_exact_where_the_gradient_is_constant_in_patches(r: int, height: int, width: int) -> None:
    conv, x = nn.Conv2d(5, 3, 1), torch.randn(2, 5, height, width)
    few = torch.randn(2, 3, height // r, width // r)
    g = functional.interpolate(few, scale_factor=r)
    x.requires_grad_()
    for ours, exact in zip(
        run(conv, x, g, GradientFilter(r)), torch.autograd.grad(conv(x), [x, *conv.parameters()], g), strict=True
    ):
        torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"kernel_size": 1, "stride": 2}, {"kernel_size": 1, "stride": 3, "padding": 1}])
def test_a_strided_1x1_kernel_is_exact_with_patches_of_one(options: dict[str, Any]) -> None:
    conv, x = nn.Conv2d(4, 6, **options), torch.randn(2, 4, 9, 14, requires_grad=True)
    g = torch.randn(conv(x).shape)
    exact = torch.autograd.grad(conv(x), [x, *conv.parameters()], g)
    for ours, theirs in zip(run(conv, x, g, GradientFilter(1)), exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("r", [2, 4, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_constant_tensors_give_the_true_sums(stride: int, r: int, groups: int) -> None:
    """Up to the taps that reach beyond the border."""
    conv = nn.Conv2d(8, 8, 3, stride, 1, groups=groups)
    with torch.no_grad():
        conv.weight.copy_(torch.rand_like(conv.weight) + 0.1)
    x, g = torch.full((2, 8, 28, 56), 0.7, requires_grad=True), torch.full((2, 8, 28 // stride, 56 // stride), 0.3)
    exact = torch.autograd.grad(conv(x), [x, conv.weight], g)
    gx, gw, _ = run(conv, x, g, GradientFilter(r))
    assert float(gx.sum() / exact[0].sum()) == pytest.approx(1, abs=0.06)
    assert float(gw.sum() / exact[1].sum()) == pytest.approx(1, abs=0.06)


def test_smooth_tensors_give_nearly_the_true_gradients() -> None:
    conv = nn.Conv2d(16, 32, 3, padding=1, bias=False)
    random = torch.Generator().manual_seed(1)
    x, g = (
        functional.interpolate(torch.randn(2, c, 4, 4, generator=random), (28, 28), mode="bicubic") for c in (16, 32)
    )
    x.requires_grad_()
    exact = torch.autograd.grad(conv(x), [x, conv.weight], g)
    closeness = []
    for r in (2, 4, 7):
        gx, gw, _ = run(conv, x, g, GradientFilter(r))
        pairs = ((gx, exact[0]), (gw, exact[1]))
        closeness.append([float(functional.cosine_similarity(a.flatten(), b.flatten(), 0)) for a, b in pairs])
    assert closeness[0][0] > closeness[1][0] > closeness[2][0] > 0.8 and min(c[1] for c in closeness) > 0.9


def test_taps_that_are_patches_apart_are_kept_apart() -> None:
    """On patches, dilation 2r is dilation 2; with g and x constant in patches the sums are exact."""
    r = 3
    conv, small = nn.Conv2d(4, 6, 3, dilation=2 * r, padding=2 * r), nn.Conv2d(4, 6, 3, dilation=2, padding=2)
    small.load_state_dict(conv.state_dict())
    few, g_few = torch.randn(2, 4, 5, 7, requires_grad=True), torch.randn(2, 6, 5, 7)
    wanted = torch.autograd.grad(small(few), [few, small.weight], g_few)
    x, g = (functional.interpolate(t.detach(), scale_factor=r) for t in (few, g_few))
    gx, gw, _ = run(conv, x, g, GradientFilter(r))
    torch.testing.assert_close(gx, functional.interpolate(wanted[0], scale_factor=r), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gw, wanted[1] * r**2, rtol=1e-4, atol=1e-4)


def test_one_and_three_dimensions_are_slices_of_two() -> None:
    x, g = torch.randn(2, 4, 15), torch.randn(2, 6, 8)
    flat = nn.Conv1d(4, 6, 3, stride=2, padding=1)
    deep = nn.Conv3d(4, 6, (1, 1, 3), stride=(1, 1, 2), padding=(0, 0, 1))
    deep.load_state_dict({"weight": flat.weight[:, :, None, None], "bias": flat.bias})
    wide = nn.Conv2d(4, 6, (1, 3), stride=(1, 2), padding=(0, 1))
    wide.load_state_dict({"weight": flat.weight[:, :, None], "bias": flat.bias})
    one = run(flat, x, g, GradientFilter(2))
    repeated = x[:, :, None, None].expand(-1, -1, 4, 2, -1), g[:, :, None, None].expand(-1, -1, 4, 2, -1)
    three = run(deep, *repeated, GradientFilter(2))
    two = run(wide, repeated[0][:, :, 0], repeated[1][:, :, 0], GradientFilter(2))
    for first, second, third in zip(one, two, three, strict=True):
        assert first is not None and second is not None and third is not None
        if first.dim() == 3 and len(first) == 2:  # the input's
            torch.testing.assert_close(second[:, :, 0], first, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(third[:, :, 0, 0], first, rtol=1e-4, atol=1e-5)
        else:
            torch.testing.assert_close(second.flatten(), first.flatten() * 2, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(third.flatten(), first.flatten() * 8, rtol=1e-4, atol=1e-5)


def test_the_inputs_gradient_can_stay_exact() -> None:
    conv, x = nn.Conv2d(4, 6, 3, stride=2, padding=1), torch.randn(2, 4, 9, 13, requires_grad=True)
    g = torch.randn(conv(x).shape)
    (exact,) = torch.autograd.grad(conv(x), x, g)
    gx, gw, gb = run(conv, x, g, GradientFilter(2, filter_input=False))
    torch.testing.assert_close(gx, exact, rtol=1e-4, atol=1e-5)
    _, filtered, bias = run(conv, x, g, GradientFilter(2))
    torch.testing.assert_close(gw, filtered, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gb, bias, rtol=1e-4, atol=1e-5)


class Standardised(nn.Conv2d):
    """A convolution whose weight is made from a parameter."""

    def forward(self, input: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return functional.conv2d(input, weight, self.bias, self.stride, self.padding)


def test_it_composes_with_a_weight_that_is_computed() -> None:
    layer, x = Standardised(4, 8, 3, padding=1), torch.randn(2, 4, 8, 12, requires_grad=True)
    g = torch.randn(2, 8, 8, 12)
    weight = ((layer.weight - layer.weight.mean()) / layer.weight.std()).detach()
    plain = nn.Conv2d(4, 8, 3, padding=1)
    plain.load_state_dict({"weight": weight, "bias": layer.bias})
    gx, inner, _ = run(plain, x, g, GradientFilter(2))
    ours = run(layer, x, g, GradientFilter(2))
    parameter = layer.weight.detach().requires_grad_()
    ((parameter - parameter.mean()) / parameter.std()).backward(inner)
    torch.testing.assert_close(ours[0], gx, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[1], parameter.grad, rtol=1e-4, atol=1e-5)
    model = nn.Sequential(layer)
    with swapped(model, {"0": GradientFilter(2)}):
        assert predict_kept(model, x) == measure_kept(model, x)


@pytest.mark.parametrize(("r", "stride"), [(2, 1), (2, 2), (4, 1), (7, 2)])
def test_what_is_kept_shrinks_by_the_windows_area(r: int, stride: int) -> None:
    model = nn.Sequential(nn.Conv2d(5, 7, 3, stride, 1, bias=False))
    x = torch.randn(3, 5, 28, 56)
    (site,) = survey(model, x)
    with swapped(model, {"0": GradientFilter(r)}):
        assert total(measure_kept(model, x)) == x.numel() * 4 // (r * stride) ** 2
        assert total(predict_kept(model, x)) == x.numel() * 4 // (r * stride) ** 2
    assert GradientFilter(r).stored_bytes(site.calls[0], (True, True, False)) == x.numel() * 4 // (r * stride) ** 2
    assert GradientFilter(r).stored_bytes(site.calls[0], (True, False, False)) == 0


def test_multiply_adds_shrink_by_patch_and_kernel() -> None:
    (site,) = survey(nn.Sequential(nn.Conv2d(64, 32, 3, padding=1)), torch.empty(2, 64, 28, 56))
    call, needs = site.calls[0], (True, True, True)
    adds = 2 * 28 * 56 * (64 + 32) + 64 * 32 * 9
    assert GradientFilter(4).macs(call, needs) == 2 * call.macs() // (16 * 9) + adds
    weight_only = GradientFilter(4, filter_input=False).macs(call, needs)
    assert weight_only == call.macs() + call.macs() // (16 * 9) + 2 * 28 * 56 * (64 + 32)


def test_a_patch_of_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="patch 0"):
        GradientFilter(0)
