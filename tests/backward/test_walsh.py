"""LBP-WHT against a loop over masks, against autograd with all bases, and the figures that the theory gives."""

import copy
from math import ceil, sqrt

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from torch import Tensor, nn
from torch.nn import functional

from edgewright.backward.account import measure_kept, predict_kept
from edgewright.backward.base import swapped
from edgewright.backward.calls import as_call
from edgewright.backward.rules.walsh import Walsh, walsh
from edgewright.core.errors import BadInput

ALL = 15  # the order with all 64 bases
COUNT = {1: 1, 2: 3, 4: 10, 6: 21, 8: 36, ALL: 64}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradients(layer: nn.Module, x: Tensor, g: Tensor, rule: Walsh | None) -> list[Tensor]:
    """Of the input, the weight and the bias."""
    x = x.detach().requires_grad_()
    with swapped(nn.ModuleDict({"layer": layer}), {"layer": rule} if rule else {}):
        return list(torch.autograd.grad(layer(x), [x, *layer.parameters()], g))


def looped(x: Tensor, g: Tensor, weight: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """The paper's formula, one mask after the other: sums of x, means of g. x, g [B, h, w, C], sides multiples of 8."""
    w = torch.tensor(walsh(), dtype=x.dtype)
    gx, gw = torch.zeros_like(x), torch.zeros_like(weight)
    for image in range(len(x)):
        for i in range(0, x.shape[1], 8):
            for j in range(0, x.shape[2], 8):
                part = (image, slice(i, i + 8), slice(j, j + 8))
                for r in range(8):
                    for c in range(8):
                        if r + c < order:
                            mask = torch.outer(w[r], w[c])[:, :, None]
                            xk, gk = (x[part] * mask).sum((0, 1)), (g[part] * mask).mean((0, 1))
                            gx[part] += mask * (gk @ weight)
                            gw += torch.outer(gk, xk)
    return gx, gw


def cosine(a: Tensor, b: Tensor) -> float:
    return float(functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def smooth(*shape: int, pixels: float, seed: int) -> Tensor:
    """Noise [B, h, w, C] under a Gaussian of this width."""
    x = noise(*shape, seed=seed).permute(0, 3, 1, 2)
    at = torch.arange(-3 * int(pixels), 3 * int(pixels) + 1).float()
    kernel = torch.exp(-0.5 * (at / pixels) ** 2).expand(shape[-1], 1, 1, -1)
    wide = functional.conv2d(x, kernel, padding="same", groups=shape[-1])
    return functional.conv2d(wide, kernel.transpose(2, 3), padding="same", groups=shape[-1]).permute(0, 2, 3, 1)


@pytest.mark.parametrize("size", [2, 4, 8, 32])
def test_the_walsh_matrix_is_hadamards_by_sign_changes(size: int) -> None:
    rows = hadamard(size)
    changes = (np.diff(rows, axis=1) != 0).sum(1)
    assert np.array_equal(walsh(size), rows[np.argsort(changes)])


@pytest.mark.parametrize("order", COUNT)
def test_linear_layers_and_1x1_convolutions_equal_the_loop_over_masks(order: int) -> None:
    x, g = noise(2, 16, 8, 5, dtype=torch.float64), noise(2, 16, 8, 7, seed=1, dtype=torch.float64)
    linear, conv = nn.Linear(5, 7).double(), nn.Conv2d(5, 7, 1).double()
    gx, gw = looped(x, g, linear.weight.detach(), order)
    rule, flat = Walsh(order), Walsh(order, grid=(16, 8))
    with torch.no_grad():
        conv.weight.copy_(linear.weight.view(7, 5, 1, 1))
    across, back = x.permute(0, 3, 1, 2), g.permute(0, 3, 1, 2)
    found = [
        gradients(linear, x, g, rule),
        gradients(linear, x.flatten(1, 2), g.flatten(1, 2), flat),
        gradients(conv, across, back, rule),
        gradients(conv, across.contiguous(), back.contiguous(), rule),
        gradients(conv, across, back.contiguous(), rule),
    ]
    for ours in found:
        inner = ours[0].permute(0, 2, 3, 1) if ours[1].dim() == 4 else ours[0].view(2, 16, 8, 5)
        torch.testing.assert_close(inner, gx, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(ours[1].view(7, 5), gw, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(ours[2], g.sum((0, 1, 2)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("grid", [(7, 7), (14, 14), (16, 16), (3, 5), (4, 4), (15, 9), (1, 17), (14, 11)])
@pytest.mark.parametrize("kind", ["linear", "classes", "images", "channels_last", "strided"])
def test_all_bases_are_exact_at_any_size(grid: tuple[int, int], kind: str) -> None:
    h, w = grid
    if kind in ("linear", "classes"):
        layer: nn.Module = nn.Linear(6, 9)
        extra = 3 if kind == "classes" else 0
        x, g, rule = noise(3, h * w + extra, 6), noise(3, h * w + extra, 9, seed=1), Walsh(ALL, grid=grid)
    else:
        stride = (2, 3) if kind == "strided" else 1
        layer, rule = nn.Conv2d(6, 9, 1, stride=stride), Walsh(ALL)
        x = noise(3, 6, h, w)
        if kind == "channels_last":
            x = x.contiguous(memory_format=torch.channels_last)
        g = torch.empty_like(layer(x)).copy_(noise(*layer(x).shape, seed=1))
    for ours, exact in zip(gradients(layer, x, g, rule), gradients(layer, x, g, None), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-4)
        if kind != "strided":
            assert ours.stride() == exact.stride()


@pytest.mark.parametrize("grid", [(7, 7), (14, 14), (15, 9), (16, 8)])
@pytest.mark.parametrize("order", [2, 4, 8])
def test_few_bases_are_an_orthogonal_projection_that_keeps_constants(grid: tuple[int, int], order: int) -> None:
    eye = nn.Linear(4, 4, bias=False).double()
    nn.init.eye_(eye.weight)
    g = noise(2, *grid, 4, dtype=torch.float64)
    once = gradients(eye, g, g, Walsh(order))[0]
    torch.testing.assert_close(gradients(eye, g, once, Walsh(order))[0], once)
    assert abs(((g - once) * once).sum()) < 1e-9
    ones = torch.ones_like(g)
    torch.testing.assert_close(gradients(eye, g, ones, Walsh(order))[0], ones)


@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_on_white_noise_the_cosine_is_the_root_of_the_share_of_bases(order: int) -> None:
    layer = nn.Linear(48, 40)
    x, g = noise(8, 256, 48), noise(8, 256, 40, seed=1)
    ours, exact = gradients(layer, x, g, Walsh(order)), gradients(layer, x, g, None)
    for part in (0, 1):
        assert cosine(ours[part], exact[part]) == pytest.approx(sqrt(COUNT[order] / 64), abs=0.03)


@pytest.mark.parametrize("side", [7, 14, 16])
def test_on_smooth_activations_ten_bases_are_nearly_all(side: int) -> None:
    layer = nn.Linear(48, 40)
    x, g = smooth(8, side, side, 48, pixels=4, seed=0), smooth(8, side, side, 40, pixels=4, seed=1)
    ours, exact = gradients(layer, x, g, Walsh(4)), gradients(layer, x, g, None)
    assert cosine(ours[0], exact[0]) > 0.94 and cosine(ours[1], exact[1]) > 0.99


@pytest.mark.parametrize("order", [2, 4, 6, 8, ALL])
def test_what_is_kept_is_the_share_of_bases_and_predicted_to_the_byte(order: int) -> None:
    for model, x in (
        (nn.Sequential(nn.Linear(12, 20)), noise(2, 24 * 16, 12)),
        (nn.Sequential(nn.Conv2d(12, 20, 1)), noise(2, 12, 24, 16)),
    ):
        rule = Walsh(order, grid=(24, 16))
        with swapped(model, {"0": rule}):
            kept = measure_kept(model, x)
            assert kept == predict_kept(model, x)
        assert sum(one.bytes for one in kept) == x.numel() * 4 * COUNT[order] // 64
    model, x = nn.Sequential(nn.Linear(12, 20)), noise(2, 15 * 9 + 1, 12)
    rule = Walsh(order, grid=(15, 9))
    with swapped(model, {"0": rule}):
        (one,) = measure_kept(model, x)
    call, _ = as_call(functional.linear, (x, model[0].weight, model[0].bias), {})
    assert one.bytes == rule.stored_bytes(call, (False, True, True)) == predicted_ragged(order) * 2 * 12 * 4


def predicted_ragged(order: int) -> int:
    """15 x 9 and a class token: patches of 8 or 7 by 5 or 4."""
    bases = sum(r + c < order for r in range(8) for c in range(5))
    return ceil(15 / 8) * ceil(9 / 8) * bases + 1


def test_multiply_adds_are_counted_with_the_transforms() -> None:
    x, weight = noise(3, 256, 20), noise(30, 20)
    call, _ = as_call(functional.linear, (x, weight, None), {})
    rows = 4 * 10
    # sums of 2 x 2 tokens, then 10 bases of the 16 that are left of each of 4 patches
    transforms = (256 + 4 * 10 * 16) * (20 + 30 + 20)  # of x, of g, and back to gx
    assert Walsh(4).macs(call, (True, True, False)) == 3 * (rows * 20 * 30 * 2 + transforms)
    assert Walsh(4).macs(call, (False, False, True)) == 0


@pytest.mark.parametrize("tokens, extra", [(49, 0), (50, 1), (51, 2), (197, 1)])
def test_class_tokens_are_found_and_treated_densely(tokens: int, extra: int) -> None:
    layer = nn.Linear(5, 6)
    x, g = noise(2, tokens, 5), noise(2, tokens, 6, seed=1)
    ours, exact = gradients(layer, x, g, Walsh(2)), gradients(layer, x, g, None)
    torch.testing.assert_close(ours[0][:, :extra], exact[0][:, :extra], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours[0][:, extra:], exact[0][:, extra:])
    rest = gradients(layer, x[:, extra:], g[:, extra:], Walsh(2))
    torch.testing.assert_close(ours[0][:, extra:], rest[0], rtol=1e-4, atol=1e-5)
    classes = torch.einsum("bto,bti->oi", g[:, :extra], x[:, :extra])
    torch.testing.assert_close(ours[1], rest[1] + classes, rtol=1e-4, atol=1e-5)


def test_only_what_is_wanted_is_kept_and_made() -> None:
    layer, x = nn.Linear(5, 6), noise(2, 64, 5)
    layer.weight.requires_grad_(False)
    with swapped(nn.Sequential(layer), {"0": Walsh(4)}):
        assert measure_kept(layer, x) == ()
        layer(x).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is not None
    torch.testing.assert_close(layer.bias.grad, torch.full((6,), 128.0))
    with swapped(nn.Sequential(layer), {"0": Walsh(4)}):
        layer.zero_grad()
        layer(x.requires_grad_()).sum().backward()  # an expanded gradient
    torch.testing.assert_close(layer.bias.grad, torch.full((6,), 128.0))
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand_as(x))


@pytest.mark.parametrize("dtype, near", [(torch.bfloat16, 0.999), (torch.float16, 0.999)])
def test_autocast_and_large_activations(dtype: torch.dtype, near: float) -> None:
    layer = nn.Linear(16, 24)
    x, g = smooth(2, 16, 16, 16, pixels=4, seed=0), smooth(2, 16, 16, 24, pixels=4, seed=1)
    x = x * 5e3 / x.abs().max()  # sums of 64 of these would leave half precision
    full = gradients(layer, x, g, Walsh(4))
    with torch.autocast("cpu", dtype):
        half = gradients(layer, x, g.to(dtype) / 100, Walsh(4))
    for ours, whole in zip(half, full, strict=True):
        assert ours.dtype == torch.float32 and torch.isfinite(ours).all() and cosine(ours, whole) > near


def test_a_copy_trains_and_converges_as_dense_does() -> None:
    layer = nn.Linear(6, 4)
    x, goal = smooth(4, 8, 8, 6, pixels=4, seed=0), nn.Linear(6, 4)
    x = x / x.std()
    model = nn.Sequential(layer)
    with swapped(model, {"0": Walsh(2)}):
        twin = copy.deepcopy(model)
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.5)
        for _ in range(300):
            optimizer.zero_grad()
            loss = functional.mse_loss(twin(x), goal(x).detach())
            loss.backward()
            optimizer.step()
    assert loss < 1e-3  # pyright: ignore[reportPossiblyUnboundVariable]


@pytest.mark.parametrize(
    "layer, x, rule, says",
    [
        (nn.Linear(5, 6), (4, 5), Walsh(4), r"\[B, T, C\] or \[B, h, w, C\], not \[4, 5\]"),
        (nn.Linear(5, 6), (4, 24, 5), Walsh(4), "24 tokens.*give grid="),
        (nn.Linear(5, 6), (4, 24, 5), Walsh(4, grid=(5, 5)), "24 tokens, fewer than its grid of 5 x 5"),
        (nn.Conv2d(5, 6, 3), (4, 5, 8, 8), Walsh(4), "1x1 convolutions.*gradient filtering"),
        (nn.Conv2d(6, 6, 1, groups=2), (4, 6, 8, 8), Walsh(4), "without groups"),
        (nn.Conv1d(5, 6, 1), (4, 5, 8), Walsh(4), "1x1 convolutions of images"),
    ],
)
def test_what_it_cannot_do_is_said(layer: nn.Module, x: tuple[int, ...], rule: Walsh, says: str) -> None:
    with swapped(nn.Sequential(layer), {"0": rule}), pytest.raises(BadInput, match=says):
        layer(torch.zeros(x))


def test_options_are_checked() -> None:
    with pytest.raises(BadInput, match="order 16"):
        Walsh(16)
    with pytest.raises(BadInput, match="grid"):
        Walsh(4, grid=(0, 3))
