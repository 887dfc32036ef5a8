"""What `design` reaches beside plain networks that nobody searched for, on the same data.

    python benchmarks/plain_baseline.py --data arrays:cifar10.npz --minutes 30 --seeds 0 1 2 --out runs/plain
    python benchmarks/plain_baseline.py --data arrays:cifar10.npz --minutes 5 --share 1 --latency-ms 0.15 \
        --factors 0.5 0.8 1.33 --out runs/plain

The plain network: seven 3x3 convolutions (32-32-64-64-128-128-128, times --factors), each with a batch norm and a ReLU;
strides so that the map ends at 4 px; its mean, one linear layer. It has the library's own `fit` and `recipe_for`, and a
quarter of the minutes of `design` (--share), the guess at the number of epochs included. All have the same train, val
and test parts; test is looked at once. `design` keeps a ceiling on latency: the first plain network's own, or
--latency-ms. In the end all files are measured in turns, in one measurement, one thread, batch 1.

A finished `design` is kept (seedN/design) and one that was cut goes on; the plain network is trained anew.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgewright.compress.wiring import trace
from edgewright.core.cost import Budget
from edgewright.core.files import write_text
from edgewright.core.plan import Plan
from edgewright.core.result import Result
from edgewright.core.run import RunFolder
from edgewright.core.seed import derive
from edgewright.core.tensors import Size
from edgewright.device.compare import compared
from edgewright.device.measure import Runs
from edgewright.device.resolve import make_device
from edgewright.export.onnx import export_onnx
from edgewright.job.design.run import resume, run
from edgewright.model.blocks import ConvNorm
from edgewright.model.network import Network, with_head
from edgewright.task.base import Task
from edgewright.task.load import load_task
from edgewright.train.clock import StepClock, TimeClock
from edgewright.train.evaluate import evaluate
from edgewright.train.loop import Running, fit, training_device
from edgewright.train.recipe import recipe_for
from edgewright.train.threads import threads_for

WIDTHS = (32, 32, 64, 64, 128, 128, 128)
HALVED = (1, 3, 5, 0, 2, 4, 6)  # layers that halve the map, in the order in which they are asked to
LAST_SIDE = 4  # pixels
FIRST_STEPS = 5  # that say how many epochs there will be
FIGURES = ("accuracy", "balanced_accuracy")


def plain(task: Task, seed: int, widths: Sequence[int] = WIDTHS) -> Network:
    """The seven convolutions, with the seed's weights."""
    halvings = max(0, round(math.log2(max(task.spec.size) / LAST_SIDE)))
    parts: dict[str, nn.Module] = {}
    source = task.spec.input.shape[0]
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, "plain"))
        for layer, width in enumerate(widths):
            parts[f"conv{layer + 1}"] = ConvNorm(source, width, 3, 2 if layer in HALVED[:halvings] else 1)
            source = width
        return with_head(parts, task.kind.head, source)


def macs(model: nn.Module, task: Task) -> int:
    return trace(model, torch.zeros(1, *task.spec.input.shape)).macs


def expected_epochs(task: Task, size: Size, seconds: float, widths: Sequence[int]) -> float:
    """How many epochs fit, by a few steps of another such network."""
    clock, recipe = StepClock(FIRST_STEPS), recipe_for(task.spec, 1)
    few = replace(task, val=task.val.take(slice(recipe.batch_size)))
    running = Running(device=training_device())
    found = fit(plain(task, 0, widths), few, recipe, size=size, seed=0, clock=clock, running=running)
    assert found.samples_per_second is not None
    return seconds * found.samples_per_second / len(task.train)


def learned(model: Network, task: Task, seed: int, seconds: float, widths: Sequence[int]) -> dict[str, Any]:
    """Train the plain network in so many seconds, everything before the test included; how good it is."""
    began, size = time.monotonic(), task.spec.size
    with threads_for(recipe_for(task.spec, 1).batch_size * macs(model, task)):
        epochs = expected_epochs(task, size, seconds, widths)
        left = seconds - (time.monotonic() - began)
        if left <= 0:
            raise SystemExit(f"{seconds:.0f} s are over before the training begins; give more --minutes")
        found = fit(
            model, task, recipe_for(task.spec, epochs), size=size, seed=derive(seed, "plain"), clock=TimeClock(left),
            running=Running(device=training_device(), label="Plain network"),
        )  # fmt: skip
    took = time.monotonic() - began
    return {**evaluate(model, task.test, task.spec).values, "epochs": found.epochs, "minutes": took / 60}


def designed(args: argparse.Namespace, seed: int, ceiling: float, out: Path) -> Result:
    """The main job, with nothing chosen but the ceiling and the minutes."""
    plan = Plan(task=args.data, budget=Budget(latency_ms=ceiling), minutes=args.minutes, seed=seed)
    if RunFolder(out).result.exists():
        return RunFolder(out).read_result()
    return resume(out) if RunFolder(out).plan.exists() else run(plan, out)


def compare(args: argparse.Namespace, seed: int) -> dict[str, dict[str, Any]]:
    """The row of each of the two."""
    folder = args.out / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    task, device = load_task(args.data, seed=seed), make_device("cpu", 1)
    rows: dict[str, dict[str, Any]] = {}
    files: dict[str, Path] = {}
    ceiling = args.latency_ms
    for factor in args.factors:
        name, widths = f"plain x{factor:g}", [max(8, round(factor * width / 8) * 8) for width in WIDTHS]
        model, file = plain(task, seed, widths), folder / f"plain-{factor:g}.onnx"
        if ceiling is None:
            export_onnx(model, task.spec.input.shape, file)
            ceiling = device.measure([file], Runs(most=args.runs, tries=3))[0].median_ms
        rows[name] = learned(model, task, seed, 60 * args.share * args.minutes, widths)
        rows[name] |= {"macs": macs(model, task), "params": sum(p.numel() for p in model.parameters())}
        export_onnx(model, task.spec.input.shape, file)
        files[name] = file
    result = designed(args, seed, ceiling, folder / "design")
    if result.task["digest"] != task.spec.digest:
        raise SystemExit(f"{folder}: holds a run on other data; choose another --out")
    files["design"] = RunFolder(folder / "design").onnx
    costs, stages = result.costs, result.seconds
    rows["design"] = {**result.metrics.test, **{name: round(costs[name].value) for name in ("macs", "params")}}
    rows["design"] |= {"minutes": sum(stages.values()) / 60, "stages": stages, "val": result.metrics.on_val}
    found = device.measure(list(files.values()), Runs(most=args.runs, tries=3))
    for row, latency in zip((rows[name] for name in files), found, strict=True):
        row |= {"latency_ms": latency.median_ms, "of_plain": compared(latency, found[0]).text(), "ceiling_ms": ceiling}
    return rows


def line(name: str, row: dict[str, Any]) -> str:
    cells = [*(f"{row[figure]:.2f}" for figure in FIGURES), f"{row['latency_ms']:.4f}", row["of_plain"]]
    cells += [f"{row['macs']:,}", f"{row['params']:,}", f"{row['minutes']:.2f}"]
    return f"| {name} | {' | '.join(cells)} |"


def show(rows: dict[int, dict[str, dict[str, Any]]]) -> None:
    heads = ("", "accuracy, %", "balanced, %", "ms", "of plain's, 95 %", "MACs", "parameters", "minutes")
    print(f"\n| {' | '.join(heads)} |", "|---" * len(heads) + "|", sep="\n")
    for seed, pair in rows.items():
        for name, row in pair.items():
            print(line(f"{name}, seed {seed}", row))
    for seed, pair in rows.items():
        spent = ", ".join(f"{name} {seconds:.0f}" for name, seconds in pair["design"]["stages"].items())
        learned_for = ", ".join(f"{row['epochs']:.1f}" for row in pair.values() if "epochs" in row)
        print(f"\nseed {seed}: ceiling {pair['design']['ceiling_ms']:.4f} ms; design's seconds: {spent}", end="")
        print(f"; the plain networks learned for {learned_for} epochs", end="")
    told = []
    for figure in FIGURES:
        gains = [pair["design"][figure] - max(_others(pair, figure)) for pair in rows.values()]
        spread = f"{statistics.mean(gains):+.2f} ({min(gains):+.2f} to {max(gains):+.2f})"
        told.append(f"{figure.replace('_', ' ')} {spread}")
    print(
        f"\n\ndesign minus the best plain network inside the ceiling, points, of {len(rows)} seeds: {'; '.join(told)}"
    )


def _others(rows: dict[str, dict[str, Any]], figure: str) -> list[float]:
    """Of the plain networks inside the ceiling; of all of them, where none is."""
    plain_ones = [row for name, row in rows.items() if name != "design"]
    return [row[figure] for row in plain_ones if row["latency_ms"] <= row["ceiling_ms"]] or [
        row[figure] for row in plain_ones
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="arrays:FILE.npz or images:DIR, of classes")
    parser.add_argument("--minutes", type=float, default=30, help="of design")
    parser.add_argument("--share", type=float, default=0.25, help="of design's minutes that the plain network has")
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0], help="of the plain networks' widths")
    parser.add_argument("--latency-ms", type=float, help="design's ceiling; without, the first plain network's latency")
    parser.add_argument("--runs", type=int, default=500, help="timed runs of each file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/plain"))
    args = parser.parse_args()
    rows: dict[int, dict[str, dict[str, Any]]] = {}
    for seed in args.seeds:
        rows[seed] = compare(args, seed)
        write_text(args.out / "rows.json", json.dumps(rows, indent=2))
        show(rows)


if __name__ == "__main__":
    main()
