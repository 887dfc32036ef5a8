"""Score one architecture in any process: everything the work needs is in a small job, everything heavy in a file."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.core.seed import derive
from edgewright.core.tensors import Size, mapped
from edgewright.proxy.base import Batch, Proxy, score
from edgewright.proxy.resolve import resolve_proxies
from edgewright.proxy.trees import end_to_end
from edgewright.start.resolve import open_space
from edgewright.start.start import Start
from edgewright.task.base import Split, TaskSpec, kind_of, normalise
from edgewright.task.kind import Kind
from edgewright.task.stored import read_splits, write_splits
from edgewright.train.threads import keep_freed_memory, torch_threads

CHEAP_IMAGES = 16  # of a batch; 8 to 32 on thin NAS-Bench-201 networks gave ZiCo the same Spearman within noise


@dataclass(frozen=True)
class ScoringJob:
    """One architecture to score, small enough to send to any process: the data is a file.

    Args:
        space: name of the space.
        architecture: the architecture's fields, as its space reads them.
        batches: the file that `save_batches` wrote.
        proxies: names of the proxies.
        seed: of the weights and of whatever a proxy draws.
        cheap: score the space's `thin` network on at most 16 images of each batch. Proxies of the structure alone
            (parameters, MACs) are still those of the whole network.
        start: what the network was made of; None for fresh weights.
    """

    space: str
    spec: TaskSpec
    architecture: dict[str, Any]
    batches: Path
    proxies: tuple[str, ...]
    seed: int
    cheap: bool = False
    start: Start | None = None


def save_batches(path: Path, split: Split, *, count: int = 2, size: int = 64, seed: int = 0) -> None:
    """Draw the fixed batches of a search from `split` and write them, raw, where the workers find them.

    A split with fewer than count * size images gives smaller batches, of equal sizes and without shared images.
    """
    size = max(1, min(size, len(split) // count))
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(derive(seed, "scoring batches")))
    write_splits(path, {str(index): split.take(order[index * size : (index + 1) * size]) for index in range(count)})


def score_architecture(job: ScoringJob) -> dict[str, float]:
    """Build the job's network with fresh weights and score it; the same job gives the same bits in any process.

    The weights follow from the seed and the architecture, the batches are fixed, and torch runs on one thread, because
    the order of a parallel sum depends on the number of threads.
    """
    keep_freed_memory()
    spec = job.spec.model_dump_json()
    space = open_space(job.space, job.spec, job.start)
    architecture = space.read(job.architecture)
    seed = derive(job.seed, "score", architecture.key())
    proxies, kind = resolve_proxies(job.proxies), kind_of(job.spec)
    scored = partial(_scored, seed=seed, kind=kind, learned=space.learned)
    with torch_threads(1):
        batches = _batches(job.batches, job.batches.stat().st_mtime_ns, spec, space.resolution(architecture))
        if not job.cheap:
            return scored(_fresh(space.build, architecture, seed), batches, proxies)
        still = [proxy for proxy in proxies if proxy.of_structure]
        running = [proxy for proxy in proxies if not proxy.of_structure]
        few = [tuple(mapped(lambda part: part[:CHEAP_IMAGES], tree) for tree in batch) for batch in batches]
        found = scored(_fresh(space.build, architecture, seed), few, still) if still else {}
        found |= scored(_fresh(space.thin, architecture, seed), few, running) if running else {}
        return {proxy.name: found[proxy.name] for proxy in proxies if proxy.name in found}


def _scored(
    network: nn.Module, batches: Sequence[Batch], proxies: Sequence[Proxy], *, seed: int, kind: Kind, learned: bool
) -> dict[str, float]:
    network, batches, loss = end_to_end(network, batches, kind.loss)
    return score(network, batches, proxies, seed=seed, loss=loss, examples=kind.examples, settled=learned)


def _fresh(build: Callable[[Any], nn.Module], architecture: Any, seed: int) -> nn.Module:
    """The network with the seed's weights, in the layout in which CPU convolutions are fastest."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(architecture).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


@functools.lru_cache(maxsize=16)
def _batches(path: Path, modified_ns: int, spec: str, size: Size) -> tuple[Batch, ...]:
    """The file's batches as networks take them at `size`, once per process."""
    task = TaskSpec.model_validate_json(spec)

    def laid_out(x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    parts = read_splits(path).values()
    return tuple((mapped(laid_out, normalise(part.inputs, task, size)), part.targets) for part in parts)
