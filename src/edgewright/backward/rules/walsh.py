r"""LBP-WHT: the backward products of a linear layer in a few low Walsh functions of its token grid.

The tokens of an image, or the pixels in front of a 1x1 convolution, lie on a grid. Input x and output gradient g are
projected, patch by patch of at most 8 x 8, on the bases m_rc = q_r q_c^T with r + c < order, where q_r is the 1-D Walsh
function with r sign changes, of length one; then, with K bases in P patches,

    X = M x    G = M g    [P K, channels]       gx = M^T (G W)      gW = G^T X      gb = g summed, exactly

M: the P K bases as rows. X is kept in place of x: K/64 of it on sides that are multiples of 8. Order 2, 4, 6, 8 give 3,
10, 21, 36 bases, order 15 all 64, with which both gradients are exact at any size.

A transform is one product for every patch, a few samples at a time to stay in cache; no mask is ever multiplied with an
activation. Of tokens, neighbours along a side that no function tells apart (4 or 2 at orders up to 2 and 4) are summed
first. Where the patches of a side differ (15 into 8 + 7), it is a product along each side.
Differs from the paper: M has orthonormal rows, in place of sums for x and means for g, so that half precision does not
overflow; the products are the same. A side that is no multiple of 8 is cut into patches as equal as can be (14 into
7 + 7) and the functions are cut and made orthonormal on them: exact with all bases, and with few a constant stays as
it is. The paper's reflection leaves gW 45 to 66 % off at 7 x 7 and 14 x 14 even with all bases; zeros beyond the
border make the gW of smooth activations up to a quarter too small. Class tokens are treated densely, as in the paper.
Source: Yang et al., "Efficient Low-rank Backpropagation for Vision Transformer Adaptation", NeurIPS 2023,
arXiv:2309.15275. Checked against: scipy's Hadamard matrix, a loop over masks, autograd (tests/backward/test_walsh.py).
Speed: benchmarks/walsh_speed.py.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.backward.base import Rule
from edgewright.backward.calls import Call, Kind, Needs, Tensors
from edgewright.backward.kernels import product
from edgewright.core.errors import BadInput

PATCH = 8
_CACHE_BYTES = 1 << 21  # of one activation, folded, how much is transformed at a time


@dataclass(frozen=True, slots=True)
class Walsh(Rule):
    """A linear layer over tokens, or a 1x1 convolution, with both gradients in the Walsh bases r + c < `order`.

    order: 1 to 15; of 8 x 8 patches, 2, 4, 6, 8 keep 3, 10, 21, 36 bases.
    grid: (height, width) of the tokens in inputs [B, T, C]; the first T - height * width tokens are class tokens. None:
    T is a square, or a square and one or two class tokens. Of inputs [B, h, w, C] and of images it is not asked.
    Errors: BadInput, on running, where the layer's input has no such grid.
    """

    order: int = 4
    grid: tuple[int, int] | None = None
    name: ClassVar[str] = "wht"
    kinds: ClassVar[frozenset[Kind]] = frozenset(("conv", "linear"))

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 2 * PATCH - 1:
            raise BadInput(f"order {self.order}: give 1 to {2 * PATCH - 1}; 2, 4, 6, 8 are the published ones")
        if self.grid is not None and min(self.grid) < 1:
            raise BadInput(f"grid {self.grid}: give the height and width of the token grid, both at least 1")

    def trained(self, layer: nn.Module) -> tuple[str, ...]:
        return ("weight", "bias")

    def refuse(self, call: Call) -> str | None:
        if call.kind == "conv":
            return _refuse_conv(call)
        if call.kind == "linear":
            place = _place(call, self.grid)
            return place if isinstance(place, str) else None
        return Rule.refuse(self, call)

    def run(self, call: Call, *tensors: Tensor | None) -> Tensor:
        if reason := self.refuse(call):
            raise BadInput(f"the Walsh backward of a {call.kind} layer {reason}")
        return Rule.run(self, call, *tensors)

    def keep(self, call: Call, needs: Needs, *tensors: Tensor | None) -> Tensors:
        x, weight, _ = tensors
        if not needs[1]:
            return None, (weight if needs[0] else None)
        assert x is not None
        if call.kind == "conv":
            down, across = call.options["stride"]
            x = x[:, :, ::down, ::across]
        return self._projected(call, x), (weight if needs[0] else None)

    def gradients(self, call: Call, needs: Needs, gradient: Tensor, kept: Tensors) -> Tensors:
        x, weight = kept
        if not needs[0] and not needs[1]:
            return None, None, _summed(call, gradient)
        g = self._projected(call, gradient)
        gx = None if weight is None else self._spread(call, product(g, weight.flatten(1)), gradient)
        gw = None if x is None else product(g.flatten(0, 1).T, x.flatten(0, 1)).view(call.weight)
        return gx, gw, _summed(call, gradient, g, self._place(call)) if needs[2] else None

    def macs(self, call: Call, needs: Needs) -> int:
        """With the transforms, that of the input included, which is made in the forward pass."""
        place = self._place(call)
        if not any(needs[:2]):
            return 0
        out, into = call.weight[:2]
        products = place.rows * out * into * (needs[0] + needs[1])
        return place.batch * (products + place.macs(call.kind == "conv") * (out + into * (needs[0] + needs[1])))

    def _place(self, call: Call) -> "_Place":
        place = _place(call, self.grid)
        assert not isinstance(place, str), place
        return _placed(*place, self.order)

    def _projected(self, call: Call, activation: Tensor) -> Tensor:
        """Class tokens, then the coefficients of all patches: [batch, rows, channels]."""
        place, channels = self._place(call), activation.shape[1 if call.kind == "conv" else -1]
        result = activation.new_empty(place.batch, place.rows, channels)
        if place.extra:
            result[:, : place.extra] = activation[:, : place.extra]
        _project(_grid(call, activation, place), place, result[:, place.extra :])
        return result

    def _spread(self, call: Call, rows: Tensor, like: Tensor) -> Tensor:
        """Back to the layer's input, in the memory format of `like`."""
        place = self._place(call)
        if call.kind == "linear":
            result = rows.new_empty(call.input)
            if place.extra:
                result[:, : place.extra] = rows[:, : place.extra]
            _expand(rows[:, place.extra :], place, _grid(call, result, place))
            return result
        order = torch.contiguous_format if like.is_contiguous() else torch.channels_last
        small = (place.batch, call.weight[1], place.height, place.width)
        result = torch.empty(small, dtype=rows.dtype, device=rows.device, memory_format=order)
        _expand(rows, place, _grid(call, result, place))
        down, across = call.options["stride"]
        if across == down == 1:
            return result
        whole = torch.empty(call.input, dtype=rows.dtype, device=rows.device, memory_format=order).zero_()
        whole[:, :, ::down, ::across] = result
        return whole


def _refuse_conv(call: Call) -> str | None:
    if len(call.input) != 4 or set(call.weight[2:]) != {1}:
        return "is for 1x1 convolutions of images; take gradient filtering for larger kernels"
    if call.options["groups"] != 1 or any(call.options["padding"]):
        return "is for 1x1 convolutions without groups and padding; take gradient filtering"
    return None


def _place(call: Call, grid: tuple[int, int] | None) -> tuple[int, int, int, int] | str:
    """(batch, height, width, class tokens) of a call, or why it has none."""
    shape = call.input
    if call.kind == "conv":
        return shape[0], call.output[2], call.output[3], 0
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], 0
    if len(shape) != 3:
        return f"needs tokens on a grid, [B, T, C] or [B, h, w, C], not {list(shape)}; train it in full, or its bias"
    batch, tokens, _ = shape
    if grid is not None:
        if (extra := tokens - grid[0] * grid[1]) < 0:
            return f"has {tokens} tokens, fewer than its grid of {grid[0]} x {grid[1]}; give the grid it has"
        return batch, *grid, extra
    for extra in (0, 1, 2):
        side = isqrt(max(tokens - extra, 0))
        if side and side * side == tokens - extra:
            return batch, side, side, extra
    return f"has {tokens} tokens, no square, nor with one or two class tokens; give grid=(height, width)"


def _grid(call: Call, activation: Tensor, place: "_Place") -> Tensor:
    """The activation as [batch, height, width, channels]: a view."""
    if activation.dim() == 4:
        return activation.permute(0, 2, 3, 1) if call.kind == "conv" else activation
    batch, _, channels = activation.shape
    return activation[:, place.extra :].view(batch, place.height, place.width, channels)


def _summed(call: Call, gradient: Tensor, g: Tensor | None = None, place: "_Place | None" = None) -> Tensor:
    """The bias gradient; from the coefficients where they are there: what is constant on a patch is always in them."""
    if g is None or place is None:
        return gradient.sum((0, 2, 3)) if call.kind == "conv" else gradient.flatten(0, -2).sum(0)
    rows, often = place.sums
    return _like(often, g) @ g[:, torch.tensor(rows, device=g.device)].sum(0)


@functools.cache
def walsh(size: int = PATCH) -> np.ndarray:
    """The Walsh functions as rows, entries 1 and -1, row k with k sign changes.   size: a power of two."""
    bits = size.bit_length() - 1
    k, i = np.arange(size)[:, None, None], np.arange(size)[None, :, None]
    j = np.arange(bits)
    gray = k ^ (k >> 1)
    return 1 - 2 * (((gray >> (bits - 1 - j)) & (i >> j) & 1).sum(-1) % 2)


@functools.cache
def _functions(size: int) -> np.ndarray:
    """The Walsh functions of 8 on the first `size` places, made orthonormal in their order; those that then say nothing
    new are left out. Each lies in the span of those up to it, so a triangle of them spans what the triangle did."""
    rows: list[np.ndarray] = []
    for row in walsh()[:, :size].astype(float):
        rest = row - sum((found * (found @ row) for found in rows), np.zeros(size))
        if np.linalg.norm(rest) > 1e-9:
            rows.append(rest / np.linalg.norm(rest))
    return np.stack(rows)


@dataclass(frozen=True, slots=True)
class _Side:
    """A side of the grid, cut into patches.   patches, functions: how many of them, and in each.
    whole: [patches * functions, length of the side].   patch: [functions, length of a patch], None where they differ.
    """

    patches: int
    functions: int
    whole: np.ndarray
    patch: np.ndarray | None

    def sums(self) -> np.ndarray:
        """Of every function of every patch the sum of its entries."""
        return self.whole.sum(1).reshape(self.patches, self.functions)


@functools.cache
def _side(size: int, order: int) -> _Side:
    sizes = [len(part) for part in np.array_split(np.arange(size), -(-size // PATCH))]
    functions = [_functions(length)[:order] for length in sizes]
    most = max(map(len, functions))
    whole = np.zeros((len(sizes), most, size))
    for patch, rows in enumerate(functions):
        start = sum(sizes[:patch])
        whole[patch, : len(rows), start : start + sizes[patch]] = rows
    return _Side(len(sizes), most, whole.reshape(-1, size), functions[0] if len(set(sizes)) == 1 else None)


@dataclass(frozen=True)
class _Place:
    """Where the rows of an activation lie, class tokens first, then a grid; and the bases on it. From `_placed`."""

    batch: int
    height: int
    width: int
    extra: int
    order: int

    @functools.cached_property
    def down(self) -> _Side:
        return _side(self.height, self.order)

    @functools.cached_property
    def across(self) -> _Side:
        return _side(self.width, self.order)

    @functools.cached_property
    def pairs(self) -> np.ndarray:
        """The bases as (r, c), [bases, 2]."""
        down, across = range(self.down.functions), range(self.across.functions)
        return np.array([(r, c) for r in down for c in across if r + c < self.order])

    @functools.cached_property
    def patches(self) -> int:
        return self.down.patches * self.across.patches

    @functools.cached_property
    def rows(self) -> int:
        return self.extra + self.patches * len(self.pairs)

    @functools.cached_property
    def fold(self) -> int:
        """How many neighbours along each side no function tells apart: 4 or 2 of 8 where the order is up to 2 or 4."""
        if self.height % PATCH or self.width % PATCH or self.patches == 1:
            return 1
        return PATCH >> min(3, (self.order - 1).bit_length())

    @functools.cached_property
    def bases(self) -> np.ndarray | None:
        """The bases of a patch as rows [bases, length of a patch], None where patches differ."""
        return self._bases(1)

    @functools.cached_property
    def folded(self) -> np.ndarray | None:
        """The same with one entry of every fold x fold equal ones."""
        return self._bases(self.fold)

    def _bases(self, fold: int) -> np.ndarray | None:
        down, across = self.down.patch, self.across.patch
        if down is None or across is None:
            return None
        return np.stack([np.kron(down[r, ::fold], across[c, ::fold]) for r, c in self.pairs])

    @functools.cached_property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows that count in the sum over all tokens, and how often; on whole patches one in K."""
        down, across = self.down.sums(), self.across.sums()
        patches = [d[r] * a[c] for d in down for a in across for r, c in self.pairs]
        often = np.array([1.0] * self.extra + patches).round(12)
        return np.flatnonzero(often), often[often != 0]

    def macs(self, images: bool) -> int:
        """Multiply-adds of a transform, for one channel of one sample; sums of neighbours count as such."""
        if self.bases is None or self.folded is None:
            return self.down.whole.size * self.width + len(self.down.whole) * self.across.whole.size
        if images or self.fold == 1:
            return self.patches * self.bases.size
        return self.height * self.width + self.patches * self.folded.size


_placed = functools.lru_cache(1024)(_Place)


def _project(grid: Tensor, place: _Place, into: Tensor) -> None:
    """Coefficients of `grid` [batch, height, width, channels] in all bases of all patches, [batch, patches * bases,
    channels]."""
    down, across, channels = place.down, place.across, grid.shape[-1]
    if place.bases is None:
        both = torch.einsum("rh,nhwc,sw->nrsc", _like(down.whole, grid), grid, _like(across.whole, grid))
        both = both.unflatten(2, (across.patches, -1)).unflatten(1, (down.patches, -1)).transpose(2, 3)
        into.copy_(both[:, :, :, *place.pairs.T].flatten(1, 3))
        return
    fold = 1 if _planes(grid) else place.fold
    bases = _like(place.bases if fold == 1 else place.folded, grid)
    for part, target in _pieces(grid, into, fold):
        if fold > 1:
            part = functional.avg_pool2d(part.permute(0, 3, 1, 2), fold, divisor_override=1).permute(0, 2, 3, 1)
        items = _patches(part, place)
        if _planes(part):
            items = items.permute(0, 1, 2, 5, 3, 4).reshape(-1, channels, bases.shape[1]).transpose(1, 2)
        else:
            items = items.reshape(-1, bases.shape[1], channels)
        many = bases.expand(len(items), -1, -1)
        if target.is_contiguous():
            torch.bmm(many, items, out=target.view(len(items), -1, channels))
        else:
            target.copy_(torch.bmm(many, items).view(target.shape))


def _expand(rows: Tensor, place: _Place, into: Tensor) -> None:
    """The transpose of `_project`."""
    down, across, channels = place.down, place.across, into.shape[-1]
    patches = place.batch, down.patches, across.patches
    if place.bases is None:
        both = rows.new_zeros(*patches, down.functions, across.functions, channels)
        both[:, :, :, *place.pairs.T] = rows.unflatten(1, (*patches[1:], -1))
        both = both.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        into.copy_(torch.einsum("rh,nrsc,sw->nhwc", _like(down.whole, rows), both, _like(across.whole, rows)))
        return
    fold = 1 if _planes(into) else place.fold
    bases = _like(place.bases if fold == 1 else place.folded, rows)
    for target, part in _pieces(into, rows, fold):
        items = part.reshape(-1, len(place.pairs), channels)
        many = bases.expand(len(items), -1, -1)
        if _planes(into):
            wide = _patches(target, place).permute(0, 1, 2, 5, 3, 4)
            wide.copy_(torch.bmm(items.transpose(1, 2), many).view(wide.shape))
        else:
            small = torch.bmm(many.transpose(1, 2), items)
            wide = _repeated(target, place, fold)
            wide.copy_(small.view(*wide.shape[:5], 1, 1, channels))


def _planes(grid: Tensor) -> bool:
    """Whether each channel is stored on its own."""
    return grid.stride(3) != 1 and grid.stride(2) == 1


def _pieces(grid: Tensor, rows: Tensor, fold: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The grids of some samples and their coefficients, few enough to stay in cache."""
    samples = max(1, _CACHE_BYTES * fold**2 * len(grid) // (grid.numel() * grid.element_size()))
    if samples >= len(grid):
        return iter([(grid, rows)])
    return zip(grid.split(samples), rows.split(samples), strict=True)


def _patches(grid: Tensor, place: _Place) -> Tensor:
    """[batch, patches down, patches across, height, width, channels]: a view."""
    batch, height, width, channels = grid.shape
    down, across = place.down.patches, place.across.patches
    return grid.view(batch, down, height // down, across, width // across, channels).transpose(2, 3)


def _repeated(grid: Tensor, place: _Place, fold: int) -> Tensor:
    """The same with fold x fold neighbours apart: [batch, patches down, patches across, height / fold, width / fold,
    fold, fold, channels], a view."""
    batch, height, width, channels = grid.shape
    down, across = place.down.patches, place.across.patches
    shape = (batch, down, height // down // fold, fold, across, width // across // fold, fold, channels)
    return grid.view(shape).permute(0, 1, 4, 2, 5, 3, 6, 7)


def _like(matrix: np.ndarray | None, tensor: Tensor) -> Tensor:
    assert matrix is not None
    return torch.from_numpy(matrix).to(tensor.device, tensor.dtype)
