"""The label-free combination beside the naive references, on every table given; no network is run.

    python benchmarks/combination.py --nb201 nb201_acc.npz:c10_test_200 nb201_acc.npz:c100_test_200 \\
        --nbmacro nasbench_macro.npz:mean_acc --mnasnet accel_nasbench.npz:val_top1

With --halves the whole weights are chosen again on random halves of the first table, to show how little hangs on them.
"""

import argparse
import itertools
import time
from dataclasses import fields

import numpy as np

from edgewright.core.ranking import band_mean, ranks, spearman, stand, within_bands
from edgewright.ir.signal import Signal, signal
from edgewright.ir.structure import Structure
from edgewright.proxy.combination import WEIGHTS, combine, combine_columns
from edgewright.space.base import TabularSpace
from edgewright.space.resolve import make_tabular
from edgewright.space.table import read_table

SPACES = ("nb201", "nbmacro", "mnasnet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SPACES:
        parser.add_argument(f"--{name}", nargs="+", default=[], help="FILE.npz:COLUMN, accuracy in percent")
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--halves", type=int, default=0)
    options = parser.parse_args()
    for name in SPACES:
        if tables := getattr(options, name):
            _space(make_tabular(name), tables, options.resamples, options.halves)


def _space(space: TabularSpace, tables: list[str], resamples: int, halves: int) -> None:
    every = read_table(tables[0], space).indices
    first = {row: space.canonical(row) for row in every.tolist()}
    unique = np.array([row for row in every.tolist() if first[row] == row])
    began = time.perf_counter()
    signals = {row: signal(graph for _, graph in space.blocks(space.at(row))) for row in unique.tolist()}
    print(f"\n{space.name}: {len(unique)} unique networks, their signals in {time.perf_counter() - began:.1f} s")
    for spec in tables:
        table = read_table(spec, space)
        rows = [("unique", unique)] + ([("all", every)] if len(unique) < len(every) else [])
        for label, chosen in rows:
            facts = [space.structure(space.at(row)) for row in chosen.tolist()]
            _print(f"{spec}, {label}", facts, [signals[first[row]] for row in chosen], table.at(chosen), resamples)
    if halves and len(unique) < len(every):
        _halves([signals[row] for row in unique.tolist()], read_table(tables[0], space).at(unique), halves)


def _print(title: str, facts: list[Structure], signals: list[Signal], truth: np.ndarray, resamples: int) -> None:
    macs = [one.live_macs for one in facts]
    columns = {
        "live parameters": [one.live_params for one in facts],
        "live MACs": macs,
        "sum of log sizes": [one.sum_log_sizes for one in facts],
        "convolutions on a path": [one.mean_convs for one in facts],
        "rank sum of three counts": ranks(macs)
        + 0.3 * ranks([one.mean_convs for one in facts])
        - 0.3 * ranks([one.live_poolings for one in facts]),
        **{field.name: np.round([getattr(one, field.name) for one in signals], 9) for field in fields(Signal)},
        "combination": combine(signals),
    }
    print(f"\n{title}: best {truth.max():.2f} %, average {truth.mean():.2f} %\n")
    print("| score | Spearman | Kendall | at equal MACs | best 5 % | picked | regret |\n" + "|---" * 7 + "|")
    for name, scores in columns.items():
        found = stand(scores, truth, resamples=resamples if name == "combination" else 0)
        if found.missing:
            print(f"| {name} | {found.missing} | | | | | |")
            continue
        band = band_mean(within_bands(scores, truth, macs))
        interval = "[{:.3f}, {:.3f}]".format(*found.intervals["spearman"]) if found.intervals else ""
        print(
            f"| {name} | {found.spearman:.4f} {interval} | {found.kendall:.4f} | "
            f"{'' if band is None else f'{band:.3f}'} | {found.precision[0.05]:.3f} | {found.top1_accuracy:.2f} | "
            f"{found.top1_regret:.2f} |",
            flush=True,
        )


def _halves(signals: list[Signal], truth: np.ndarray, halves: int) -> None:
    columns = {name: np.array([getattr(one, name) for one in signals]) for name in WEIGHTS}
    grid = list(itertools.product((4, 5, 6, 7, 8), (1, 2, 3, 4), (1, 2, 3), (1, 2, 3, 4)))
    logs = np.stack([combine_columns(columns, {name: 1.0}) for name in WEIGHTS], axis=1)
    frozen = logs @ np.array(list(WEIGHTS.values()))
    print("\n| half | chosen on one half | Spearman on the other | frozen weights on the other |\n" + "|---" * 4 + "|")
    for number in range(halves):
        order = np.random.default_rng(number).permutation(len(truth))
        one, other = np.array_split(order, 2)
        best = max(grid, key=lambda weights: spearman(logs[one] @ np.array(weights), truth[one]) or -1.0)
        again = spearman(logs[other] @ np.array(best), truth[other])
        print(f"| {number} | {best} | {again:.4f} | {spearman(frozen[other], truth[other]):.4f} |", flush=True)


if __name__ == "__main__":
    main()
