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
    """One such map, weights in float64. border: None where there is none, whatever the weights are.
    padding: zeros above and to the left; how many there are below and to the right follows from the output's size.
    pads: whether there are zeros at all, along each axis."""

    kernel: Tensor
    bias: Tensor
    border: Tensor | None
    stride: Pair
    padding: Pair
    pads: tuple[bool, bool]

    @property
    def size(self) -> Pair:
        return self.kernel.shape[2], self.kernel.shape[3]


@dataclass(frozen=True)
class Layer:
    """One convolution as it stands in a network. weight: (M, C_in / groups, k_h, k_w), dilation worked in.
    source, result: sides (H, W) of what it reads and gives.   padding: above, left.   pads: zeros anywhere."""

    weight: Tensor
    bias: Tensor | None
    stride: Pair
    padding: Pair
    groups: int
    source: Pair
    result: Pair
    pads: tuple[bool, bool]


def identity(channels: int, like: Tensor) -> Affine:
    """f(x) = x."""
    kernel = torch.eye(channels, dtype=torch.float64, device=like.device)[:, :, None, None]
    zeros = torch.zeros(channels, dtype=torch.float64, device=like.device)
    return Affine(kernel, zeros, None, (1, 1), (0, 0), (False, False))


def inexact(first: Layer, then: Affine) -> str | None:
    """Why `first` and `then` are no single convolution at the borders; None where they are."""
    constant = any(then.pads) and (first.bias is not None or then.border is not None)
    for axis, name in enumerate(("rows", "columns")):
        kernel, stride, padding = first.weight.shape[2 + axis], first.stride[axis], first.padding[axis]
        source, result = first.source[axis], first.result[axis]
        computes = then.pads[axis] and (kernel > stride + padding or result * stride - padding < source)
        # A channel of ones for what `first` gives must be one of its own reads: that at u = padding.
        edge = (result - 1) * stride >= source or (then.pads[axis] and result * stride < source)
        if computes or (constant and (padding >= kernel or edge)):
            return (
                f"what follows pads its {name} with zeros where a merged kernel would go on computing; move the "
                "padding to the first convolution (pad_first) and train, then it merges"
            )
    return None


def before(first: Layer, then: Affine) -> Affine:
    """`first`, then `then`: see the top of this file. Exact where `inexact` says None."""
    weight = first.weight.double()
    kernel = _through(then.kernel, weight, first)
    stride = first.stride[0] * then.stride[0], first.stride[1] * then.stride[1]
    padding = tuple(first.padding[axis] + first.stride[axis] * then.padding[axis] for axis in (0, 1))
    bias, inner = then.bias, then.border
    if first.bias is not None:
        constant = torch.einsum("omuv,m->ouv", then.kernel, first.bias.double())
        if any(then.pads):
            inner = constant if inner is None else inner + constant
        else:
            bias = bias + constant.sum((1, 2))
    border = None
    if inner is not None:
        border = _moved(inner, first, (kernel.shape[2], kernel.shape[3]))
    pads = first.pads[0] or then.pads[0], first.pads[1] or then.pads[1]
    return Affine(kernel, bias, border, stride, (padding[0], padding[1]), pads)


def _through(kernel: Tensor, weight: Tensor, first: Layer) -> Tensor:
    """K_B through K_A, as at the top of this file; by plain products where one of them is 1x1, ten times as quick."""
    one_to_one = first.groups == weight.shape[0] and weight.shape[1] == 1
    if one_to_one and (kernel.shape[2:] == (1, 1) or (weight.shape[2:] == (1, 1) and first.stride == (1, 1))):
        return kernel * weight[:, 0]
    if first.groups == 1 and weight.shape[2:] == (1, 1) and first.stride == (1, 1):
        return torch.einsum("omuv,mi->oiuv", kernel, weight[:, :, 0, 0])
    if first.groups == 1 and kernel.shape[2:] == (1, 1):
        return torch.einsum("om,miuv->oiuv", kernel[:, :, 0, 0], weight)
    return functional.conv_transpose2d(kernel, weight, stride=first.stride, groups=first.groups)


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
    pads = one.pads[0] or other.pads[0], one.pads[1] or other.pads[1]
    return Affine(kernels[0] + kernels[1], one.bias + other.bias, border, one.stride, padding, pads)


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

    def __init__(self, conv: nn.Conv2d, border: Tensor, pads: tuple[int, int, int, int] | None) -> None:
        super().__init__()
        self.conv = conv
        self.border = nn.Parameter(border)
        self.pads = pads  # left, right, above, below, where the convolution does not pad itself

    def forward(self, x: Tensor) -> Tensor:
        ones = torch.ones((1, 1, x.shape[2], x.shape[3]), dtype=self.border.dtype, device=self.border.device)
        if self.pads:
            x, ones = functional.pad(x, self.pads), functional.pad(ones, self.pads)
        constant = functional.conv2d(ones, self.border.unsqueeze(1), None, self.conv.stride, self.conv.padding)  # pyright: ignore[reportArgumentType]
        return self.conv(x) + constant


def as_module(
    map_: Affine, groups: int, dtype: torch.dtype, source: Pair, result: Pair, *, learns: bool = True
) -> nn.Module:
    """The map as a layer, in `groups` groups, of which it must be made up.

    source, result: sides of input and output. Where they ask for other zeros below and right than above and left, the
    layer pads for this size only; any other layer serves all sizes.
    Errors: ValueError where no padding gives that output.
    """
    even = all((source[a] + 2 * map_.padding[a] - map_.size[a]) // map_.stride[a] + 1 == result[a] for a in (0, 1))
    ends = [(result[a] - 1) * map_.stride[a] + map_.size[a] - map_.padding[a] - source[a] for a in (0, 1)]
    if not even and any(-end >= map_.stride[a] for a, end in enumerate(ends)):
        raise ValueError("its branches pad so that one convolution would give another size")
    pads = None if even else (map_.padding[1], max(0, ends[1]), map_.padding[0], max(0, ends[0]))
    width, channels = map_.kernel.shape[:2]
    each, reads = width // groups, channels // groups
    blocks = [map_.kernel[g * each : (g + 1) * each, g * reads : (g + 1) * reads] for g in range(groups)]
    conv = nn.Conv2d(
        channels, width, map_.size, map_.stride, map_.padding if even else 0, groups=groups, device="meta", dtype=dtype
    )  # on no device: first weights would be drawn from the global random state
    conv.weight = nn.Parameter(torch.cat(blocks).to(dtype), requires_grad=learns)
    conv.bias = nn.Parameter(map_.bias.to(dtype), requires_grad=learns)
    if map_.border is not None:
        return BorderedConv(conv, map_.border.to(dtype), pads).requires_grad_(learns)
    return conv if pads is None else nn.Sequential(nn.ZeroPad2d(pads), conv)


def num_operators(merged: nn.Module) -> int:
    """The steps that such a layer has in a wiring: the convolution, its border's addition, a padding of its own."""
    if isinstance(merged, BorderedConv):
        return 3 if merged.pads else 2
    return len(merged) if isinstance(merged, nn.Sequential) else 1
