"""Two operations of torch by whichever of its libraries does them quicker here; the results are equal up to rounding.

Torch's own matrix products come from MKL, which reaches half of what AMD's newer processors can do, and its own pooling
is far from the memory's speed where it reads more than the cache holds. oneDNN, which torch brings along for
convolutions, does both, on some processors in half the time and on others in twice it. Which is quicker is measured:
each operation is timed both ways when its kind (layouts, and sizes to the next power of two) first comes up in a
process, in a few times what it takes itself, and stays with what was chosen. torch's own is taken unless the other
saves `WORTH` of its time; of anything but float32 on the CPU it is always torch's own. The choices are logged, as
debug lines of the logger `edgewright.backward.kernels`, and `choices()` tells them.

A training that is gone on with in another process may thus differ from an uninterrupted one in the last bits.
Checked against: products in float64, torch's pooling (tests/backward/test_kernels.py). Speed: the rules that use it,
benchmarks/backward_speed.py and walsh_speed.py.
"""

import functools
import logging
import threading
import time
from collections.abc import Callable, Hashable
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.core.private import linear_by_onednn

WORTH = 0.1  # of torch's own time, which the other must save
SMALLEST = 1 << 14  # multiply-adds, or numbers read; below it both are over before a choice has been looked up
TURNS, FEWEST, LONG_MS = 6, 2, 10.0  # both are timed in turns, as many as this takes; the least times count
_POOLED_BYTES = 1 << 22  # smaller ones stay in cache, and it takes longer to call a convolution

_logger = logging.getLogger(__name__)
_choosing = threading.Lock()
# Time of this thread, which other programs do not change; where it is told too coarsely, that of the wall.
_clock = time.thread_time if time.get_clock_info("thread_time").resolution < 1e-5 else time.perf_counter
_chosen: dict[Hashable, bool] = {}  # by kind of work, whether it is oneDNN's


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b, of a [..., M, K] and a matrix b [K, N], in any layout."""
    onednn = _onednn() if _served(a) and a.numel() * b.shape[-1] >= SMALLEST else None
    if onednn is None:
        return a @ b
    kind = ("product", *_sizes(*a.shape, b.shape[-1]), a.stride()[-1] == 1, b.stride()[-1] == 1)
    return a @ b if not _by_onednn(kind, lambda: a @ b, lambda: _linear(onednn, a, b)) else _linear(onednn, a, b)


def window_means(x: Tensor, sides: tuple[int, int], before: tuple[int, int], *, whole: bool) -> Tensor:
    """Means of images [N, C, H, W], channels last, over windows of `sides` side by side, the first of which begins
    `before` pixels outside (half a window at most); `whole`: the zeros outside count."""

    def own() -> Tensor:
        return functional.avg_pool2d(x, sides, sides, before, count_include_pad=whole)

    def other() -> Tensor:
        return _means_by_convolution(x, sides, before, whole)

    if _onednn() is None or not _served(x) or x.numel() * x.element_size() < _POOLED_BYTES:
        return own()
    return other() if _by_onednn(("means", *_sizes(*x.shape), sides), own, other) else own()


def choices() -> dict[str, str]:
    """What has been chosen in this process so far: "oneDNN" or "torch" by kind of work."""
    return {" ".join(map(str, kind)): _NAMES[taken] for kind, taken in _chosen.items()}  # pyright: ignore


_NAMES = {True: "oneDNN", False: "torch"}


def _by_onednn(kind: tuple[Hashable, ...], own: Callable[[], Tensor], other: Callable[[], Tensor]) -> bool:
    """Whether `other` is surely quicker than `own`; measured when work of its kind first comes up."""
    key = (*kind, torch.get_num_threads())
    if key not in _chosen:
        with _choosing:
            if key not in _chosen:  # not by another thread meanwhile
                mine, its = _timed(own, other)
                _chosen[key] = its < (1 - WORTH) * mine
                _logger.debug("%s: torch %.3f ms, oneDNN %.3f ms: %s", key, mine, its, _NAMES[_chosen[key]])
    return _chosen[key]


def _timed(*works: Callable[[], Tensor]) -> list[float]:
    """Least milliseconds of each, in turns, of which the first only makes ready."""
    times: list[list[float]] = [[] for _ in works]
    with torch.no_grad():
        for turn in range(1 + TURNS):
            if turn > FEWEST and sum(map(sum, times)) > LONG_MS:
                break
            for work, found in zip(works, times, strict=True):
                start = _clock()
                work()
                found.append(1e3 * (_clock() - start))
    return [min(found[1:]) for found in times]


def _sizes(*sizes: int) -> tuple[int, ...]:
    """To the next power of two: what is alike in time."""
    return tuple(1 << (size - 1).bit_length() for size in sizes)


def _linear(onednn: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    if a.dim() == 2 and not a.is_contiguous() and a.numel() > b.numel() + len(a) * b.shape[1]:
        return onednn(b.T, a).T.contiguous()  # it wants its first argument by rows: the smaller one is copied
    return onednn(a, b.T)


def _means_by_convolution(x: Tensor, sides: tuple[int, int], before: tuple[int, int], whole: bool) -> Tensor:
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


_onednn = functools.cache(linear_by_onednn)
