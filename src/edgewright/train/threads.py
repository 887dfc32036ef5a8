"""How many threads a training step is worth."""

import contextlib
from collections.abc import Iterator

import torch

from edgewright.core.pool import cores

THREADED_MACS = 2e8  # of a batch: about 10 ms of one core


def threads_for(macs: float) -> contextlib.AbstractContextManager[None]:
    """Every core for a batch whose forward pass has enough multiply-adds, one for a small one, which threads only slow
    down."""
    return so_many_threads(cores() if macs >= THREADED_MACS else 1)


@contextlib.contextmanager
def so_many_threads(count: int | None) -> Iterator[None]:
    """Within it, torch has so many; None leaves them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
