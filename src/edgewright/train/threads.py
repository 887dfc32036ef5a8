"""What a training step wants of the process: threads, and memory that is not handed back."""

import contextlib
import ctypes
import functools
from collections.abc import Iterator

import torch

from edgewright.core.pool import cores

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
THREADED_MACS = 2e8  # of a batch: about 10 ms of one core


def threads_for(macs: float) -> contextlib.AbstractContextManager[None]:
    """Every core for a batch whose forward pass has enough multiply-adds, one for a small one, which threads only slow
    down."""
    return torch_threads(cores() if macs >= THREADED_MACS else 1)


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Within it, torch has so many; None leaves them. Nothing is set that is so already."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Have glibc keep freed blocks, as long as this process lives.

    Every pass frees all activations; by default they go back to the system, and the next pass pays for mapping and
    zeroing the same pages again: an eighth of a scoring's time, a fifth of a training step's, and on some machines most
    of it. What was freed stays the process's own until it ends.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # not glibc: nothing to tune
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 2**28)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
