"""How well the latency table predicts networks that it has never seen, and how long it takes to build from nothing.

    python benchmarks/latency_table.py --sides 8 32 96 --networks 48 --held-out 30

For each side of the image: sample networks of the `mobile` space, build the table in an empty cache, then measure other
networks whole (at least 60 runs, interleaved with the reference network) and compare: with the median, and ("quiet")
with the mean of the faster half of the runs, which on a machine that others use says what the network itself takes.
Figures to reach: rank correlation (Spearman) >= 0.95, median error <= 10 %, table from nothing in <= 60 s.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from edgewright.core.seed import rng
from edgewright.device.measure import Runs
from edgewright.device.resolve import make_device
from edgewright.ir.graph import chain
from edgewright.ir.to_onnx import to_onnx
from edgewright.space.spaces.mobile import MobileSpace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[8, 32, 96])
    parser.add_argument("--networks", type=int, default=48, help="networks that the table may be built from")
    parser.add_argument("--held-out", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=30, help="time for building the table")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    device = make_device("cpu", arguments.threads)
    print(device.identity())
    print(
        "side  build s  pieces  covered  latencies ms    Spearman  median error  "
        "quiet: Spearman  median error  p90 error  noisy"
    )
    for side in arguments.sides:
        print(row(device, side, arguments), flush=True)


def row(device, side: int, arguments: argparse.Namespace) -> str:
    space = MobileSpace.for_images(1 if side == 8 else 3, 10, side)
    random = rng(arguments.seed, "benchmark", side)
    sampled = [space.graph(space.sample(random)) for _ in range(arguments.networks)]
    held_out = [space.blocks(space.sample(random)) for _ in range(arguments.held_out)]
    with tempfile.TemporaryDirectory() as cache:
        model = device.latency_model(sampled, cache=Path(cache), seconds=arguments.seconds)
    predicted = np.array([model.predict(blocks) for blocks in held_out])
    latencies = [device.measure([to_onnx(chain(g for _, g in blocks))], Runs(most=60))[0] for blocks in held_out]
    measured = np.array([latency.median_ms for latency in latencies])
    quiet = np.array([latency.quiet_ms for latency in latencies])
    errors, quiet_errors = np.abs(predicted / measured - 1), np.abs(predicted / quiet - 1)
    covered = np.mean([model.coverage(blocks) for blocks in held_out])
    return (
        f"{side:4d}  {model.seconds:7.1f}  {len(model.pieces):6d}  {covered:6.0%}  "
        f"{measured.min():6.3f}..{measured.max():<7.3f}  {spearmanr(predicted, measured)[0]:7.3f}  "
        f"{np.median(errors):12.1%}  {spearmanr(predicted, quiet)[0]:15.3f}  {np.median(quiet_errors):12.1%}  "
        f"{np.quantile(quiet_errors, 0.9):9.1%}  {sum(item.noisy for item in latencies):3d}"
    )


if __name__ == "__main__":
    main()
