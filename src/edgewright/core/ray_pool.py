"""The adapter to Ray: the same `imap` as the pool of this machine's processes, over a cluster's cores."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from edgewright.core.errors import EdgewrightError, MissingExtra


class RayPool:
    def __init__(self, ray: Any, workers: int) -> None:
        self._ray, self.workers = ray, workers

    def imap(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        remote = self._ray.remote(num_cpus=1)(_single_threaded_call)
        # All are submitted before the first is awaited; results come in order.
        waiting = [remote.remote(function, item) for item in items]
        for reference in waiting:
            yield self._ray.get(reference)


def _single_threaded_call(function: Callable[[Any], Any], item: Any) -> Any:
    import torch

    torch.set_num_threads(1)
    return function(item)


@contextlib.contextmanager
def ray_pool(address: str) -> Iterator[RayPool]:
    """Connect to the cluster at `address` ("local" starts one here) and leave it afterwards."""
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtra("Ray", "ray") from None
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise EdgewrightError(f"no Ray cluster answers at {address!r}: {error}") from None
    try:
        yield RayPool(ray, max(1, int(ray.cluster_resources().get("CPU", 1))))
    finally:
        ray.shutdown()
