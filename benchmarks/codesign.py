"""FLASH's laws on networks that were really trained and measured: what 25 samples say of the others.

Takes the rows of `linked_networks.py`, measures every network's latency here, and for some random draws of 25: fits the
accuracy law and the latency law, and predicts the rest. Then searches the family once inside a ceiling, and says how
long that took.

    python benchmarks/linked_networks.py --data cifar10.npz --family dense --out runs/linked
    python benchmarks/codesign.py --rows runs/linked/dense.jsonl --latency-ms 0.1
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from edgewright.core.cost import Budget
from edgewright.core.ranking import spearman
from edgewright.device.few.analytic import fit_analytic, network_features
from edgewright.device.measure import Runs
from edgewright.device.resolve import make_device
from edgewright.ir.signal import signal
from edgewright.ir.to_onnx import to_onnx
from edgewright.job.codesign.run import BOUNDS, GROUPS, STRENGTHS, Promise, coarse, strengths
from edgewright.proxy.combination import combine
from edgewright.search.strategies.flash import fit_accuracy_law, minimise
from edgewright.space.spaces.linked import linked_spaces


def accuracy_laws(told: np.ndarray, accuracy: np.ndarray, draws: list[np.ndarray], samples: int) -> None:
    """Each draw's law, fitted on its first networks, held against the rest."""
    for names, columns in (((STRENGTHS[0],), told[:, :1]), (STRENGTHS, told)):
        results = []
        for order in draws:
            some, rest = order[:samples], order[samples:]
            predicted = fit_accuracy_law(names, columns[some], accuracy[some]).predict(columns[rest])
            results.append((spearman(predicted, accuracy[rest]) or 0.0, np.median(np.abs(predicted - accuracy[rest]))))
        order, error = np.mean(results, axis=0)
        print(
            f"accuracy law on {' + '.join(names):<42} Spearman {order:.3f}, median error {error:.2f} points on the rest"
        )


def latency_laws(found: np.ndarray, latency: np.ndarray, draws: list[np.ndarray], samples: int) -> None:
    results = []
    for order in draws:
        some, rest = order[:samples], order[samples:]
        law = fit_analytic(found[some], latency[some])
        predicted = np.array([law.latency_ms(row) for row in found[rest]])
        errors = np.abs(predicted / latency[rest] - 1)
        results.append((spearman(predicted, latency[rest]) or 0.0, np.median(errors), np.mean(errors)))
    order, median, mean = np.mean(results, axis=0)
    print(f"latency law: Spearman {order:.3f}, median error {median:.1%}, mean {mean:.1%} on the rest")


def search(promise: Promise, ceiling: float) -> tuple:
    """The cells that the hierarchical search finds; prints how long it took, and what random points find."""
    began = time.perf_counter()
    point, value = minimise(promise.value, BOUNDS, GROUPS, coarse=coarse, num_coarse=4)
    took = time.perf_counter() - began
    rng = np.random.default_rng(0)
    draw = [promise.value([int(rng.integers(low, high + 1)) for low, high in BOUNDS]) for _ in range(5000)]
    print(f"search inside {ceiling} ms: {took:.2f} s, {-value:.2f} % promised", end="")
    print(f"; the best of 5,000 random points {-min(draw):.2f} %")
    return promise.cells(point)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=25)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--latency-ms", type=float, default=0.1)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.rows.read_text().splitlines()]
    first = rows[0]["architecture"]
    family = linked_spaces()[first["space"].removeprefix("linked-")]
    space = family.for_images(first["channels"], first["outputs"], first["resolution"])
    architectures = [space.read(row["architecture"]) for row in rows]
    device = make_device("cpu", 1)
    latency = np.array([device.measure([to_onnx(space.graph(a))], Runs(most=200))[0].median_ms for a in architectures])
    accuracy = np.array([row["test_accuracy"] for row in rows])
    told = np.array([strengths(a.cells) for a in architectures])
    found = np.array([network_features(graph for _, graph in space.blocks(a)) for a in architectures])
    print(f"{len(rows)} networks of {space.name}, {accuracy.min():.1f} to {accuracy.max():.1f} %, ", end="")
    print(f"{latency.min():.3f} to {latency.max():.3f} ms; {args.samples} samples, {args.draws} draws")
    naive = {"NN-Degree": told[:, 0], "parameters": [r["params"] for r in rows], "MACs": [r["macs"] for r in rows]}
    naive["combination"] = combine([signal(graph for _, graph in space.blocks(a)) for a in architectures])
    for name, score in naive.items():
        print(f"{name:<12} alone: Spearman {spearman(np.asarray(score, dtype=float), accuracy):.3f} over all")
    rng = np.random.default_rng(0)
    draws = [rng.permutation(len(rows)) for _ in range(args.draws)]
    accuracy_laws(told, accuracy, draws, args.samples)
    latency_laws(found, latency, draws, args.samples)
    some = draws[0][: args.samples]
    law, times = fit_accuracy_law(STRENGTHS, told[some], accuracy[some]), fit_analytic(found[some], latency[some])
    promise = Promise(space, Budget(latency_ms=args.latency_ms), law, times, 1.0)
    cells = search(promise, args.latency_ms)
    measured = device.measure([to_onnx(space.graph(space.of(cells)))], Runs(most=300))[0].median_ms
    print(f"its network: {', '.join(f'{c.depth} x {c.width} links {c.links}' for c in cells)}; ", end="")
    print(f"predicted {promise.costs(cells)['latency']:.4f} ms, measured {measured:.4f} ms")


if __name__ == "__main__":
    main()
