r"""LBP-WHT: the backward products of a linear layer in a few low Walsh functions of its token grid.

The tokens of an image, or the pixels in front of a 1x1 convolution, lie on a grid. Input x and output gradient g are
projected, patch by patch of at most 8 x 8, on the bases m_rc = q_r q_c^T with r + c < order, where q_r is the 1-D Walsh
function with r sign changes, of length one; then, with K bases in P patches,

    X = M x    G = M g    [P K, channels]       gx = M^T (G W)      gW = G^T X      gb = g summed, exactly

M: the P K bases as rows. X is kept in place of x: K/64 of it on sides that are multiples of 8. Order 2, 4, 6, 8 give 3,
10, 21, 36 bases, order 15 all 64, with which both gradients are exact at any size.

No mask is ever multiplied with an activation. Where no function tells 2 or 4 neighbours along a side apart (orders up
to 4 and 2), they are summed first, and the few entries left of a patch are transformed in one product; so is a grid of
one patch. Else a transform is two small products, along rows and along columns, image by image to stay in cache.
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
from dataclasses import dataclass
from math import isqrt, prod, sqrt
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.backward.base import Rule
from edgewright.backward.calls import Call, Kind, Needs, Tensors
from edgewright.core.errors import BadInput

PATCH = 8
_CACHE_BYTES = 1 << 20  # of what is between the two products of a transform: about a second-level cache


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
        gx = None if weight is None else self._spread(call, g @ weight.flatten(1), gradient)
        gw = None if x is None else (g.flatten(0, 1).T @ x.flatten(0, 1)).view(call.weight)
        return gx, gw, _summed(call, gradient, g, self._place(call)) if needs[2] else None

    def macs(self, call: Call, needs: Needs) -> int:
        """With the transforms, that of the input included, which is made in the forward pass."""
        place = self._place(call)
        if not any(needs[:2]):
            return 0
        out, into = call.weight[:2]
        products = place.rows * out * into * (needs[0] + needs[1])
        return place.batch * (products + place.macs() * (out + into * (needs[0] + needs[1])))

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
    return activation[:, place.extra :].unflatten(1, (place.height, place.width))


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
    matrix: of one patch [functions, length], or where patches differ of the whole side [patches * functions, length].
    """

    patches: int
    functions: int
    matrix: np.ndarray

    @property
    def blocks(self) -> int:
        """How many times the matrix is applied along the side."""
        return self.patches * self.functions // len(self.matrix)

    def sums(self) -> np.ndarray:
        """Of every function of every patch the sum of its entries."""
        return np.tile(self.matrix.sum(1), self.blocks).reshape(self.patches, self.functions)


@functools.cache
def _side(size: int, order: int, patch: int) -> _Side:
    patches = -(-size // patch)
    sizes = [len(part) for part in np.array_split(np.arange(size), patches)]
    functions = [_functions(length)[:order] for length in sizes]
    most = max(map(len, functions))
    if len(set(sizes)) == 1:
        return _Side(patches, most, functions[0] / sqrt(PATCH / patch))
    matrix = np.zeros((patches, most, size))
    for patch, rows in enumerate(functions):
        start = sum(sizes[:patch])
        matrix[patch, : len(rows), start : start + sizes[patch]] = rows
    return _Side(patches, most, matrix.reshape(-1, size))  # never folded


@dataclass(frozen=True)
class _Place:
    """Where the rows of an activation lie, class tokens first, then a grid; and the bases on it. From `_placed`."""

    batch: int
    height: int
    width: int
    extra: int
    order: int

    @functools.cached_property
    def fold(self) -> int:
        """How many neighbours along each side no function tells apart: 4 or 2 of 8 where the order is up to 2 or 4.
        They can be added up first."""
        if self.height % PATCH or self.width % PATCH or self.height == self.width == PATCH:
            return 1
        return PATCH >> min(3, (self.order - 1).bit_length())

    @functools.cached_property
    def down(self) -> _Side:
        return _side(self.height // self.fold, self.order, PATCH // self.fold)

    @functools.cached_property
    def across(self) -> _Side:
        return _side(self.width // self.fold, self.order, PATCH // self.fold)

    @functools.cached_property
    def triangle(self) -> tuple[tuple[int, int, int], ...]:
        """Of every r: where its bases begin, and how many there are."""
        counts = [max(0, min(self.order - r, self.across.functions)) for r in range(self.down.functions)]
        return tuple((r, sum(counts[:r]), count) for r, count in enumerate(counts))

    @functools.cached_property
    def bases(self) -> int:
        return sum(count for _, _, count in self.triangle)

    @functools.cached_property
    def rows(self) -> int:
        return self.extra + self.down.patches * self.across.patches * self.bases

    @functools.cached_property
    def at_once(self) -> np.ndarray | None:
        """All bases of a patch as rows, where they are applied in one product: on a grid of one patch, and on folded
        ones, where a patch has no more than 4 x 4 entries."""
        if self.fold == 1 and self.down.patches * self.across.patches > 1:
            return None
        down, across = self.down.matrix, self.across.matrix
        return np.stack([np.kron(down[r], across[c]) for r, _, count in self.triangle for c in range(count)])

    @functools.cached_property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows that count in the sum over all tokens, and how often; on whole patches one in K."""
        down, across = self.down.sums() * self.fold, self.across.sums() * self.fold
        pairs = [(r, c) for r, _, count in self.triangle for c in range(count)]
        patches = [d[r] * a[c] for d in down for a in across for r, c in pairs]
        often = np.array([1.0] * self.extra + patches).round(12)
        return np.flatnonzero(often), often[often != 0]

    def macs(self) -> int:
        """Multiply-adds of a transform, for one channel of one image."""
        if self.at_once is not None:
            sums = self.height * self.width if self.fold > 1 else 0
            return sums + self.at_once.size * self.down.patches * self.across.patches
        first = self.height * self.across.blocks * self.across.matrix.size
        return first + self.down.blocks * self.down.matrix.size * self.across.patches * self.across.functions

    def scratch(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """What is between the two products, [images, height, patches, functions, channels], and between them and the
        triangle, [images, patches, functions, patches, functions, channels], for as many images as stay in cache;
        for one where they are not stored one behind the other, so that it can be viewed as rows of patches."""
        across = self.across.patches, self.across.functions, grid.shape[-1]
        each = self.height * prod(across) * grid.element_size()
        images = min(self.batch, max(1, _CACHE_BYTES // each)) if grid.is_contiguous() else 1
        middle = grid.new_empty(images, self.height, *across)
        return middle, grid.new_empty(images, self.down.patches, self.down.functions, *across)


_placed = functools.lru_cache(1024)(_Place)


def _project(grid: Tensor, place: _Place, into: Tensor) -> None:
    """Coefficients of `grid` [batch, height, width, channels] in all bases of all patches, [batch, patches * bases,
    channels]."""
    channels = grid.shape[-1]
    if place.at_once is not None:
        items = _patches(grid, place).reshape(-1, place.at_once.shape[1], channels)
        many = _like(place.at_once, grid).expand(items.shape[0], -1, -1)
        if into.is_contiguous():
            torch.bmm(many, items, out=into.view(len(many), -1, channels))
        else:
            into.copy_(torch.bmm(many, items).view(into.shape))
        return
    down, across = _like(place.down.matrix, grid), _like(place.across.matrix, grid)
    patches = into.unflatten(1, (place.down.patches, place.across.patches, place.bases))
    middles, squares = place.scratch(grid)
    step = middles.shape[0]
    for start in range(0, place.batch, step):
        part = grid[start : start + step]
        middle, square = middles[: part.shape[0]], squares[: part.shape[0]]
        _left(across, part.reshape(-1, across.shape[1], channels), middle)
        _left(down, middle.view(-1, down.shape[1], square[0, 0, 0].numel()), square)
        target = patches[start : start + step]
        for r, begin, count in place.triangle:
            target[..., begin : begin + count, :] = square[:, :, r, :, :count]


def _expand(rows: Tensor, place: _Place, into: Tensor) -> None:
    """The transpose of `_project`."""
    channels = into.shape[-1]
    if place.at_once is not None:
        items = rows.reshape(-1, place.bases, channels)
        many = _like(place.at_once.T, rows).expand(items.shape[0], -1, -1)
        if place.fold == 1:
            torch.bmm(many, items, out=into.flatten(1, 2))
        else:
            _unfold(torch.bmm(many, items), place, into)
        return
    down, across = _like(place.down.matrix.T, rows), _like(place.across.matrix.T, rows)
    patches = rows.unflatten(1, (place.down.patches, place.across.patches, place.bases))
    middles, squares = place.scratch(into)
    squares.zero_()  # what is outside the triangle stays so
    step = middles.shape[0]
    for start in range(0, place.batch, step):
        target, part = into[start : start + step], patches[start : start + step]
        middle, square = middles[: part.shape[0]], squares[: part.shape[0]]
        for r, begin, count in place.triangle:
            square[:, :, r, :, :count] = part[..., begin : begin + count, :]
        _left(down, square.view(-1, down.shape[1], square[0, 0, 0].numel()), middle)
        _left(across, middle.view(-1, across.shape[1], channels), target.view(-1, across.shape[0], channels))


def _patches(grid: Tensor, place: _Place) -> Tensor:
    """Sums over fold x fold tokens as [batch, patches down, patches across, height, width, channels]."""
    if place.fold > 1:
        grid = functional.avg_pool2d(grid.permute(0, 3, 1, 2), place.fold, divisor_override=1).permute(0, 2, 3, 1)
    return grid.unflatten(2, (place.across.patches, -1)).unflatten(1, (place.down.patches, -1)).transpose(2, 3)


def _unfold(small: Tensor, place: _Place, into: Tensor) -> None:
    """Every entry of the patches to fold x fold tokens."""
    fold, (down, across) = place.fold, (place.down.patches, place.across.patches)
    height, width = place.height // down // fold, place.width // across // fold
    wide = into.unflatten(2, (across, width, fold)).unflatten(1, (down, height, fold)).permute(0, 1, 4, 2, 5, 3, 6, 7)
    wide.copy_(small.view(place.batch, down, across, height, width, 1, 1, into.shape[-1]))


def _left(matrix: Tensor, items: Tensor, out: Tensor) -> None:
    """The matrix times every item."""
    many = items.shape[0]
    torch.bmm(matrix.expand(many, -1, -1), items, out=out.view(many, matrix.shape[0], -1))


def _like(matrix: np.ndarray, tensor: Tensor) -> Tensor:
    return torch.tensor(matrix, dtype=tensor.dtype, device=tensor.device)
