"""How well each proxy ranks networks that all keep the same latency ceiling, after a short training.

This is the question that the main job asks, and not the one that most papers answer: at an equal latency, which network
learns best? Random networks of the `mobile` space inside the ceiling are scored, trained briefly on a part of the data,
and compared on the test part. Rows are kept as they come, so a cut benchmark goes on.

    python benchmarks/proxies_at_a_budget.py --data cifar10.npz --latency-ms 0.25 --networks 40 --out runs/proxies
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from linked_networks import part_of

from edgewright.core.architecture import Architecture
from edgewright.core.cost import Budget
from edgewright.core.plan import Plan
from edgewright.core.pool import pool
from edgewright.core.ranking import stand
from edgewright.core.seed import derive
from edgewright.job.design.ground import DesignGround, survey
from edgewright.proxy.resolve import proxies
from edgewright.search.resolve import make_strategy
from edgewright.search.scoring import ScoringJob, save_batches, score_architecture
from edgewright.space.resolve import make_space
from edgewright.task.load import load_task
from edgewright.train.clock import StepClock, steps_per_epoch
from edgewright.train.evaluate import evaluate
from edgewright.train.loop import fit
from edgewright.train.recipe import recipe_for


def pick(ground: DesignGround, count: int) -> list[Architecture]:
    """Random networks that use at least 60 % of the ceiling."""
    strategy = make_strategy("random", ground.space, excess=ground.excess, seed=1)
    ceiling = ground.plan.budget.ceilings()["latency"]
    picked: list[Architecture] = []
    while len(picked) < count:
        asked = strategy.ask(16)
        picked += [a for a in asked if ground.costs(a)["latency"].value > 0.6 * ceiling]
    return picked[:count]


def train(job: tuple[str, dict, int]) -> float:
    """Test accuracy (percent) after a short training, one thread."""
    source, data, epochs = job
    task = load_task(source, seed=0)
    space = make_space("mobile", task.spec)
    architecture = space.read(data)
    torch.manual_seed(derive(0, "weights", architecture.key()))
    model = space.build(architecture)
    recipe = recipe_for(task.spec, epochs)
    size = space.resolution(architecture)
    clock = StepClock(epochs * steps_per_epoch(len(task.train), recipe.step_samples))
    fit(model, task, recipe, size=size, seed=0, clock=clock)
    return evaluate(model, task.test, task.spec, size).values["accuracy"]


def report(rows: list[dict]) -> None:
    accuracy = [row["accuracy"] for row in rows]
    print(f"\n{len(rows)} networks, accuracy {min(accuracy):.1f} to {max(accuracy):.1f} %")
    for name in [*proxies(), "layers", "latency"]:
        found = stand([row.get(name, np.nan) for row in rows], accuracy, resamples=500)
        if found.missing:
            print(f"{name:20s} {found.missing}")
            continue
        low, high = found.intervals["spearman"]
        order, choice = f"{found.spearman:+.2f} [{low:+.2f}, {high:+.2f}]", f"{found.top1_accuracy:.1f} %"
        print(f"{name:20s} Spearman {order}  its choice {choice}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--latency-ms", type=float, default=0.25)
    parser.add_argument("--networks", type=int, default=40)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("runs/proxies"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    source = part_of(args.data, args.images, args.out)
    ground = survey(Plan(task=source, budget=Budget(latency_ms=args.latency_ms)))
    kept = args.out / "rows.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {row["key"] for row in rows}
    waiting = [a for a in pick(ground, args.networks) if a.key() not in done]
    batches = args.out / "batches.safetensors"
    save_batches(batches, ground.task.train)
    spec, names = ground.task.spec, tuple(proxies())
    with pool() as workers:
        jobs = [ScoringJob("mobile", spec, a.model_dump(mode="json"), batches, names, 0) for a in waiting]
        scores = list(workers.imap(score_architecture, jobs))
        trained = workers.imap(train, [(source, a.model_dump(mode="json"), args.epochs) for a in waiting])
        for architecture, score, accuracy in zip(waiting, scores, trained, strict=True):
            layers = sum(op.kind == "conv" for op in ground.space.graph(architecture).ops)
            row = {"key": architecture.key(), "accuracy": accuracy, "layers": layers, **score}
            row["latency"] = ground.costs(architecture)["latency"].value
            rows.append(row)
            with kept.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{accuracy:.2f} %  {row['macs'] / 1e6:.1f} M MACs, {layers} convolutions", flush=True)
    report(rows)


if __name__ == "__main__":
    main()
