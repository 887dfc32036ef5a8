"""Accuracy of all networks of a table from 25 and 100 labels, beside a random forest on counts and the ranking alone.

Spearman over the networks without a label, mean and standard deviation of the draws of labels.

    python benchmarks/few_labels.py --space nb201 --tables nb201_acc.npz:c10_test_200 nb201_acc.npz:c100_test_200
"""

import argparse
from dataclasses import astuple

import numpy as np
from sklearn.ensemble import RandomForestRegressor

from edgewright.core.ranking import spearman
from edgewright.core.seed import derive
from edgewright.ir.signal import signal
from edgewright.proxy.combination import combine
from edgewright.search.predictor import describe, predict
from edgewright.space.resolve import make_tabular
from edgewright.space.table import read_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="nb201")
    parser.add_argument("--tables", nargs="+", required=True, help="FILE.npz:COLUMN, accuracy in percent")
    parser.add_argument("--labels", type=int, nargs="+", default=[25, 100])
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    space = make_tabular(options.space, 3, 10, 32)
    rows = [row for row in range(len(space)) if space.canonical(row) == row]
    pool = [space.at(row) for row in rows]
    prior = combine([signal(graph for _, graph in space.blocks(one)) for one in pool])
    features = describe(space, pool)
    counts = np.array([astuple(space.structure(one)) for one in pool], dtype=float)
    counts[:, 6] = np.log1p(counts[:, 6])  # the number of paths overflows a forest's float32
    print(f"{options.space}: {len(pool)} networks, {features.shape[1]} features")
    print("| table | labels | forest on counts | without the prior | predictor | prior alone |\n" + "|---" * 6 + "|")
    for spec in options.tables:
        truth = np.asarray(read_table(spec, space).at(rows))
        alone = spearman(prior, truth)
        for count in options.labels:
            found = np.array([_draw(features, counts, prior, truth, count, seed) for seed in range(options.draws)])
            cells = [f"{m:.4f} ({s:.4f})" for m, s in zip(found.mean(axis=0), found.std(axis=0), strict=True)]
            print(f"| {spec.split(':')[-1]} | {count} | {' | '.join(cells)} | {alone:.4f} |", flush=True)


def _draw(
    features: np.ndarray, counts: np.ndarray, prior: np.ndarray, truth: np.ndarray, count: int, seed: int
) -> list[float]:
    random = np.random.default_rng(derive(seed, "labels")).choice(len(truth), count, replace=False)
    forest = RandomForestRegressor(100, random_state=seed).fit(counts[random], truth[random]).predict(counts)
    led = predict(features, prior, random, truth[random], seed=seed)
    free = predict(features, None, random, truth[random], seed=seed)
    rest = np.setdiff1d(np.arange(len(truth)), random)
    return [spearman(scores[rest], truth[rest]) or 0.0 for scores in (np.asarray(forest), free, led)]


if __name__ == "__main__":
    main()
