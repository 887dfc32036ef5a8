"""Accuracy after adapting a network inside a training memory: everything learning, last layers, single methods, and the
planner, with the same images in the same order, the same number of steps and each contestant's best learning rate.

    python benchmarks/adapt_accuracy.py --network resnet20 --weights resnet20.safetensors --data cifar10.npz \
        --seeds 0 1 2 --out runs/adapt-resnet20

Every contestant starts from the same network with a head that has learned alone (on features, a few passes), keeps its
batch norms' statistics, and is judged on test images after one pass over the training images. Learning rates are chosen
from one grid on images beside (`--vals`), with the first seed; every step is clipped as the product's. Memory is
counted for batches of 8 (the planner may hold fewer, which it chooses; `--held` for the single methods) whose gradients
are added up to steps of 32; as no layer mixes images, the 32 are computed at once.
Rows are kept as they come, so a cut run goes on.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adapt_tasks import ADAPTATIONS, Adaptation, Part, parts_of
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from edgewright.backward.plans.contribution import measure
from edgewright.backward.plans.planner import Menu, plan, plan_of
from edgewright.backward.plans.training_plan import TrainingBudget, TrainingPlan, applied
from edgewright.backward.resolve import methods
from edgewright.backward.rules.mobiletl import inverted_residuals
from edgewright.backward.survey import Site, survey
from edgewright.core.errors import BadInput
from edgewright.core.seed import derive
from edgewright.report.page import page
from edgewright.report.pictures import figure
from edgewright.train.clip import RunningClip
from edgewright.train.clock import learning_rate
from edgewright.train.recipe import fine_tuning

STEP, HELD = 32, 8  # images of a step, and held at a time: by full always, by single methods unless --held says else
RATES = (0.001, 0.003, 0.01, 0.03)
SHARES = (2, 4, 8)  # one over it: of full's memory
CALIBRATION = 16  # batches of 32 that contributions are measured on
FULL, HEAD, PLANNER = "full", "head alone", "planner"


@dataclass
class Bench:
    """A network with a head that has learned alone, and the data."""

    adaptation: Adaptation
    parts: dict[str, Part]
    weights: Path
    seed: int
    cache: Path
    held: int = HELD

    def __post_init__(self) -> None:
        torch.manual_seed(derive(self.seed, "head"))
        self.model = self.adaptation.build(self.weights).eval()
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._ready_head()
        self.begin = {name: value.clone() for name, value in self.model.state_dict().items()}
        pixels = self.parts["train"][0].shape[1]
        self.example = torch.zeros(self.held, 3, pixels, pixels)
        self.sites = survey(self.model, self.example)
        self.full = plan_of(self.model, torch.zeros(HELD, 3, pixels, pixels), self._everything())
        self.contributions: dict[tuple[str, str], float] = {}

    def reset(self) -> None:
        self.model.load_state_dict(self.begin)

    def batches(self, part: str, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.parts[part]
        for rows in order.split(size):
            yield self.adaptation.input(images[rows.numpy()]), labels[rows]

    def order(self, *names: object) -> Tensor:
        """The training images in an order of their own."""
        generator = torch.Generator().manual_seed(derive(self.seed, *names))
        return torch.randperm(len(self.parts["train"][1]), generator=generator)

    def accuracy(self, part: str) -> float:
        images, right = torch.arange(len(self.parts[part][1])), 0
        with torch.no_grad():
            for x, y in self.batches(part, images, 250):
                right += int((self.model(x).argmax(1) == y).sum())
        return 100 * right / len(images)

    def measured(self) -> dict[tuple[str, str], float]:
        """Contributions, measured once, on training images."""
        if not self.contributions:
            rows = self.order("calibration")[: CALIBRATION * STEP]
            self.contributions = measure(self.model, self.batches("train", rows, STEP), functional.cross_entropy)
        return self.contributions

    def _everything(self) -> dict[str, str]:
        return {site.name: "full" for site in self.sites if site.calls[0].kind != "activation"}

    def _ready_head(self) -> None:
        """Taught once for each seed."""
        head: nn.Linear = self.model.get_submodule(self.adaptation.head)  # pyright: ignore[reportAssignmentType]
        path = self.cache / f"head-{len(self.parts['train'][1])}-{self.seed}.safetensors"
        if not path.exists():
            self._teach(head)
            save_file(head.state_dict(), path)
        head.load_state_dict(load_file(path))

    def _teach(self, head: nn.Linear) -> None:
        """Five passes of Adam over features that are computed once."""
        kept: list[Tensor] = []
        hook = head.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
        labels = self.parts["train"][1]
        with torch.no_grad():
            for x, _ in self.batches("train", torch.arange(len(labels)), 250):
                self.model(x)
        hook.remove()
        features = torch.cat(kept)
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
        for epoch in range(5):
            for rows in self.order("head", epoch).split(STEP):
                optimizer.zero_grad()
                functional.cross_entropy(head(features[rows]), labels[rows]).backward()
                optimizer.step()


# Which method each layer gets where one method is used from some layer on.
Scheme = Callable[[Site], str]


def uniform(method: str, norms: str) -> Scheme:
    """One method for what it serves, another for norms; biases of what it does not serve."""

    def choose(site: Site) -> str:
        if site.calls[0].kind == "norm":
            return norms
        rule = next((rule for rule in methods()[method] if site.calls[0].kind in rule.kinds), None)
        return "bias" if rule is None or any(map(rule.refuse, site.calls)) else method

    return choose


def mobiletl(sites: Sequence[Site]) -> Scheme | None:
    """Convolutions in full, inner norms their shift, each block's last norm in full."""
    blocks = inverted_residuals(sites)
    inner = {name for block in blocks for name in block.layers if name != block.last_norm}
    return (lambda site: "bias" if site.name in inner and site.calls[0].kind == "norm" else "full") if blocks else None


def schemes(sites: Sequence[Site]) -> dict[str, Scheme]:
    found = {"last layers": uniform("full", "full"), "last layers, norms' shifts": uniform("full", "bias")}
    others = [name for name in methods() if name not in ("full", "frozen", "mask", "signed")]
    found |= {name: uniform(name, "bias") for name in others}
    if mobile := mobiletl(sites):
        found["mobiletl"] = mobile
    return found


def as_many_last(bench: Bench, scheme: Scheme, memory: int) -> TrainingPlan:
    """The scheme on as many of the last layers as the memory holds, the head in full."""
    sites = [site for site in bench.sites if site.calls[0].kind != "activation"]

    def from_layer(first: int) -> TrainingPlan:
        chosen = {site.name: scheme(site) for site in sites[first:]} | {bench.adaptation.head: "full"}
        return plan_of(bench.model, bench.example, chosen)

    low, high = 0, len(sites)  # what begins at `high` fits
    while low < high:
        middle = (low + high) // 2
        if from_layer(middle).memory_bytes <= memory:
            high = middle
        else:
            low = middle + 1
    return from_layer(high)


def planned(bench: Bench, memory: int, held: Sequence[int]) -> TrainingPlan:
    example = torch.zeros(HELD, *bench.example.shape[1:]) if held else bench.example
    return plan(
        bench.model,
        example,
        budget=TrainingBudget(memory_bytes=memory),
        menu=Menu(bench.measured(), always=(bench.adaptation.head,)),
        held=held,
    )


def contestants(bench: Bench, shares: Sequence[int]) -> dict[str, Callable[[], TrainingPlan | None]]:
    """By name, how each one's plan is made, inside shares of full's memory; None: plain PyTorch, all learning."""
    head = {bench.adaptation.head: "full"}
    held = "" if bench.held == HELD else f", {bench.held} held"
    found: dict[str, Callable[[], TrainingPlan | None]] = {
        FULL: lambda: None,
        HEAD + held: lambda: plan_of(bench.model, bench.example, head),
    }
    for share in shares:
        memory = bench.full.full_memory_bytes // share

        found[f"{PLANNER} 1/{share}"] = lambda memory=memory: planned(bench, memory, (8, 4, 2, 1))
        found[f"{PLANNER}, {bench.held} held 1/{share}"] = lambda memory=memory: planned(bench, memory, ())
        for name, scheme in schemes(bench.sites).items():
            found[f"{name}{held} 1/{share}"] = lambda scheme=scheme, memory=memory: as_many_last(bench, scheme, memory)
    return found


def adapt(bench: Bench, chosen: TrainingPlan | None, rate: float, images: int) -> None:
    """One pass over the first `images` of the seed's order, from where every contestant begins."""
    bench.reset()
    if chosen is not None:
        with applied(bench.model, chosen):
            return _adapt(bench, rate, images)
    bench.model.requires_grad_(True)
    return _adapt(bench, rate, images)


def _adapt(bench: Bench, rate: float, images: int) -> None:
    learning = [p for p in bench.model.parameters() if p.requires_grad]
    optimizer, clip = torch.optim.SGD(learning, lr=rate, momentum=0.9), RunningClip(fine_tuning().clip or 0.0)
    steps = images // STEP
    rows = bench.order("epoch")[: steps * STEP]
    for step, (x, y) in enumerate(bench.batches("train", rows, STEP)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate((step + 0.5) / steps, peak=rate, warmup=0.05)
        optimizer.zero_grad()
        loss = functional.cross_entropy(bench.model(x), y)
        if not torch.isfinite(loss):
            return
        loss.backward()
        clip(learning)
        optimizer.step()


def cost(chosen: TrainingPlan | None, full: TrainingPlan) -> dict[str, Any]:
    if chosen is None:
        memory, stored, macs = full.full_memory_bytes, full.full_stored_bytes, full.full_macs // HELD
        used = {"plain PyTorch": len(full.layers)}
    else:
        memory, stored, macs = chosen.memory_bytes, chosen.stored_bytes, chosen.macs // chosen.batch[0]
        learning = [row.method for row in chosen.layers if row.learns]
        used = {method: learning.count(method) for method in sorted(set(learning))}
    share = memory / full.full_memory_bytes
    held = HELD if chosen is None else chosen.held
    return {"memory_bytes": memory, "share": share, "stored_bytes": stored, "macs": macs, "held": held, "layers": used}


class Rows:
    """What has been run, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def find(self, **like: Any) -> list[dict[str, Any]]:
        return [row for row in self.rows if all(row.get(name) == value for name, value in like.items())]

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return row


def tried(bench: Bench, rows: Rows, name: str, chosen: TrainingPlan | None, rate: float, images: int) -> dict[str, Any]:
    """What the first seed came to at a rate, kept."""
    if found := rows.find(kind="rate", contestant=name, rate=rate):
        return found[0]
    return rows.add({"kind": "rate", "contestant": name, **learned(bench, chosen, rate, images)})


def learned(bench: Bench, chosen: TrainingPlan | None, rate: float, images: int) -> dict[str, Any]:
    began = time.perf_counter()
    adapt(bench, chosen, rate, images)
    seconds = time.perf_counter() - began
    found = {"val": bench.accuracy("val"), "accuracy": bench.accuracy("test"), "seconds": seconds}
    return {"seed": bench.seed, "rate": rate, **found}


def best_rate(
    bench: Bench, rows: Rows, name: str, chosen: TrainingPlan | None, images: int, rates: Sequence[float]
) -> dict[str, Any]:
    """Of the grid, the best on val with the first seed, found by climbing from the middle."""

    def at(place: int) -> dict[str, Any]:
        return tried(bench, rows, name, chosen, rates[place], images) if 0 <= place < len(rates) else {"val": -1.0}

    best, step = len(rates) // 2, -1
    if at(best - 1)["val"] < at(best)["val"]:
        step = 1
    while at(best + step)["val"] > at(best)["val"]:
        best += step
    return at(best)


def run(bench: Bench, rows: Rows, args: argparse.Namespace) -> None:
    for name, made in contestants(bench, args.shares).items():
        if args.only and not any(name.startswith(start) for start in args.only):
            continue
        if rows.find(kind="run", contestant=name, seed=bench.seed):
            continue
        bench.reset()
        try:
            chosen = made()
        except BadInput as error:
            print(f"{name}: {error}", flush=True)
            continue
        price = cost(chosen, bench.full)
        if same := rows.find(kind="run", seed=bench.seed, **price):
            found = {name: same[0][name] for name in ("rate", "val", "accuracy", "seconds")}
        else:
            found = best_rate(bench, rows, name, chosen, args.images, args.rates)
            if found["seed"] != bench.seed:
                found = learned(bench, chosen, found["rate"], args.images)
            found = {name: found[name] for name in ("rate", "val", "accuracy", "seconds")}
        row = rows.add({"kind": "run", "contestant": name, "seed": bench.seed, **price, **found})
        print(line(name, [row]), flush=True)


def line(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A row of the table."""
    first, accuracy = rows[0], [row["accuracy"] for row in rows]
    mega = {key: np.mean([row[key] for row in rows]) for key in ("memory_bytes", "stored_bytes", "macs", "share")}
    return (
        f"| {name} | {mega['memory_bytes'] / 2**20:.2f} | {mega['share']:.3f} | {mega['stored_bytes'] / 2**20:.2f} | "
        f"{mega['macs'] / 1e6:.1f} | {first['held']} | {first['rate']} | {np.mean(accuracy):.2f} | "
        f"{min(accuracy):.2f} .. {max(accuracy):.2f} | {len(rows)} |"
    )


def report(rows: Rows, out: Path, title: str) -> None:
    names = list(dict.fromkeys(row["contestant"] for row in rows.find(kind="run")))
    print(
        "| method | memory, MB | of full's | stored, MB | M MACs an image | held | rate | accuracy, % | min .. max | "
        "seeds |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    points: dict[str, list[tuple[float, float]]] = {}
    for name in names:
        found = rows.find(kind="run", contestant=name)
        print(line(name, found))
        base = re.sub(r" 1/\d+", "", name)
        accuracy = float(np.mean([row["accuracy"] for row in found]))
        points.setdefault(base, []).append((found[0]["memory_bytes"] / 2**20, accuracy))
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": base,
            "x": [x for x, _ in sorted(some)],
            "y": [y for _, y in sorted(some)],
            "line": {"width": 4 if base == PLANNER else 1.5},
        }
        for base, some in points.items()
    ]
    drawn = figure(traces, "memory of a training step, MB", "test accuracy, %", height=560)
    body = f'<h1>{title}</h1><section><div class="plot" id="plot"></div></section>'
    (out / "accuracy.html").write_text(page(title, body, {"plot": drawn}))
    (out / "accuracy.json").write_text(json.dumps(rows.find(kind="run"), indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", required=True, choices=tuple(ADAPTATIONS))
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path, help=".npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--images", type=int, default=10_000, help="training images")
    parser.add_argument("--vals", type=int, default=4_000, help="images after those, to choose learning rates by")
    parser.add_argument("--tests", type=int, default=10_000, help="test images, the first ones")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--shares", type=int, nargs="+", default=list(SHARES), help="4: a quarter of full's memory")
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES), help="the grid of learning rates")
    parser.add_argument("--held", type=int, default=HELD, help="images held at a time, by all but full")
    parser.add_argument("--only", nargs="*", default=(), help="contestants whose names begin so")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    adaptation, rows = ADAPTATIONS[args.network], Rows(args.out / "rows.jsonl")
    parts = parts_of(args.data, adaptation, args.images, args.vals, args.tests, args.out)
    for seed in args.seeds:
        bench = Bench(adaptation, parts, args.weights, seed, args.out, args.held)
        run(bench, rows, args)
    report(rows, args.out, f"{args.network}: accuracy against training memory")


if __name__ == "__main__":
    main()
