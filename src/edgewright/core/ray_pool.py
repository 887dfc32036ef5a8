"""The adapter to Ray: the same `imap` as the pool of this machine's processes, over a cluster's cores.

Items name files by their absolute paths, so the machines of a cluster need one disk that all of them see.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from edgewright.core.errors import EdgewrightError, MissingExtra

RUST_WORDS = "No such file or directory: "  # of safetensors, which puts the file's name into the text


class RayPool:
    def __init__(self, ray: Any, workers: int) -> None:
        self._ray, self.workers = ray, workers

    def imap(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        remote = self._ray.remote(num_cpus=1)(_single_threaded_call)
        # All are submitted before the first is awaited; results come in order.
        waiting = [remote.remote(function, item) for item in items]
        for reference in waiting:
            yield self._result(reference)

    def _result(self, reference: Any) -> Any:
        """The result, or the worker's own error in place of Ray's page about it."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise explained(error.cause) from None
        except self._ray.exceptions.RayError as error:
            raise EdgewrightError(
                f"the Ray cluster lost a worker ({first_line(error)}); what was finished is kept: go on with --resume"
            ) from None


def explained(cause: BaseException) -> BaseException:
    """What went wrong in a worker, in one sentence where it is the cluster's fault and not the work's."""
    if isinstance(cause, FileNotFoundError):
        file = cause.filename or first_line(cause).removeprefix(RUST_WORDS)
        return EdgewrightError(
            f"a worker of the Ray cluster cannot see {file}: the run folder must lie on "
            "a disk that all machines of the cluster share, under the same path; choose another --out"
        )
    if isinstance(cause, ModuleNotFoundError):
        return EdgewrightError(
            f"a worker of the Ray cluster lacks {cause.name}: install the same edgewright on all its machines"
        )
    return cause


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


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
        raise EdgewrightError(f"no Ray cluster answers at {address!r}: {first_line(error)}") from None
    try:
        yield RayPool(ray, max(1, int(ray.cluster_resources().get("CPU", 1))))
    finally:
        ray.shutdown()
