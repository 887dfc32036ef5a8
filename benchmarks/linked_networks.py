"""Train random networks of one linked family on a part of the data: the set that accuracy predictors are judged on.

Networks are drawn evenly over the logarithm of their MACs, trained with the toolkit's recipe and no search, and judged
on the whole test part. Rows are kept as they come, so a cut run goes on; `codesign.py` reads them.

    python benchmarks/linked_networks.py --data cifar10.npz --family mobile --networks 70 --out runs/linked
"""

import argparse
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from edgewright.core.architecture import Architecture
from edgewright.core.npz import read_npz
from edgewright.core.pool import pool
from edgewright.core.seed import derive
from edgewright.ir.graph import count_macs, count_params
from edgewright.job.codesign.run import evenly_over_macs
from edgewright.space.base import Space
from edgewright.space.resolve import make_space
from edgewright.task.load import load_task
from edgewright.train.clock import StepClock, steps_per_epoch
from edgewright.train.evaluate import evaluate
from edgewright.train.loop import fit
from edgewright.train.recipe import recipe_for


def part_of(data: str, count: int, folder: Path) -> str:
    """The first `count` training images and all test images, as a task."""
    path = folder / f"first-{count}.npz"
    if not path.exists():
        whole = read_npz(Path(data))
        part: dict[str, Any] = {n: whole[n][:count] if n.endswith("train") else whole[n] for n in whole}
        np.savez(path, **part)
    return f"arrays:{path}"


def pick(space: Space, count: int, least: float, most: float, seed: int) -> list[Architecture]:
    """Random networks with `least` to `most` MACs, spread evenly over their logarithm, in random order."""
    random = Random(seed)
    return random.sample(evenly_over_macs(space, count, least, most, random=random, tries=100 * count), count)


def train(job: tuple[str, int, str, dict, int, int]) -> dict[str, float]:
    """Test and validation accuracy (percent) after a short training, one thread."""
    source, resolution, name, data, epochs, seed = job
    task = load_task(source, seed=0, resolution=resolution)
    space = make_space(name, task.spec)
    architecture = space.read(data)
    torch.manual_seed(derive(seed, "weights", architecture.key()))
    model = space.build(architecture)
    recipe = recipe_for(task.spec, epochs)
    clock = StepClock(epochs * steps_per_epoch(len(task.train), recipe.step_samples))
    trained = fit(model, task, recipe, size=task.spec.size, seed=seed, clock=clock)
    test = evaluate(model, task.test, task.spec).values["accuracy"]
    return {"test_accuracy": test, "val_accuracy": trained.val.value, "seconds": trained.seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--family", default="mobile", choices=("dense", "residual", "mobile"))
    parser.add_argument("--networks", type=int, default=70)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--resolution", type=int, default=16, help="pixels: at 16 a set of 70 takes minutes, not hours")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--least-macs", type=float, default=2e5)
    parser.add_argument("--most-macs", type=float, default=5e6)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/linked"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    source = part_of(args.data, args.images, args.out)
    name = f"linked-{args.family}"
    space = make_space(name, load_task(source, seed=0, resolution=args.resolution).spec)
    kept = args.out / f"{args.family}.jsonl"
    done = {json.loads(line)["key"] for line in kept.read_text().splitlines()} if kept.exists() else set()
    picked = pick(space, args.networks, args.least_macs, args.most_macs, args.seed)
    waiting = [a for a in picked if a.key() not in done]
    with pool(args.workers) as workers:
        jobs = [(source, args.resolution, name, a.model_dump(mode="json"), args.epochs, args.seed) for a in waiting]
        for architecture, found in zip(waiting, workers.imap(train, jobs), strict=True):
            graph = space.graph(architecture)
            row = {"key": architecture.key(), "architecture": architecture.model_dump(mode="json"), **found}
            row |= {"macs": count_macs(graph), "params": count_params(graph)}
            with kept.open("a") as file:
                file.write(json.dumps(row) + "\n")
            size = f"{row['macs'] / 1e6:.2f} M MACs"
            print(f"{found['test_accuracy']:.2f} %  {size}  {found['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
