"""ResNet-56 for CIFAR-10 at half its measured latency: pruned here, and by Torch-Pruning, then trained in the same way.

    python benchmarks/prune_resnet56.py --data cifar10.npz --weights resnet56.safetensors --out runs/prune --seeds 0 1 2

1. Ours: `plan_pruning` to a `Goal(share=...)`, Taylor importance, layers and whole networks measured on this machine.
2. Torch-Pruning (where it is installed): its pruners with the Taylor importance (`tp-taylor`) and with the group norm
   (`tp-norm`), over all layers at once and by 8 channels; the ratio is searched so that the measured latency is ours.
3. All learn from the network as it was (distillation), with the same recipe, images and seeds. It is asked
   once, of --views fixed variations of every training image (said.safetensors); asking in every step took a third more.
   Half of the variations are mixtures of two images, and the labels have no part in it, unless --plain and --labels
   say otherwise.
4. All files measured in turns, one core, batch 1.

The shortcuts that pad channels with zeros are written as 1x1 convolutions of ones, the same function, so that both may
prune the channels that they carry; the network so written is the quicker one, and its latency is what is halved.
Rows are kept as they come (rows.jsonl), trainings in checkpoints: a cut run goes on. A minute's try:
--images 1500 --epochs 1 --seeds 0 --tests 500.
"""

import argparse
import copy
import hashlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cifar_resnet
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from edgewright.compress.base import apply, rebuilt
from edgewright.compress.planner import plan, read_plan
from edgewright.compress.prune.asked import Goal, Scope, Times, Worth
from edgewright.compress.prune.prune import plan_pruning
from edgewright.compress.wiring import trace
from edgewright.core.files import write_text
from edgewright.core.seed import derive
from edgewright.export.stopwatch import stopwatch
from edgewright.task.augment.image import Augment
from edgewright.task.augment.mixing import mix
from edgewright.task.base import Split, Task, batches
from edgewright.task.load import load_task
from edgewright.train.clock import StepClock, steps_per_epoch
from edgewright.train.evaluate import evaluate
from edgewright.train.loop import Running, fit
from edgewright.train.recipe import Recipe
from edgewright.train.record import Record
from edgewright.train.step import Loss

EXAMPLE = torch.zeros(1, 3, 32, 32)
METHODS = ("ours", "tp-taylor", "tp-norm")
RATIOS = tuple(percent / 100 for percent in range(10, 86, 3))


def data(path: Path, images: int, tests: int) -> Task:
    """CIFAR-10, normalised as the weights expect; 1,000 images apart to watch the training by."""
    task = cifar_resnet.as_expected(load_task(f"arrays:{path}", val_share=0.02))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(task.train)))[:images]
    return replace(task, train=task.train.take(order), test=task.test.take(slice(tests)))


def judged(task: Task) -> list[tuple[Tensor, Tensor]]:
    """What Taylor importances look at, for both: the images set apart. On those that it learned from the network makes
    no mistakes, and there is next to no gradient."""
    return list(batches(task.val, task.spec, batch_size=100))


def ours(model: nn.Module, task: Task, options: argparse.Namespace, timed: Callable[..., Any]) -> nn.Module:
    """The plan is made once and kept."""
    file = options.out / "plan.json"
    if file.is_file():
        return rebuilt(model, read_plan(json.loads(file.read_text()), str(file)))
    found = plan_pruning(
        model,
        EXAMPLE,
        Goal(share=options.share),
        worth=Worth(options.importance, judged(task)),
        scope=Scope(blocks=not options.no_drop),
        times=Times(timed),
    )
    print(found, flush=True)
    write_text(file, found.to_json())
    return rebuilt(model, found)


def torch_pruned(model: nn.Module, method: str, ratio: float) -> nn.Module:
    """What Torch-Pruning leaves of a copy, at one ratio; its Taylor importance reads the model's gradients."""
    import torch_pruning as tp  # pyright: ignore[reportMissingImports]

    copied: Any = copy.deepcopy(model)
    for mine, theirs in zip(copied.parameters(), model.parameters(), strict=True):  # a copy comes without gradients
        mine.grad = None if theirs.grad is None else theirs.grad.clone()
    if method == "tp-taylor":
        importance, pruner = tp.importance.GroupTaylorImportance(), tp.pruner.BasePruner
    else:
        importance, pruner = tp.importance.GroupMagnitudeImportance(p=2), tp.pruner.GroupNormPruner
    made = pruner(
        copied, EXAMPLE, importance=importance, global_pruning=True, pruning_ratio=ratio, max_pruning_ratio=0.9,
        ignored_layers=[copied.linear], round_to=8,
    )  # fmt: skip
    made.step()
    copied.zero_grad(set_to_none=True)
    return copied.eval()


def at_latency(
    model: nn.Module, task: Task, method: str, share: float, options: argparse.Namespace, timed: Callable[..., Any]
) -> nn.Module:
    """Torch-Pruning's network of the smallest ratio whose measured latency is within the share; the ratio is kept."""
    file, ready = options.out / f"{method}.json", copy.deepcopy(model)
    for x, y in judged(task) if method == "tp-taylor" else []:
        functional.cross_entropy(ready(x), y).backward()
    if not file.is_file():
        # A scan, not a bisection: with 8 channels where the runtime computes 16 at a time, less can take longer.
        whole, *parts = timed([model, *(torch_pruned(ready, method, ratio) for ratio in RATIOS)])
        for ratio, part in zip(RATIOS, parts, strict=True):
            print(f"{method}: ratio {ratio:.3f} takes {part / whole:.3f} of the time", flush=True)
        within = [ratio for ratio, part in zip(RATIOS, parts, strict=True) if part / whole <= 1.02 * share]
        if not within:
            raise SystemExit(f"{method}: no ratio comes to {share:.3f} of the time; take a larger --share")
        write_text(file, json.dumps({"ratio": within[0]}))
    return torch_pruned(ready, method, json.loads(file.read_text())["ratio"])


def varied(split: Split, fill: tuple[float, ...], views: int, plain: bool) -> Split:
    """Every image so many times, shifted and flipped; in every second view, unless plain, also mixed with another: of
    images between the classes a teacher that knows its training images by heart still has something to say."""
    augment, noise = Augment(pad=4, flip=True, fill=fill), torch.Generator().manual_seed(derive(0, "views"))
    made = []
    for view in range(views):
        images = augment(split.inputs, noise)
        mixed = view % 2 == 1 and not plain
        made += [_mixed(some, noise) if mixed else some for some in images.split(128)]
    return Split(torch.cat(made), split.targets.repeat(views))


def _mixed(images: Tensor, noise: torch.Generator) -> Tensor:
    """Whole or in part; a mixture keeps the label of the first of the two."""
    found, _ = mix(images.float(), torch.zeros(len(images), dtype=torch.int64), 1, noise, mixup=1.0, cutmix=1.0)
    return found.round().to(images.dtype)


def answers(teacher: nn.Module, task: Task, file: Path) -> dict[bytes, Tensor]:
    """What the teacher says of every training image, by the bytes of the network's input; taken once and kept."""
    keys = [key for x, _ in batches(task.train, task.spec, batch_size=512) for key in digests(x)]
    if not file.is_file():
        quick = apply(teacher, plan(teacher, EXAMPLE, ["fold_batch_norm"]), EXAMPLE + 0.5)
        quick = quick.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            said = [
                quick(x.to(memory_format=torch.channels_last)).float()
                for x, _ in batches(task.train, task.spec, batch_size=128)
            ]
        save_file({"logits": torch.cat(said)}, file)
    logits = load_file(file)["logits"]
    if len(logits) != len(keys):
        raise SystemExit(f"{file} is of {len(logits)} images, not {len(keys)}: remove it, or take another --out")
    return dict(zip(keys, logits, strict=True))


def digests(x: Tensor) -> list[bytes]:
    """Of each image of a batch."""
    rows = np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())
    return [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]


def taught_by(said: dict[bytes, Tensor], labels: float, temperature: float) -> Loss:
    """(1 - labels) T^2 KL(teacher || student) + labels cross entropy, in bfloat16."""

    def loss(model: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x)
        wanted = torch.stack([said[key] for key in digests(x)])
        soft = functional.kl_div(
            functional.log_softmax(logits.float() / temperature, 1),
            functional.log_softmax(wanted / temperature, 1),
            log_target=True,
            reduction="batchmean",
        )
        return (1 - labels) * temperature**2 * soft + labels * functional.cross_entropy(logits.float(), targets)

    return loss


def learned(model: nn.Module, task: Task, seed: int, method: str, options: argparse.Namespace, loss: Loss) -> float:
    """Seconds of training; the model is trained in place."""
    recipe = Recipe(
        lr=options.lr, weight_decay=5e-4, batch_size=128, warmup=0.05, label_smoothing=0.0, ema_decay=0.998,
    )  # fmt: skip

    def tell(one: Record) -> None:
        print(f"{method} {seed}: epoch {one.epoch} val {one.val}", flush=True)

    steps = options.epochs * steps_per_epoch(len(task.train) // options.views, recipe.step_samples)
    found = fit(
        model, task, recipe, size=task.spec.size, seed=derive(seed, "prune"), clock=StepClock(steps), loss=loss,
        running=Running(options.out / f"{method}-{seed}.ckpt", tell, threads=1, label=f"{method}, seed {seed}"),
    )  # fmt: skip
    return found.seconds


def accuracy(model: nn.Module, task: Task) -> float:
    return evaluate(model, task.test, task.spec).values["accuracy"]


def told(model: nn.Module) -> dict[str, Any]:
    return {"macs": trace(model, EXAMPLE).macs, "params": sum(p.numel() for p in model.parameters())}


def table(rows: list[dict[str, Any]], base: dict[str, Any], latency: dict[str, float]) -> str:
    """A line a method: mean and standard deviation over seeds."""
    lines = ["| | ms | of the time | MACs | parameters | as pruned | trained | lost |", "|---" * 8 + "|"]
    before = latency["before"]
    lines.append(f"| before | {before:.3f} | 1 | {base['macs']:,} | {base['params']:,} | | {base['accuracy']:.2f} | |")
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        scores, row = np.array([one["accuracy"] for one in mine]), mine[0]
        lines.append(
            f"| {method} ({len(mine)} seeds) | {latency[method]:.3f} | {latency[method] / before:.3f} | "
            f"{row['macs']:,} | {row['params']:,} | {row['pruned']:.2f} | {scores.mean():.2f} ({scores.std():.2f}) | "
            f"{base['accuracy'] - scores.mean():.2f} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as .npz")
    parser.add_argument("--weights", type=Path, required=True, help="ResNet-56, safetensors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--share", type=float, default=0.5, help="of the latency")
    parser.add_argument("--importance", default="taylor")
    parser.add_argument("--no-drop", action="store_true", help="ours prunes channels only, no whole blocks")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--views", type=int, default=24, help="variations of each training image")
    parser.add_argument("--images", type=int, default=49_000, help="training images")
    parser.add_argument("--tests", type=int, default=10_000, help="test images")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--plain", action="store_true", help="no variation is a mixture")
    parser.add_argument("--labels", type=float, default=0.0, help="share of the labels in the loss")
    parser.add_argument("--temperature", type=float, default=4.0)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    task, timed = data(options.data, options.images, options.tests), stopwatch(EXAMPLE)
    model = cifar_resnet.trained(56, options.weights, convolved=True)
    base = {**told(model), "accuracy": accuracy(model, task)}
    print(f"before: {base['accuracy']:.2f} % of {len(task.test)} test images", flush=True)
    networks: dict[str, nn.Module] = {"before": model}
    networks["ours"] = ours(model, task, options, timed)
    whole, mine = timed([model, networks["ours"]])
    rivals = [method for method in options.methods if method != "ours"]
    if rivals and importlib.util.find_spec("torch_pruning") is None:
        print(f"{', '.join(rivals)} left out: pip install torch-pruning for them", flush=True)
        rivals = []
    for method in rivals:
        networks[method] = at_latency(model, task, method, mine / whole, options, timed)
    latency = dict(zip(networks, timed(list(networks.values())), strict=True))
    file = options.out / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    task = replace(task, train=varied(task.train, task.spec.input.mean, options.views, options.plain))
    loss = taught_by(answers(model, task, options.out / "said.safetensors"), options.labels, options.temperature)
    for seed in options.seeds:
        for method in [one for one in options.methods if one in networks]:
            if not any((row["method"], row["seed"]) == (method, seed) for row in rows):
                rows.append(run(networks[method], task, method, seed, options, loss))
                with file.open("a") as out:
                    out.write(json.dumps(rows[-1]) + "\n")
                print(table(rows, base, latency), flush=True)
    print(table(rows, base, latency))


def run(
    model: nn.Module, task: Task, method: str, seed: int, options: argparse.Namespace, loss: Loss
) -> dict[str, Any]:
    """Train a copy; its row."""
    learner = copy.deepcopy(model)
    row = {"method": method, "seed": seed, **told(learner), "pruned": accuracy(learner, task)}
    seconds = learned(learner, task, seed, method, options, loss)
    return {**row, "accuracy": accuracy(learner, task), "seconds": seconds, "epochs": options.epochs}


if __name__ == "__main__":
    main()
