"""How many threads a training step is worth."""

import contextlib
from collections.abc import Iterator

import torch

from edgewright.core.pool import cores

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
