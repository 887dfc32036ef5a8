"""Networks of the design space learn CIFAR-10 in float32 and in bfloat16: what it costs, and what it gains.

    python benchmarks/training_precision.py --data cifar10.npz --out runs/precision --seconds 300

1. Speed: both precisions step by step in turns, so that whatever else the machine does meets both.
2. The same steps (--epochs) in each: what 16 bits cost in accuracy.
3. The same seconds (--seconds) in float32 and as `fit` chooses: what the speed gains.

Rows are kept as they come (rows.jsonl), trainings in checkpoints: a cut run goes on. One thread.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edgewright.core.seed import derive
from edgewright.ir.graph import count_macs
from edgewright.space.resolve import make_space
from edgewright.task.base import Task, batches
from edgewright.task.load import load_task
from edgewright.train.clock import Clock, StepClock, TimeClock, steps_per_epoch
from edgewright.train.evaluate import evaluate
from edgewright.train.loop import Running, fit
from edgewright.train.precision import Precision, computing, prepared
from edgewright.train.recipe import recipe_for

BATCH = 128


class Contestant:
    """A network of a space, by the space's name and a seed: mobile/1."""

    def __init__(self, name: str, task: Task) -> None:
        space, _, seed = name.partition("/")
        self.name, self._space = name, make_space(space, task.spec)
        self._architecture = self._space.sample(Random(int(seed)))
        self.graph = self._space.graph(self._architecture)
        self.size = self._space.resolution(self._architecture)

    def build(self, seed: int) -> nn.Module:
        torch.manual_seed(derive(seed, "weights"))
        return self._space.build(self._architecture)


def step_seconds(one: Contestant, task: Task, steps: int) -> dict[Precision, float]:
    """The median step of each precision, taken in turns."""
    model = one.build(0).train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = next(batches(task.train, task.spec, batch_size=BATCH, size=one.size))
    x = x.to(memory_format=torch.channels_last)
    took: dict[Precision, list[float]] = {"float32": [], "bfloat16": []}
    with prepared(model, None):
        for _ in range(steps + 2):
            for precision, times in took.items():
                began = time.perf_counter()
                with computing(precision, "cpu"):
                    loss = functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                times.append(time.perf_counter() - began)
    return {precision: statistics.median(times[2:]) for precision, times in took.items()}


def learned(
    one: Contestant, task: Task, seed: int, clock: Clock, precision: Precision | None, checkpoint: Path, epochs: float
) -> dict[str, Any]:
    """Train it; what came out."""
    model, recipe = one.build(seed), recipe_for(task.spec, epochs).model_copy(update={"precision": precision})
    found = fit(
        model, task, recipe, size=one.size, seed=seed, clock=clock,
        running=Running(checkpoint, threads=1, label=checkpoint.stem),
    )  # fmt: skip
    accuracy = evaluate(model, task.test, task.spec, one.size).values["accuracy"]
    return {
        "accuracy": accuracy,
        "epochs": found.epochs,
        "seconds": found.seconds,
        "computed_in": found.history[-1].precision,
    }


def _told(rows: list[dict[str, Any]]) -> str:
    mean, epochs = (statistics.mean(row[name] for row in rows) for name in ("accuracy", "epochs"))
    return f"{mean:.2f} % after {epochs:.1f} epochs (seeds: {len(rows)})"


def table(rows: list[dict[str, Any]]) -> str:
    """A line a network and a question; accuracies in percent of the test images, means over seeds."""
    lines = ["| network | MACs | | float32 | bfloat16 |", "|---" * 5 + "|"]
    keys = dict.fromkeys((row["network"], row["kind"]) for row in rows)
    for network, kind in keys:
        mine = [row for row in rows if (row["network"], row["kind"]) == (network, kind)]
        if kind == "speed":
            told = [f"{1e3 * row['step']:.0f} ms a step" for row in mine]
        else:
            told = []
            for precision in ("float32", "bfloat16"):
                some = [row for row in mine if row["precision"] == precision]
                told.append(_told(some) if some else "")
        lines.append(f"| {network} | {mine[0]['macs']:,} | {kind} | {' | '.join(told)} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as .npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=["mobile/1", "nb201/2"], help="SPACE/SEED")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=10, help="of the measurement of speed")
    parser.add_argument("--epochs", type=int, default=4, help="of the comparison at equal steps; 0 for none")
    parser.add_argument("--seconds", type=float, default=300, help="of the comparison at equal times; 0 for none")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    task = load_task(f"arrays:{options.data}")
    file = options.out / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        with file.open("a") as out:
            out.write(json.dumps(row) + "\n")
        print(table(rows), flush=True)

    def known(**wanted: Any) -> bool:
        return any(all(row.get(key) == value for key, value in wanted.items()) for row in rows)

    per_epoch = steps_per_epoch(len(task.train), BATCH)
    for one in [Contestant(name, task) for name in options.networks]:
        about = {"network": one.name, "macs": count_macs(one.graph)}
        if not known(network=one.name, kind="speed"):
            for precision, seconds in step_seconds(one, task, options.steps).items():
                keep({**about, "kind": "speed", "precision": precision, "step": seconds})
        for seed in options.seeds:
            for precision in ("float32", "bfloat16"):
                for kind, amount in (("equal steps", options.epochs), ("equal seconds", options.seconds)):
                    row = {**about, "kind": kind, "precision": precision, "seed": seed}
                    if not amount or known(**row):
                        continue
                    steps = kind == "equal steps"
                    clock = StepClock(options.epochs * per_epoch) if steps else TimeClock(options.seconds)
                    path = options.out / f"{one.name.replace('/', '-')}-{kind[6:]}-{precision}-{seed}.ckpt"
                    taken: Precision | None = precision if steps or precision == "float32" else None
                    keep({**row, **learned(one, task, seed, clock, taken, path, options.epochs)})
    print(table(rows))


if __name__ == "__main__":
    main()
