"""How fast are networks scored, and what does ZiCo cost beyond the passes that it needs?

    python benchmarks/scoring_speed.py [--networks 60] [--macs 5e6]

Samples `mobile` networks of about `--macs` multiply-adds at 32 px and scores them with ZiCo on 2 batches of 64 random
images, on one process and on two (one torch thread each). Then, for some of them, times the two forward-backward passes
alone and the scoring in turns, in the same memory layout; the ratio is of the medians over networks of each one's best.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from edgewright.core.architecture import Architecture
from edgewright.core.pool import pool
from edgewright.ir.graph import count_macs
from edgewright.proxy.base import score
from edgewright.proxy.resolve import resolve_proxies
from edgewright.search.base import Proposals
from edgewright.search.scoring import ScoringJob, save_batches, score_architecture
from edgewright.space.base import Space
from edgewright.space.resolve import make_space
from edgewright.task.base import InputSpec, Split, TaskSpec

SPEC = TaskSpec(
    name="noise",
    source="dataset",
    inputs=(InputSpec(shape=(3, 32, 32), mean=(127.5,) * 3, std=(73.9,) * 3),),
    names=tuple("abcdefghij"),
    flip=True,
    num_train=256,
    num_val=0,
    num_test=0,
    digest="",
)


def architectures(space: Space, count: int, macs: float) -> list[Architecture]:
    """Networks at 32 px whose multiply-adds are within 10 % of `macs`."""

    def excess(architecture: Architecture) -> float:
        resized = 0.0 if getattr(architecture, "resolution", 32) == 32 else 10.0
        return resized + max(0.0, abs(count_macs(space.graph(architecture)) / macs - 1) - 0.1)

    return Proposals(space, excess, "benchmark", 0, steps=2000).ask(count, space.sample)


def cpu_seconds(job: ScoringJob) -> float:
    """Score in a worker; the processor time it took, which other programs on the machine hardly change."""
    start = time.process_time()
    score_architecture(job)
    return time.process_time() - start


def speed(jobs: list[ScoringJob], processes: int) -> tuple[float, float]:
    """Networks per second of wall clock, and CPU milliseconds per network."""
    with pool(processes) as workers:
        list(workers.imap(cpu_seconds, jobs[: 4 * processes]))  # processes started, first kernels made
        start = time.perf_counter()
        used = list(workers.imap(cpu_seconds, jobs))
        return len(jobs) / (time.perf_counter() - start), 1e3 * statistics.mean(used)


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def plain_passes(model: torch.nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """What ZiCo needs at the least: a forward and a backward pass per batch."""
    model.train()
    for images, labels in batches:
        model.zero_grad()
        F.cross_entropy(model(images), labels).backward()


def ratio(space: Space, chosen: list[Architecture], repeats: int = 7) -> tuple[float, float, float]:
    """Median over networks of zico / plain, and both in ms."""
    torch.set_num_threads(1)
    layout = torch.channels_last
    images = [torch.randn(64, 3, 32, 32).contiguous(memory_format=layout) for _ in range(2)]
    batches = [(x, torch.randint(0, 10, (64,))) for x in images]
    plain, scoring = [], []
    for architecture in chosen:
        model = space.build(architecture).to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        zico = resolve_proxies(["zico"])
        plain_passes(model, batches)
        turns = [(seconds(plain_passes, model, batches), seconds(score, model, batches, zico)) for _ in range(repeats)]
        plain.append(min(turn[0] for turn in turns))
        scoring.append(min(turn[1] for turn in turns))
    ratios = [a / b for a, b in zip(scoring, plain, strict=True)]
    return statistics.median(ratios), 1e3 * statistics.median(scoring), 1e3 * statistics.median(plain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--macs", type=float, default=5e6)
    arguments = parser.parse_args()
    space = make_space("mobile", SPEC)
    chosen = architectures(space, arguments.networks, arguments.macs)
    mean = statistics.mean(count_macs(space.graph(a)) for a in chosen) / 1e6
    print(f"{len(chosen)} mobile networks, {mean:.2f} M MACs on average, 32 px, 2 batches of 64")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (256, 3, 32, 32), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.randint(0, 10, (256,), generator=generator))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batches.safetensors"
        save_batches(path, split)
        jobs = [ScoringJob("mobile", SPEC, a.model_dump(mode="json"), path, ("zico",), seed=0) for a in chosen]
        for processes in (1, 2):
            rate, used = speed(jobs, processes)
            print(
                f"{processes} process(es): {rate:.1f} networks/s; {used:.0f} ms of CPU per network, "
                f"so {1e3 * processes / used:.1f} networks/s on idle cores"
            )
    middle, scoring, plain = ratio(space, chosen[:12])
    print(f"ZiCo {scoring:.0f} ms, two plain passes {plain:.0f} ms, ratio {middle:.3f} (median of networks)")


if __name__ == "__main__":
    main()
