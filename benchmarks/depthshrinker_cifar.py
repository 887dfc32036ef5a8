"""DepthShrinker end to end on CIFAR-10: a MobileNetV2-style network searched, linearised, taught, merged and measured.

    python benchmarks/depthshrinker_cifar.py --data cifar10.npz --out runs/depthshrinker --epochs 10 --images 15000

1. The network learns (`--epochs`). 2. Every block is timed as it is and merged; those that are not surely faster merged
are declined by name (`compress.worthwhile`). 3. For each number in `--drop`, masks choose that many of the others
(`--search-epochs`), the dearest in measured ms being pushed first; their activations go, and the network learns from
itself as it was (`--tune-epochs`); 0 drops nothing and has the same training, so that this is not taken for a gain.
4. Merged, exported, and all files measured in turns on one core.

Merged and linearised networks are compared on 500 test images (largest difference of the logits). Rows are kept as they
come, trainings in checkpoints: a cut run goes on.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgewright.compress.base import Plan, apply
from edgewright.compress.planner import look, plan
from edgewright.compress.rewrites import depthshrinker, merge_linear
from edgewright.compress.wiring import trace
from edgewright.compress.worthwhile import Timing, timed
from edgewright.core.files import write_text
from edgewright.core.seed import derive
from edgewright.device.compare import Ratio
from edgewright.device.measure import Latency
from edgewright.export.blocks import measure_blocks
from edgewright.export.choose.versus import versus
from edgewright.export.onnx import export_onnx
from edgewright.model.blocks import Stage, mobile_parts
from edgewright.model.heads.pool import PoolHead
from edgewright.model.network import Network, with_head
from edgewright.task.base import Task, normalise
from edgewright.task.load import load_task
from edgewright.train.clock import StepClock, steps_per_epoch
from edgewright.train.distil import distillation
from edgewright.train.evaluate import evaluate
from edgewright.train.loop import Running, fit
from edgewright.train.recipe import Recipe, recipe_for
from edgewright.train.record import Record
from edgewright.train.step import Loss

PIXELS = 32
MOST_MACS = 8.0  # a merge may have more multiply-adds; the clock decides
MERGE = partial(merge_linear.find, most_macs=MOST_MACS)


def network(seed: int) -> Network:
    """MobileNetV2 in small: expansion 6 and residuals, 16 px after the stem, ReLU in place of ReLU6."""

    def stage(depth: int, width: int, stride: int) -> Stage:
        return Stage(kind="inverted", depth=depth, width=width, kernel=3, expansion=6, squeeze=False, stride=stride)

    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, "weights"))
        parts = mobile_parts(3, 16, 2, [stage(2, 16, 1), stage(2, 24, 2), stage(3, 48, 2)])
        return with_head(parts, PoolHead(10), 48, 160)


class Bench:
    """The task, the folder, and what is measured and trained in it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.folder = arguments, Path(arguments.out)
        self.folder.mkdir(parents=True, exist_ok=True)
        whole = load_task(f"arrays:{arguments.data}", seed=arguments.seed)
        self.task: Task = replace(whole, train=whole.train.take(slice(arguments.images)))
        self.example = torch.zeros(1, 3, PIXELS, PIXELS)

    def recipe(self, epochs: float, lr: float | None = None) -> Recipe:
        made = recipe_for(self.task.spec, epochs)
        return made if lr is None else made.model_copy(update={"lr": lr, "ema_decay": 0.99})

    def train(self, model: nn.Module, name: str, epochs: float, recipe: Recipe, loss: Loss | None = None) -> nn.Module:
        """Trained once; the weights are kept."""
        kept = self.folder / f"{name}.safetensors"
        if kept.exists():
            model.load_state_dict(load_file(kept))
            return model.eval()

        def tell(record: Record) -> None:
            print(name, record.epoch, f"{record.train_loss:.3f}", record.val, flush=True)

        steps = round(epochs * steps_per_epoch(len(self.task.train), recipe.step_samples))
        fit(
            model,
            self.task,
            recipe,
            size=self.task.spec.size,
            seed=derive(self.arguments.seed, name),
            clock=StepClock(steps),
            loss=loss,
            running=Running(self.folder / f"{name}.checkpoint", tell, threads=1),
        )
        save_file({key: value.contiguous().clone() for key, value in model.state_dict().items()}, kept)
        return model

    def accuracy(self, model: nn.Module) -> float:
        return evaluate(model, self.task.test, self.task.spec).values["accuracy"]

    def images(self, count: int) -> Tensor:
        return normalise(self.task.test.inputs[:count], self.task.spec)


def measure(modules: Sequence[nn.Module], shape: tuple[int, ...]) -> list[Latency]:
    return measure_blocks(modules, shape, runs=200)


def blocks(bench: Bench, model: nn.Module, linear: Plan) -> list[Timing]:
    """Each block as it is and merged, measured once."""
    path = bench.folder / "blocks.json"
    if not path.exists():
        found = timed(model, linear, measure, merge=MERGE)
        write_text(path, json.dumps([timing.model_dump() for timing in found], indent=2))
    return [Timing.parse(item, str(path)) for item in json.loads(path.read_text())]


def chosen(bench: Bench, model: nn.Module, timings: Sequence[Timing], drop: int) -> tuple[str, ...]:
    """The blocks that the search drops, of those that are surely faster merged."""
    path = bench.folder / f"drop-{drop}.json"
    if not path.exists():
        paying = {timing.layers[-1]: timing.saved_ms for timing in timings if timing.ratio.surely_faster}
        found = [d for d in depthshrinker.decisions(model, trace(model, bench.example)) if d.block in paying]
        if drop > len(found):
            raise SystemExit(f"merging pays in {len(found)} blocks of this network on this machine, not in {drop}")
        net = depthshrinker.searched(model, found, keep=len(found) - drop, savings=paying)
        loss = depthshrinker.search_loss(weight=bench.arguments.weight)
        epochs = bench.arguments.search_epochs
        bench.train(net, f"search-{drop}", epochs, bench.recipe(epochs, bench.arguments.lr), loss)
        scores = dict(zip(net.blocks, net.masks.scores.tolist(), strict=True))
        write_text(path, json.dumps({"drop": net.drop(), "scores": scores}))
    return tuple(json.loads(path.read_text())["drop"])


def row(bench: Bench, model: nn.Module, timings: Sequence[Timing], drop: int) -> dict[str, Any]:
    """One network with so many blocks merged; its ONNX file beside."""
    names, x = chosen(bench, model, timings, drop) if drop else (), bench.images(500)
    linear = model
    if names:
        find = partial(depthshrinker.find, drop=names, final="relu")
        linear = apply(model, plan(model, bench.example, [find]), x[:64])
    epochs = bench.arguments.tune_epochs
    loss = distillation(model, bench.task.kind)
    linear = bench.train(linear, f"tuned-{drop}", epochs, bench.recipe(epochs, bench.arguments.lr), loss)
    merge = partial(MERGE, only=names)
    made = plan(linear, bench.example, ["fold_batch_norm", *([merge] if names else [])])
    merged = apply(linear, made, x[:64])
    export_onnx(merged, (3, PIXELS, PIXELS), bench.folder / f"merged-{drop}.onnx")
    with torch.no_grad():
        off = (merged(x) - linear(x)).abs().max().item()
    return {
        "dropped": drop,
        "blocks": names,
        "macs": made.after.macs,
        "params": made.after.params,
        "accuracy": bench.accuracy(merged),
        "accuracy_before_merging": bench.accuracy(linear),
        "largest_difference": off,
    }


def show(bench: Bench, timings: Sequence[Timing], rows: list[dict[str, Any]]) -> None:
    files = [bench.folder / "base.onnx", *(bench.folder / f"merged-{row['dropped']}.onnx" for row in rows[1:])]
    found = versus(files, runs=bench.arguments.runs)
    for line, measured in zip(rows, found.rows, strict=True):
        line |= {"median_ms": measured.median_ms, "of_base": measured.ratio.model_dump()}
    write_text(bench.folder / "result.json", json.dumps({"rows": rows, "drift": found.reference_drift}, indent=2))
    print("\n| block | as it is, ms | merged, ms | merged over as it is, 95 % | |\n|---|---|---|---|---|")
    for timing in timings:
        verdict = "pays" if timing.ratio.surely_faster else "declined"
        print(
            f"| {timing.layers[-1]} | {timing.now_ms:.4f} | {timing.then_ms:.4f} | {timing.ratio.text()} | {verdict} |"
        )
    print("\n| merged | M MACs | accuracy, % | ms | of the base's time, 95 % | off when merged |")
    print("|---|---|---|---|---|---|")
    for line in rows:
        name = ", ".join(line["blocks"]) or ("none, taught again" if "accuracy_before_merging" in line else "the base")
        times = f"{line['median_ms']:.4f} | {Ratio(**line['of_base']).text()}"
        off = line.get("largest_difference", 0)
        print(f"| {name} | {line['macs'] / 1e6:.2f} | {line['accuracy']:.2f} | {times} | {off:.1e} |")
    drift = 100 * found.reference_drift
    print(f"\n{found.runs} runs of each in turns, one thread; the reference drifted by {drift:.0f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10 as an .npz file")
    parser.add_argument("--out", required=True, help="folder for what is kept")
    parser.add_argument("--images", type=int, default=20_000, help="of the training part")
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--search-epochs", type=float, default=1)
    parser.add_argument("--tune-epochs", type=float, default=4)
    parser.add_argument("--lr", type=float, default=0.03, help="highest rate of searching and fine-tuning")
    parser.add_argument("--weight", type=float, default=0.1, help="of the cost term of the search")
    parser.add_argument("--drop", type=int, nargs="+", default=[0, 2, 4], help="blocks to merge, a row each")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(arguments)
    model = network(arguments.seed).eval()
    mergeable = [d.block for d in depthshrinker.decisions(model, trace(model, bench.example)) if d.mergeable]
    linear = look(model, bench.example, [partial(depthshrinker.find, drop=mergeable, final="relu")])
    timings = blocks(bench, model, linear)  # latencies do not depend on weights
    model = bench.train(model, "base", arguments.epochs, bench.recipe(arguments.epochs))
    export_onnx(model, (3, PIXELS, PIXELS), bench.folder / "base.onnx")
    base = {"dropped": 0, "blocks": (), "macs": linear.before.macs, "params": linear.before.params}
    rows = [{**base, "accuracy": bench.accuracy(model)}]
    for drop in arguments.drop:
        path = bench.folder / f"row-{drop}.json"
        if not path.exists():
            write_text(path, json.dumps(row(bench, model, timings, drop)))
        rows.append(json.loads(path.read_text()))
        print(rows[-1], flush=True)
    show(bench, timings, rows)


if __name__ == "__main__":
    main()
