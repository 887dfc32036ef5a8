"""Two operations of torch by whichever of its libraries does them quicker here; the results are equal up to rounding.

On processors with AVX-512 torch's own matrix products come from MKL, which reaches half of what AMD's newer ones can
do, and its own pooling is far from the memory's speed. oneDNN, which torch brings along for convolutions, does both
better: products up to twice as fast on AMD Zen 5, pooling where it reads more than the cache holds. Elsewhere, and of
anything but float32, it is torch's own.
Checked against: products in float64, torch's pooling (tests/backward/test_kernels.py). Speed: the rules that use it,
benchmarks/backward_speed.py and walsh_speed.py.
"""

import functools
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_POOLED_BYTES = 1 << 22  # smaller ones stay in cache, and it takes longer to call a convolution


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b, of a [..., M, K] and a matrix b [K, N], in any layout."""
    onednn = _onednn()
    if onednn is None or not _served(a) or not a.numel() or not b.numel():
        return a @ b
    if a.dim() == 2 and not a.is_contiguous() and a.numel() > b.numel() + len(a) * b.shape[1]:
        return onednn(b.T, a).T.contiguous()  # it wants its first argument by rows: the smaller one is copied
    return onednn(a, b.T)


def window_means(x: Tensor, sides: tuple[int, int], before: tuple[int, int], *, whole: bool) -> Tensor:
    """Means of images [N, C, H, W], channels last, over windows of `sides` side by side, the first of which begins
    `before` pixels outside (half a window at most); `whole`: the zeros outside count."""
    if _onednn() is None or not _served(x) or x.numel() * x.element_size() < _POOLED_BYTES:
        return functional.avg_pool2d(x, sides, sides, before, count_include_pad=whole)
    channels, (height, width) = x.shape[1], x.shape[2:]
    means = functional.conv2d(x, _window(channels, sides), stride=sides, padding=before, groups=channels)
    if any(before) and not whole:
        means /= torch.outer(_fullness(height, sides[0], before[0]), _fullness(width, sides[1], before[1]))
    return means


def _served(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


@functools.lru_cache(maxsize=64)
def _window(channels: int, sides: tuple[int, int]) -> Tensor:
    return torch.full((channels, 1, *sides), 1 / prod(sides), dtype=torch.float32, device="cpu")


@functools.lru_cache(maxsize=64)
def _fullness(size: int, side: int, before: int) -> Tensor:
    """Of each window along an axis, the part that is inside."""
    first = torch.arange(-before, size + before - side + 1, side, device="cpu")
    return ((first + side).clamp(max=size) - first.clamp(min=0)).float() / side


@functools.cache
def _onednn() -> Callable[[Tensor, Tensor], Tensor] | None:
    """x w^T by oneDNN, where it pays. Torch has no public name for it: it is tried before it is trusted."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return None

    def found(x: Tensor, w: Tensor) -> Tensor:
        operator: Any = torch.ops.mkldnn._linear_pointwise
        return operator(x, w, None, "none", [], "")

    x, w = (torch.arange(3.0 * rows, dtype=torch.float32, device="cpu").view(rows, 3) for rows in (2, 4))
    try:
        return found if torch.equal(found(x, w), x @ w.T) else None
    except (AttributeError, RuntimeError, TypeError):  # a torch in which it is called otherwise
        return None
