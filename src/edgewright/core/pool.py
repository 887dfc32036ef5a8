"""Run one function over many items: in this process, over this machine's cores, or over a Ray cluster.

Results come back in the order of the items, whatever ran where, so that a search is the same on one core and on fifty.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from edgewright.core.errors import EdgewrightError
from edgewright.core.progress import set_quiet

FORGETTING = 0.2  # seconds


class Pool(Protocol):
    """Where work runs; `workers` is how many items run at once."""

    workers: int

    def imap(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Yield function(item) for each item, in order. `function` is a module-level function."""
        ...


class InProcess:
    workers = 1

    def imap(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return map(function, items)


class Processes:
    def __init__(self, executor: ProcessPoolExecutor, workers: int) -> None:
        self._executor, self.workers = executor, workers

    def imap(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        try:
            yield from self._executor.map(function, items)
        except BrokenProcessPool:
            raise EdgewrightError(
                "a worker process was ended from outside, perhaps for want of memory; what was finished is kept: go on "
                "with --resume (a new run can take fewer --workers)"
            ) from None


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def pool(workers: int | None = None, ray: str | None = None) -> Iterator[Pool]:
    """A pool of `workers` (default: all cores) single-threaded processes, or of a Ray cluster's cores.

    Args:
        workers: 1 runs in this process.
        ray: address of a Ray cluster, or "local" to start one on this machine (needs the extra `ray`).
    """
    if ray is not None:
        from edgewright.core.ray_pool import ray_pool

        with ray_pool(ray) as cluster:
            yield cluster
        return
    workers = workers or cores()
    if workers == 1:
        yield InProcess()
        return
    context: Any = _Spawning()
    executor = ProcessPoolExecutor(workers, context, initializer=start_worker, initargs=(os.getpid(),))
    try:
        yield Processes(executor, workers)
        executor.shutdown()
    except BaseException:
        # Ctrl-C and errors must not wait for work that nobody wants any more. The executor forgets what was cancelled
        # first: told of dead processes before, its thread sets exceptions on cancelled work and prints a traceback.
        executor.shutdown(wait=False, cancel_futures=True)
        time.sleep(FORGETTING)
        for process in context.made:
            if process.pid is not None:  # it was begun
                process.terminate()
        raise


class _Spawning:
    """Multiprocessing's way of making processes, which remembers those it made, so that they can be ended.

    Spawned, not forked: torch's thread pool does not survive a fork.
    """

    def __init__(self) -> None:
        self.made: list[Any] = []
        self._context = multiprocessing.get_context("spawn")

    def Process(self, *arguments: Any, **options: Any) -> Any:
        self.made.append(self._context.Process(*arguments, **options))
        return self.made[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def start_worker(parent: int) -> None:
    """One torch thread per worker, since the others have the other cores; no worker draws, or outlives its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and stops us
    set_quiet(True)  # the terminal is the parent's

    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    """A parent that was killed cannot stop its workers: they look for themselves."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
