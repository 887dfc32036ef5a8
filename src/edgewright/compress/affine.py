r"""Convolutions that follow each other as one: the algebra, borders included.

Every map here is

    f(x) = conv([x; 1], [K; c]; stride, padding) + b

K: kernel (C_out, C_in, k_h, k_w).   c: *border kernel* (C_out, k_h, k_w), which sees a channel of ones that the padding
continues with zeros: what it adds depends only on how much of the kernel lies inside the image.   b: (C_out,).

A then B, with strides s_A, s_B and paddings p_A, p_B, along each axis:

    K[o, i, s_A v + u] = sum over m, v, u of  K_B[o, m, v] K_A[m, i, u]         k = k_A + s_A (k_B - 1)
    stride s_A s_B,  padding p_A + s_A p_B
    c likewise from c_A; and the bias b_A under B's kernel goes
        to b, all of it, where B does not pad;
        to c at s_A v + p_A where it does: B's padding holds zeros, not b_A.

Where B pads, this is exact if A's kernel would give zero at every place that the padding stands for, to the left

    k_A <= s_A + p_A      and to the right      n s_A - p_A >= N       (A makes n numbers of N)

so after a 1x1 convolution always, and after a padded 3x3 of stride 1 never: there no single convolution is exact.
Residuals are sums of two such maps of equal stride; the smaller kernel is laid into the larger one.

Source: derived here; in the interior it is what Fu et al., "DepthShrinker", ICML 2022, arXiv:2206.00843 and Bhardwaj
et al., "SESR", MLSys 2022, arXiv:2103.09404 describe. Checked against: the layers one after the other, in float64, to
1e-10 everywhere (tests/compress/test_affine.py).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

Pair = tuple[int, int]


@dataclass(frozen=True)
class Affine:
    """One such map, weights in float64. border: None where there is none, whatever the weights are."""

    kernel: Tensor
    bias: Tensor
    border: Tensor | None
    stride: Pair
    padding: Pair

    @property
    def size(self) -> Pair:
        return self.kernel.shape[2], self.kernel.shape[3]


@dataclass(frozen=True)
class Layer:
    """One convolution as it stands in a network. weight: (M, C_in / groups, k_h, k_w), dilation worked in.
    source, result: sides (H, W) of what it reads and gives."""

    weight: Tensor
    bias: Tensor | None
    stride: Pair
    padding: Pair
    groups: int
    source: Pair
    result: Pair


def identity(channels: int, like: Tensor) -> Affine:
    """f(x) = x."""
    kernel = torch.eye(channels, dtype=torch.float64, device=like.device)[:, :, None, None]
    zeros = torch.zeros(channels, dtype=torch.float64, device=like.device)
    return Affine(kernel, zeros, None, (1, 1), (0, 0))


def inexact(first: Layer, then: Affine) -> str | None:
    """Why `first` and `then` are no single convolution at the borders; None where they are."""
    constant = any(then.padding) and (first.bias is not None or then.border is not None)
    for axis, name in enumerate(("rows", "columns")):
        kernel, stride, padding = first.weight.shape[2 + axis], first.stride[axis], first.padding[axis]
        source, result = first.source[axis], first.result[axis]
        computes = then.padding[axis] and (kernel > stride + padding or result * stride - padding < source)
        # A channel of ones for what `first` gives must be one of its own reads: that at u = padding.
        edge = (result - 1) * stride >= source or (then.padding[axis] and result * stride < source)
        if computes or (constant and (padding >= kernel or edge)):
            return (
                f"what follows pads its {name} with zeros where a merged kernel would go on computing; move the "
                "padding to the first convolution (pad_first) and train, then it merges"
            )
    return None


def before(first: Layer, then: Affine) -> Affine:
    """`first`, then `then`: see the top of this file. Exact where `inexact` says None."""
    weight = first.weight.double()
    kernel = functional.conv_transpose2d(then.kernel, weight, stride=first.stride, groups=first.groups)
    stride = first.stride[0] * then.stride[0], first.stride[1] * then.stride[1]
    padding = tuple(first.padding[axis] + first.stride[axis] * then.padding[axis] for axis in (0, 1))
    bias, inner = then.bias, then.border
    if first.bias is not None:
        constant = torch.einsum("omuv,m->ouv", then.kernel, first.bias.double())
        if any(then.padding):
            inner = constant if inner is None else inner + constant
        else:
            bias = bias + constant.sum((1, 2))
    border = None
    if inner is not None:
        border = _moved(inner, first, (kernel.shape[2], kernel.shape[3]))
    return Affine(kernel, bias, border, stride, (padding[0], padding[1]))


def _moved(inner: Tensor, first: Layer, size: Pair) -> Tensor:
    """A border kernel on what `first` gives as one on what it reads: ones are there where its reads at u = p are."""
    delta = torch.zeros(1, 1, *first.weight.shape[2:], dtype=torch.float64, device=inner.device)
    delta[0, 0, first.padding[0], first.padding[1]] = 1
    moved = functional.conv_transpose2d(inner[:, None], delta, stride=first.stride)[:, 0]
    assert moved.shape[1:] == size
    return moved


def together(one: Affine, other: Affine) -> Affine | None:
    """The sum of two maps of the same input; None where their strides differ."""
    if one.stride != other.stride:
        return None
    padding = max(one.padding[0], other.padding[0]), max(one.padding[1], other.padding[1])
    size = tuple(padding[axis] + max(part.size[axis] - part.padding[axis] for part in (one, other)) for axis in (0, 1))
    kernels = [_laid(part.kernel, part, padding, size) for part in (one, other)]
    borders = [_laid(part.border, part, padding, size) for part in (one, other) if part.border is not None]
    border = sum(borders[1:], borders[0]) if borders else None
    return Affine(kernels[0] + kernels[1], one.bias + other.bias, border, one.stride, padding)


def _laid(kernel: Tensor, part: Affine, padding: Pair, size: tuple[int, ...]) -> Tensor:
    top, left = padding[0] - part.padding[0], padding[1] - part.padding[1]
    return functional.pad(kernel, (left, size[1] - left - part.size[1], top, size[0] - top - part.size[0]))


def without_constant(map_: Affine) -> Affine:
    """The linear part."""
    return replace(map_, bias=torch.zeros_like(map_.bias), border=None)


class BorderedConv(nn.Module):
    """A convolution whose constant differs near the borders: conv(x, K) + conv(1, c) + b; (B, C, H, W) of any size.

    conv(1, c) is made of parameters alone; runtimes fold it into a constant of the output's shape.
    """

    def __init__(self, conv: nn.Conv2d, border: Tensor) -> None:
        super().__init__()
        self.conv = conv
        self.border = nn.Parameter(border)

    def forward(self, x: Tensor) -> Tensor:
        ones = torch.ones((1, 1, x.shape[2], x.shape[3]), dtype=self.border.dtype, device=self.border.device)
        constant = functional.conv2d(ones, self.border.unsqueeze(1), None, self.conv.stride, self.conv.padding)  # pyright: ignore[reportArgumentType]
        return self.conv(x) + constant


def as_module(map_: Affine, groups: int, dtype: torch.dtype, *, learns: bool = True) -> nn.Module:
    """The map as a layer, in `groups` groups, of which it must be made up."""
    width, source = map_.kernel.shape[:2]
    each, reads = width // groups, source // groups
    blocks = [map_.kernel[g * each : (g + 1) * each, g * reads : (g + 1) * reads] for g in range(groups)]
    conv = nn.Conv2d(
        source, width, map_.size, map_.stride, map_.padding, groups=groups, device="meta", dtype=dtype
    )  # on no device: first weights would be drawn from the global random state
    conv.weight = nn.Parameter(torch.cat(blocks).to(dtype), requires_grad=learns)
    conv.bias = nn.Parameter(map_.bias.to(dtype), requires_grad=learns)
    module = conv if map_.border is None else BorderedConv(conv, map_.border.to(dtype))
    return module.requires_grad_(learns)
