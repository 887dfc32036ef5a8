"""Cheap scoring beside the exact one: seconds and rank correlation on NAS-Bench-201.

    python benchmarks/cheap_scoring.py --table nb201_acc.npz:c10_test_200 --data arrays:cifar10.npz [--sample 300]

Scores every unique cell cheaply with `--proxies`: the space's thin network, at most 16 images a batch, cells that
compute the same with fresh weights once. Then `--sample` random cells exactly, with 2 batches of 64 images on the whole
network, and compares on these the Spearman correlation of both with the table, with a 95 % bootstrap interval of what
is lost. CPU seconds, summed over the processes, are those of an idle machine; wall time is that of this one as it was.
"""

import argparse
import tempfile
import time
from pathlib import Path
from random import Random

import numpy as np

from edgewright.core.pool import pool
from edgewright.core.ranking import spearman
from edgewright.job.rank.run import first_twins, sample_rows
from edgewright.search.scoring import ScoringJob, save_batches, score_architecture
from edgewright.space.resolve import make_tabular
from edgewright.space.table import read_table
from edgewright.task.load import load_task


def timed(job: ScoringJob) -> tuple[dict[str, float], float]:
    """The scores, and the CPU seconds that they took in this process."""
    began = time.process_time()
    return score_architecture(job), time.process_time() - began


def score_all(jobs: list[ScoringJob], processes: int) -> tuple[list[dict[str, float]], float, float]:
    """Scores, wall seconds (processes started beforehand) and CPU seconds."""
    with pool(processes) as workers:
        list(workers.imap(timed, jobs[: 2 * processes]))
        began = time.perf_counter()
        found = list(workers.imap(timed, jobs))
        return [scores for scores, _ in found], time.perf_counter() - began, sum(used for _, used in found)


def correlation(scores: np.ndarray, truth: np.ndarray) -> float:
    """Spearman; NaN where it is not defined."""
    found = spearman(scores, truth)
    return float("nan") if found is None else found


def interval(cheap: np.ndarray, exact: np.ndarray, truth: np.ndarray, resamples: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval, over networks, of the exact score's Spearman minus the cheap one's."""
    random = np.random.default_rng(0)
    lost = []
    for _ in range(resamples):
        chosen = random.integers(len(truth), size=len(truth))
        lost.append(correlation(exact[chosen], truth[chosen]) - correlation(cheap[chosen], truth[chosen]))
    low, high = np.quantile(lost, (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, help="FILE.npz:COLUMN, accuracy in percent")
    parser.add_argument("--data", required=True, help="arrays:FILE.npz, of 32 px images")
    parser.add_argument("--proxies", default="zico,zico_compat")
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = tuple(options.proxies.split(","))
    task = load_task(options.data, seed=options.seed)
    space = make_tabular("nb201", task.spec.input.shape[0], task.kind.head.outputs, task.spec.size)
    table = read_table(options.table, space)
    rows = sample_rows(space, [table], None, options.seed)
    few = sorted(Random(options.seed).sample(rows, min(options.sample, len(rows))))
    first = first_twins(space, rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batches.safetensors"
        save_batches(path, task.train, seed=options.seed)

        def jobs(chosen: list[int], cheap: bool) -> list[ScoringJob]:
            data = [space.at(row).model_dump(mode="json") for row in chosen]
            return [ScoringJob("nb201", task.spec, each, path, names, options.seed, cheap) for each in data]

        once = sorted(set(first.values()))
        scores, wall, used = score_all(jobs(once, True), options.processes)
        of_row = dict(zip(once, scores, strict=True))
        print(
            f"cheap: {len(rows)} cells, {len(once)} scored, {wall:.0f} s on {options.processes} processes, "
            f"{len(rows) / wall:.1f} cells/s; {1e3 * used / len(once):.1f} ms of CPU each, "
            f"so {used / options.processes:.0f} s on idle cores",
            flush=True,
        )
        exact, wall, used = score_all(jobs(few, False), options.processes)
        each = 1e3 * used / len(few)
        print(f"exact: {len(few)} cells, {wall:.0f} s, {len(few) / wall:.2f} cells/s; {each:.0f} ms of CPU each")
    truth, sampled = table.at(rows), table.at(few)
    for name in names:
        cheap = np.array([of_row[first[row]][name] for row in rows])
        thin = np.array([of_row[first[row]][name] for row in few])
        whole = np.array([one[name] for one in exact])
        low, high = interval(thin, whole, sampled)
        one, other = correlation(whole, sampled), correlation(thin, sampled)
        both, everywhere = correlation(thin, whole), correlation(cheap, truth)
        print(
            f"{name}: Spearman on the sample exact {one:.4f}, cheap {other:.4f}, lost {one - other:.4f} "
            f"[{low:.4f}, {high:.4f}]; between both {both:.4f}; cheap on all {everywhere:.4f}"
        )


if __name__ == "__main__":
    main()
