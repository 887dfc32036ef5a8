"""Quantisation-aware fine-tuning against rounding after training, each as the int8 file that it ends in.

    python benchmarks/qat.py --seeds 0 1 2 --bits 8 4 3 2
    python benchmarks/qat.py --seeds 0 1 2 --bits 8 --hostile 300
    python benchmarks/qat.py --weights resnet20.safetensors --data cifar10.npz --images 5000 --bits 3 2 --epochs 1

Without `--weights` a MobileNetV2-style network learns scikit-learn's digits first. Norms folded, it is rounded (weights
in `--bits`, a step a channel; activations in 8, a range a tensor) and exported; then it learns on as what it will be,
`--epochs` over the training images, and is exported again with the steps and ranges that it learned. Accuracies are of
the files, by ONNX Runtime, on test images. Agreement: how often network and file give the same class. `--hostile F`
multiplies one channel between the layers of each block by F, and divides behind it: the same function, whose tensors no
single range suits.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cifar_resnet
import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgewright.compress.base import apply
from edgewright.compress.bits import qat
from edgewright.compress.planner import plan
from edgewright.core.files import write_text
from edgewright.core.seed import derive
from edgewright.export.int8.learned import quantise_learned
from edgewright.export.running import outputs
from edgewright.model.blocks import Block, Stage, mobile_parts
from edgewright.model.heads.pool import PoolHead
from edgewright.model.network import with_head
from edgewright.task.augment.default import default_augment
from edgewright.task.base import Split, Task, normalise
from edgewright.task.load import load_task
from edgewright.train.clock import StepClock, steps_per_epoch
from edgewright.train.loop import Running, fit
from edgewright.train.recipe import Recipe, recipe_for

CALIBRATION = 128


def digits(seed: int) -> tuple[Task, nn.Module]:
    """The digits, and a network that has learned them."""
    task = load_task("digits", seed=seed)

    def stage(depth: int, width: int, stride: int) -> Stage:
        return Stage(kind="inverted", depth=depth, width=width, kernel=3, expansion=4, squeeze=False, stride=stride)

    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, "weights"))
        parts = mobile_parts(1, 16, 1, [stage(2, 16, 1), stage(2, 24, 2), stage(1, 32, 2)])
        model = with_head(parts, PoolHead(10), 32, 64)
    train(model, task, seed, 15, recipe_for(task.spec, 15))
    return task, model


def cifar(data: str, weights: Path, images: int, tests: int) -> tuple[Task, nn.Module]:
    """CIFAR-10 as ResNet-20 was trained on it; training part and test part are cut."""
    task = cifar_resnet.as_expected(load_task(f"arrays:{data}"))
    parts = {"train": images, "test": tests, "val": 500}
    cut = {name: getattr(task, name).take(slice(n)) for name, n in parts.items()}
    return replace(task, **cut), cifar_resnet.trained(20, weights)


def train(model: nn.Module, task: Task, seed: int, epochs: float, recipe: Recipe) -> None:
    steps = max(1, round(epochs * steps_per_epoch(len(task.train), recipe.step_samples)))
    fit(model, task, recipe, size=task.spec.size, seed=seed, clock=StepClock(steps), running=Running(threads=1))


def images(task: Task, split: Split) -> Tensor:
    return normalise(split.inputs, task.spec)


@torch.no_grad()
def make_hostile(model: nn.Module, factor: float) -> None:
    """One channel between the first two layers of each block times `factor`; the function stays (ReLU)."""
    for block in model.modules():
        if isinstance(block, Block) and len(block.body) == 3:
            first, second = (block.body.get_submodule(f"{index}.0") for index in (0, 1))
            assert isinstance(first, nn.Conv2d)
            assert isinstance(second, nn.Conv2d)
            assert first.bias is not None
            first.weight[0] *= factor
            first.bias[0] *= factor
            second.weight[0] /= factor


def file_accuracy(file: onnx.ModelProto, task: Task) -> tuple[float, np.ndarray]:
    """Percent of the test part, and the classes it gives."""
    found = np.asarray(outputs(file, [(one[None],) for one in images(task, task.test).numpy()])[0]).argmax(1)
    return 100 * float((found == task.test.targets.numpy()).mean()), found


def one(task: Task, model: nn.Module, bits: int, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    began = time.process_time()
    calibration = images(task, task.train)[:CALIBRATION]
    folded = apply(model, plan(model, calibration[:1], ["fold_batch_norm"]), calibration[:8])
    if arguments.hostile:
        make_hostile(folded, arguments.hostile)
    net = qat.prepared(folded, calibration, bits=bits, ranges=arguments.ranges)
    before, _ = file_accuracy(quantise_learned(net, calibration[:2])[1], task)
    recipe = Recipe(
        lr=arguments.lr, weight_decay=1e-5, batch_size=64, label_smoothing=0.0, ema_decay=0.98,
        augment=default_augment(task.spec) if arguments.weights else None,
    )  # fmt: skip
    train(net, task, derive(seed, "qat"), arguments.epochs, recipe)
    after, found = file_accuracy(quantise_learned(net, calibration[:2])[1], task)
    with torch.no_grad():
        own = torch.cat([net(part) for part in images(task, task.test).split(100)]).argmax(1).numpy()
    return {
        "seed": seed,
        "bits": bits,
        "float": float_accuracy(folded, task),
        "rounded": before,
        "learned": after,
        "agreement": 100 * float((own == found).mean()),
        "cpu_seconds": time.process_time() - began,
    }


@torch.no_grad()
def float_accuracy(model: nn.Module, task: Task) -> float:
    found = torch.cat([model(part) for part in images(task, task.test).split(100)]).argmax(1)
    return 100 * (found == task.test.targets).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="ResNet-20 for CIFAR-10 as safetensors")
    parser.add_argument("--data", help="CIFAR-10 as an .npz file")
    parser.add_argument("--images", type=int, default=5000, help="of CIFAR-10's training part")
    parser.add_argument("--tests", type=int, default=2000, help="of CIFAR-10's test part")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4, 3, 2])
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--ranges", choices=["learned", "running"], default="learned")
    parser.add_argument("--hostile", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in arguments.seeds:
        if arguments.weights:
            task, model = cifar(arguments.data, arguments.weights, arguments.images, arguments.tests)
        else:
            task, model = digits(seed)
        for bits in arguments.bits:
            rows.append(one(task, model, bits, seed, arguments))
            print(rows[-1], flush=True)
            if arguments.out:
                write_text(arguments.out, json.dumps(rows, indent=2))
    print("\n| bits of weights | float, % | rounded, % | learned, % | agreement, % | CPU s a run |")
    print("|---|---|---|---|---|---|")
    for bits in arguments.bits:
        mine = [row for row in rows if row["bits"] == bits]
        cells = [f"{bits}"]
        for name in ("float", "rounded", "learned"):
            values = [row[name] for row in mine]
            cells.append(f"{np.mean(values):.2f} ({min(values):.2f} .. {max(values):.2f})")
        cells += [
            f"{np.mean([row['agreement'] for row in mine]):.2f}",
            f"{np.mean([r['cpu_seconds'] for r in mine]):.0f}",
        ]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
