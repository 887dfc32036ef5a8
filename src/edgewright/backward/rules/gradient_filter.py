r"""Gradient filtering: a convolution's backward on patches in place of pixels.

The output gradient g is averaged over patches of r x r pixels, the input x over the windows of (r s) x (r s) pixels
under them (s: the stride). With all taps of the kernel in one patch, the backward is that of a 1x1 convolution on
ceil(Hy / r) x ceil(Wy / r) patches p (images are summed over, too):

    G[p] = mean of g in patch p               X[p] = sum of x in window p           Ws = sum of W over its taps
    gx = Ws^T G[p] / s^2 for every pixel of window p     gW = sum_p G[p] X[p]^T / s^2 for every tap     gb = sum g

(s^2 stands for the product of the strides.) X is kept in place of x: about 1 / (r s)^2 of it; of W nothing is kept if
it is a parameter, else Ws. The products of the backward have r^2 k^2 times fewer multiply-adds.

In detail, and where it differs from the paper:
- Alignment: with P patches, windows begin ceil((P r s - H) / 2) pixels outside the left and upper border (of g: with
  s = 1). Patches at the border are smaller: G is the mean of what is inside, X the sum. Where an unpadded kernel makes
  the windows cover less than the input, its rim is left out and gets no gradient.
- Borders: as published, every tap counts at every pixel, also where it reaches beyond the border: constant tensors give
  a 3x3 kernel gradients that are 4.9 % too large at 28 x 28, 22 % at 7 x 7.
- Stride: the division by s^2, which the published operator lacks, makes the gradients unbiased. Where all taps read the
  same pixels, every s-th (1x1 kernels, dilations that are multiples of s), only these enter X and get a gradient, and
  the stride there counts as 1.
- Dilation d: where taps are a window or more apart (d >= r s, odd kernels), they are kept apart in both gradients: the
  backward is that of a convolution on the patches with dilation floor(d / (r s)). Smaller dilations count as none.
- Groups of any number, and 1-d and 3-d convolutions, by the same formulas in each group and over each axis.
Source: Yang et al., "Efficient On-device Training via Gradient Filtering", CVPR 2023, arXiv:2301.00330.
Checked against: loops over pixels, patches and taps; exact gradients where g is constant in patches and the kernel 1x1;
sums of constant tensors (tests/backward/test_gradient_filter.py). Speed: benchmarks/backward_speed.py.
"""

import functools
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.backward.base import Rule
from edgewright.backward.calls import Call, Kind, Needs, Tensors, conv_input_gradient, conv_weight_gradient
from edgewright.backward.kernels import product, window_means
from edgewright.core.errors import BadInput

_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


@dataclass(frozen=True, slots=True)
class GradientFilter(Rule):
    """A convolution whose gradients are made from patches of `patch` pixels a side; 2, 4 and 8 are usual.

    filter_input: whether the input's gradient is filtered, too. Without, it is exact and costs what it did; the
    weight's gradient and what is kept are filtered all the same.
    """

    patch: int = 2
    filter_input: bool = True
    name: ClassVar[str] = "filter"
    kinds: ClassVar[frozenset[Kind]] = frozenset(("conv",))

    def __post_init__(self) -> None:
        if self.patch < 1:
            raise BadInput(f"patch {self.patch}: give at least 1; 2, 4 and 8 are usual")

    def trained(self, layer: nn.Module) -> tuple[str, ...]:
        return ("weight", "bias")

    def keep(self, call: Call, needs: Needs, *tensors: Tensor | None) -> Tensors:
        x, weight, _ = tensors
        assert x is not None and weight is not None
        axes = _axes(call, self.patch)
        pooled = _input_means(x, axes) if needs[1] else None
        if weight.is_leaf or (needs[0] and not self.filter_input):
            return pooled, (weight if needs[0] or needs[1] else None)
        return pooled, (_over_taps(weight, axes) if needs[0] else None)

    def gradients(self, call: Call, needs: Needs, gradient: Tensor, kept: Tensors) -> Tensors:
        x, weight = kept
        axes = _axes(call, self.patch)
        last = _is_channels_last(gradient, weight)
        filtered = needs[0] and self.filter_input
        gx = gw = g = None
        if filtered or needs[1]:
            g = _pooled(gradient, [(axis.patch, axis.border) for axis in axes], whole=False)
        if filtered:
            assert weight is not None and g is not None
            few = _over_taps(weight, axes) if tuple(weight.shape) == call.weight else weight
            over = prod(axis.stride for axis in axes)
            gx = _spread(_input_product(call, axes, g, few / over if over > 1 else few), call, axes, last)
        elif needs[0]:
            assert weight is not None
            gx = conv_input_gradient(call, gradient, weight)
        if needs[1]:
            assert x is not None and g is not None
            few = _weight_product(call, axes, g, x).mul_(prod(axis.patch for axis in axes))
            gw = _to_all_taps(few, call, last if weight is None else _is_channels_last(weight))
        return gx, gw, _bias_gradient(gradient, g, axes) if needs[2] else None

    def macs(self, call: Call, needs: Needs) -> int:
        """With the sums over patches (that of the input, made in the forward pass, included) and over taps."""
        axes = _axes(call, self.patch)
        batch, out = call.output[:2]
        product = batch * prod(a.patches for a in axes) * out * call.weight[1] * prod(a.taps for a in axes)
        total = product + prod(call.input) if needs[1] else 0
        if needs[0]:
            total += product + prod(call.weight) if self.filter_input else call.macs()
        return total + (prod(call.output) if needs[1] or (needs[0] and self.filter_input) else 0)


@dataclass(frozen=True, slots=True)
class _Axis:
    """The patches along one axis.

    size, source: pixels of the output, and of the input those that are read: every `step`-th from `first`.   stride: of
    the windows of the input, over those.   taps: 1, or the kernel's where its taps lie `reach` patches apart.
    """

    patch: int
    size: int
    source: int
    first: int
    step: int
    stride: int
    taps: int
    reach: int

    @property
    def patches(self) -> int:
        return -(-self.size // self.patch)

    @property
    def window(self) -> int:
        return self.patch * self.stride

    @property
    def border(self) -> int:
        """Pixels by which the first patch of the output begins outside."""
        return -(-(self.patches * self.patch - self.size) // 2)

    @property
    def rim(self) -> int:
        """Pixels by which the first window of the input begins outside; negative where it begins inside."""
        return -(-(self.patches * self.window - self.source) // 2)

    @property
    def covered(self) -> int:
        """Pixels of the input in windows."""
        return min(self.source, self.patches * self.window)

    @property
    def places(self) -> slice:
        """Where the covered pixels lie in the input."""
        start = self.first + max(-self.rim, 0) * self.step
        return slice(start, start + (self.covered - 1) * self.step + 1, self.step)


def _axes(call: Call, patch: int) -> tuple[_Axis, ...]:
    options = call.options
    geometry = (options["stride"], options["padding"], options["dilation"])
    return tuple(
        _axis(patch, *sizes) for sizes in zip(call.input[2:], call.output[2:], call.weight[2:], *geometry, strict=True)
    )


@functools.lru_cache(maxsize=256)
def _axis(patch: int, source: int, size: int, kernel: int, stride: int, padding: int, dilation: int) -> _Axis:
    first, step = 0, 1
    if stride > 1 and (kernel == 1 or dilation % stride == 0):
        first, step = -padding % stride, stride
        source, dilation, stride = len(range(first, source, step)), dilation // stride, 1
    apart = kernel % 2 == 1 and kernel > 1 and dilation > 1 and dilation >= patch * stride
    reach = dilation // (patch * stride) if apart else 1
    return _Axis(patch, size, source, first, step, stride, kernel if apart else 1, reach)


def _input_means(x: Tensor, axes: tuple[_Axis, ...]) -> Tensor:
    """Sums of x over the windows, divided by the window's size."""
    if any(axis.covered < x.shape[2 + i] for i, axis in enumerate(axes)):
        x = x[(..., *(axis.places for axis in axes))]
    rims = [max(axis.rim, 0) for axis in axes]
    if any(rim > axis.window // 2 for rim, axis in zip(rims, axes, strict=True)):  # more than pooling takes
        ends = [(r, axis.patches * axis.window - axis.covered - r) for r, axis in zip(rims, axes, strict=True)]
        x = functional.pad(x, [side for pair in reversed(ends) for side in pair])
        rims = [0] * len(axes)
    return _pooled(x, [(axis.window, rim) for axis, rim in zip(axes, rims, strict=True)], whole=True)


def _pooled(x: Tensor, windows: list[tuple[int, int]], whole: bool) -> Tensor:
    """Means over windows (size, pixels before the first) as [images, patches, channels]; `whole`: zeros outside count.

    Pooling is as fast as memory allows with channels last, and slow otherwise: then a copy pays.
    """
    if len(windows) == 1:
        return _pooled(x.unsqueeze(2), [(1, 0), *windows], whole)
    if len(windows) == 3:  # the slices as images, then their patches as channels
        images, channels, slices = x.shape[:3]
        rows = _pooled(x.transpose(1, 2).flatten(0, 1), windows[1:], whole)
        x = rows.view(images, 1, slices, -1).permute(0, 3, 1, 2)
        return _pooled(x, [(1, 0), windows[0]], whole).view(images, -1, channels)
    sides, before = zip(*windows, strict=True)
    x = x.contiguous(memory_format=torch.channels_last)
    means = window_means(x, sides, before, whole=whole)
    return means.flatten(2).transpose(1, 2).contiguous()


def _over_taps(weight: Tensor, axes: tuple[_Axis, ...]) -> Tensor:
    """The weight, summed over the axes along which its taps share a patch."""
    axis_of = [i for i, axis in enumerate(axes, 2) if axis.taps < weight.shape[i]]
    if len(axis_of) < len(axes):
        return weight.sum(axis_of, keepdim=True) if axis_of else weight
    taps, ones = weight.flatten(2), weight.new_ones(1, weight[0, 0].numel())  # products: far faster than sums of a few
    few = taps @ ones[0] if taps.is_contiguous() else torch.bmm(ones.expand(len(taps), 1, -1), taps.transpose(1, 2))
    return few.view(*weight.shape[:2], *(1,) * len(axes))


def _to_all_taps(few: Tensor, call: Call, channels_last: bool) -> Tensor:
    if tuple(few.shape) == call.weight:
        return few
    order = _CHANNELS_LAST[few.dim() - 2] if channels_last else torch.contiguous_format
    return few.expand(call.weight).contiguous(memory_format=order)


def _on_patches(call: Call, axes: tuple[_Axis, ...]) -> Call | None:
    """The convolution on patches, if it has taps; None if it is 1x1."""
    if all(axis.taps == 1 for axis in axes):
        return None
    patches, taps = tuple(axis.patches for axis in axes), tuple(axis.taps for axis in axes)
    batch, into = call.input[:2]
    output = (batch, call.output[1], *patches)
    options = {
        "stride": (1,) * len(axes),
        "padding": tuple(axis.reach * (axis.taps // 2) for axis in axes),
        "dilation": tuple(axis.reach for axis in axes),
        "groups": call.options["groups"],
    }
    shapes = ((batch, into, *patches), (*call.weight[:2], *taps), None)
    return Call(call.function, options, shapes, output, call.element)


def _as_image(rows: Tensor, sides: list[int]) -> Tensor:
    """[images, pixels, channels] as [images, channels, *sides], channels last."""
    return rows.view(len(rows), *sides, -1).permute(0, -1, *range(1, len(sides) + 1))


def _input_product(call: Call, axes: tuple[_Axis, ...], g: Tensor, weight: Tensor) -> Tensor:
    """The input's gradient of every patch: [images, patches, channels]."""
    if coarse := _on_patches(call, axes):
        sides = [axis.patches for axis in axes]
        return conv_input_gradient(coarse, _as_image(g, sides), weight).flatten(2).transpose(1, 2)
    groups, rows, flat = call.options["groups"], g.flatten(0, 1), weight.flatten(1)
    if groups == 1:
        result = product(rows, flat)
    elif call.weight[1] == 1:
        result = rows * flat.view(-1)
        result = result if call.output[1] == groups else result.view(len(rows), groups, -1).sum(2)
    else:
        apart = rows.view(len(rows), groups, -1).transpose(0, 1)
        result = torch.bmm(apart, flat.view(groups, -1, flat.shape[1])).transpose(0, 1).reshape(len(rows), -1)
    return result.view(*g.shape[:2], -1)


def _weight_product(call: Call, axes: tuple[_Axis, ...], g: Tensor, x: Tensor) -> Tensor:
    """The weight's gradient from means over patches."""
    if coarse := _on_patches(call, axes):
        sides = [axis.patches for axis in axes]
        return conv_weight_gradient(coarse, _as_image(g, sides), _as_image(x, sides))
    groups, rows, source = call.options["groups"], g.flatten(0, 1), x.flatten(0, 1)
    if groups == 1:
        result = product(rows.T, source)
    elif call.weight[1] == 1:
        result = (rows.view(len(rows), groups, -1) * source.unsqueeze(2)).sum(0)
    else:
        apart = source.view(len(rows), groups, -1).transpose(0, 1)
        result = torch.bmm(rows.view(len(rows), groups, -1).permute(1, 2, 0), apart)
    return result.view(*call.weight[:2], *(1,) * len(axes))


def _spread(rows: Tensor, call: Call, axes: tuple[_Axis, ...], channels_last: bool) -> Tensor:
    """Every pixel of the input gets what its window has."""
    if channels_last:
        pixels = rows.index_select(1, _windows_of_pixels(axes, rows.device))
        result = _as_image(pixels, [axis.covered for axis in axes])
    else:
        result = rows.transpose(1, 2).reshape(-1, *(axis.patches for axis in axes))
        for i, axis in reversed(tuple(enumerate(axes, 1))):
            result = result.index_select(i, _window_of(axis, rows.device))
        result = result.view(*call.input[:2], *result.shape[1:])
    if result.shape[2:] == call.input[2:]:
        return result
    order = _CHANNELS_LAST[len(axes)] if channels_last else torch.contiguous_format
    full = torch.empty(call.input, dtype=rows.dtype, device=rows.device, memory_format=order).zero_()
    full[(..., *(axis.places for axis in axes))] = result
    return full


@functools.lru_cache(maxsize=64)
def _window_of(axis: _Axis, device: torch.device) -> Tensor:
    """Of every covered pixel, the window that it lies in."""
    return (torch.arange(axis.covered, device=device) + max(axis.rim, 0)) // axis.window


@functools.lru_cache(maxsize=64)
def _windows_of_pixels(axes: tuple[_Axis, ...], device: torch.device) -> Tensor:
    result = torch.zeros(1, dtype=torch.long, device=device)
    for axis in axes:
        result = (result[:, None] * axis.patches + _window_of(axis, device)).flatten()
    return result


def _bias_gradient(gradient: Tensor, g: Tensor | None, axes: tuple[_Axis, ...]) -> Tensor:
    """From the means of the patches where these are as exact as the gradient itself."""
    if g is None or gradient.element_size() < 4:
        return gradient.sum((0, *range(2, gradient.dim())))
    total = g.sum(0)
    if all(axis.size % axis.patch == 0 for axis in axes):
        return total.sum(0).mul_(prod(axis.patch for axis in axes))
    return _pixels_of_patches(axes, g.dtype, g.device) @ total


@functools.lru_cache(maxsize=64)
def _pixels_of_patches(axes: tuple[_Axis, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    counts = torch.ones(1, dtype=dtype, device=device)
    for axis in axes:
        patch_of = (torch.arange(axis.size, device=device) + axis.border) // axis.patch
        counts = torch.outer(counts, torch.bincount(patch_of, minlength=axis.patches).to(dtype)).flatten()
    return counts


def _is_channels_last(tensor: Tensor, other: Tensor | None = None) -> bool:
    """Whether its memory format is channels last; of a tensor without any (an expanded one), that of `other`."""
    if tensor.is_contiguous() or tensor.dim() - 2 not in _CHANNELS_LAST:
        return False
    if tensor.is_contiguous(memory_format=_CHANNELS_LAST[tensor.dim() - 2]):
        return True
    return other is not None and _is_channels_last(other)
