"""The main job against the best of timm's mobile models that meets the same measured latency.

Both sides see the same data, are trained by the same loop with the same recipe for the same number of epochs, and are
measured by the same runtime as exported files. timm's models are adapted to 32 px as their users adapt them: as they
are, and with the stem's stride set to 1. All that keep the ceiling are trained once; the best `--rivals` of them on the
test part, which flatters timm's side, are trained with every seed. Every training is kept in a file of its own, so a
cut benchmark goes on.

    pip install "edgewright[timm]"
    python benchmarks/design_vs_timm.py --data cifar10.npz --latency-ms 0.25 --epochs 8 --seeds 0 1 2 --out runs/timm
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from edgewright.core.cost import Budget
from edgewright.core.files import write_text
from edgewright.core.plan import Plan
from edgewright.core.pool import Pool, pool
from edgewright.core.seed import derive
from edgewright.device.here.cpu import Cpu
from edgewright.device.measure import Runs
from edgewright.export.onnx import export_onnx
from edgewright.job.design.run import resume, run
from edgewright.task.load import load_task
from edgewright.train.clock import StepClock, steps_per_epoch
from edgewright.train.evaluate import evaluate
from edgewright.train.loop import Running, fit
from edgewright.train.recipe import recipe_for

MODELS = [
    "mobilenetv3_small_050",
    "mobilenetv3_small_075",
    "mobilenetv3_small_100",
    "mobilenetv2_035",
    "mobilenetv2_050",
    "mobilenetv2_100",
    "efficientnet_lite0",
    "mobilenetv4_conv_small_035",
    "mobilenetv4_conv_small_050",
    "mobilenetv4_conv_small",
    "ghostnetv2_100",
    "tinynet_e",
    "lcnet_035",
    "lcnet_050",
]


def timm_model(name: str, stem_stride: int, num_classes: int) -> torch.nn.Module:
    """`name` with fresh weights; `stem_stride` 1 is the usual change for 32 px images."""
    import timm  # pyright: ignore[reportMissingImports]

    model = timm.create_model(name, num_classes=num_classes)
    first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
    first.stride = (stem_stride, stem_stride)
    return model


def measure_all(task, folder: Path, models: list[str]) -> dict[str, float]:
    """Median latency (ms) of every variant's exported file, by "name/stem"."""
    path = folder / "timm_latency.json"
    if path.exists():
        return json.loads(path.read_text())
    device, latency = Cpu(threads=1), {}
    for name in models:
        for stem in (2, 1):
            try:
                model = timm_model(name, stem, len(task.spec.names))
                export_onnx(model, task.spec.input.shape, folder / "timm.onnx", {})
            except Exception as error:  # a model that cannot take 32 px at this stride is no rival
                print(f"{name}/{stem}: cannot be exported at this size ({type(error).__name__})")
                continue
            latency[f"{name}/{stem}"] = device.measure([folder / "timm.onnx"], Runs(most=300))[0].median_ms
            print(f"{name}/{stem}: {latency[f'{name}/{stem}']:.3f} ms", flush=True)
    write_text(path, json.dumps(latency, indent=2))
    return latency


def train_timm(job: tuple[str, str, int, int, str]) -> dict:
    """Train one variant with one seed, exactly as the main job trains its own."""
    data, variant, seed, epochs, folder = job
    kept = Path(folder) / f"{variant.replace('/', '-')}-seed{seed}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    task = load_task(f"arrays:{data}", seed=seed)
    name, stem = variant.split("/")
    torch.manual_seed(derive(seed, "weights", variant))
    model = timm_model(name, int(stem), len(task.spec.names))
    recipe = recipe_for(task.spec, epochs=epochs)
    began = time.monotonic()
    fit(
        model,
        task,
        recipe,
        size=task.spec.size,
        seed=derive(seed, "train", variant),
        clock=StepClock(epochs * steps_per_epoch(len(task.train), recipe.step_samples)),
        running=Running(checkpoint=kept.with_suffix(".safetensors")),
    )
    test = evaluate(model, task.test, task.spec).values["accuracy"]
    row = {"variant": variant, "seed": seed, "test": test, "seconds": time.monotonic() - began}
    write_text(kept, json.dumps(row))
    kept.with_suffix(".safetensors").unlink(missing_ok=True)
    return row


def design(args: argparse.Namespace, seed: int) -> dict:
    """Our side: one whole run of the main job; nothing of it depends on time."""
    out = args.out / f"design-seed{seed}"
    plan = Plan(
        task=f"arrays:{args.data}",
        budget=Budget(latency_ms=args.latency_ms),
        epochs=args.epochs,
        candidates=args.candidates,
        finalists=args.finalists,
        seed=seed,
    )
    result = resume(out) if (out / "plan.yaml").exists() else run(plan, out)
    latency, accuracy = result.costs["latency"].value, result.metrics.test["accuracy"]
    print(f"edgewright seed {seed}: {accuracy:.2f} %, {latency:.3f} ms", flush=True)
    return {"test": accuracy, "latency_ms": latency}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--latency-ms", type=float, default=0.25)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=400)
    parser.add_argument("--finalists", type=int, default=8)
    parser.add_argument("--rivals", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--out", type=Path, default=Path("runs/design_vs_timm"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    task = load_task(f"arrays:{args.data}", seed=0)
    latency = measure_all(task, args.out, args.models)
    inside = [variant for variant, ms in latency.items() if ms <= args.latency_ms]
    ours = [design(args, seed) for seed in args.seeds]
    with pool() as workers:
        first = {row["variant"]: row["test"] for row in train_all(workers, args, inside, args.seeds[:1])}
        rivals = sorted(inside, key=lambda variant: -first[variant])[: args.rivals]
        rows = train_all(workers, args, rivals, args.seeds)
    print(f"\n{args.data}: {args.epochs} epochs, ceiling {args.latency_ms} ms, seeds {args.seeds}")
    for variant in sorted(inside, key=lambda variant: first[variant]):
        accuracies = [row["test"] for row in rows if row["variant"] == variant] or [first[variant]]
        print(f"{variant:36s}{latency[variant]:7.3f} ms  {_spread(accuracies)}")
    print(f"{'edgewright':36s}{max(o['latency_ms'] for o in ours):7.3f} ms  {_spread([o['test'] for o in ours])}")
    best = max(statistics.mean(row["test"] for row in rows if row["variant"] == variant) for variant in rivals)
    print(f"difference to the best: {statistics.mean(o['test'] for o in ours) - best:+.2f} points")


def train_all(workers: Pool, args: argparse.Namespace, variants: list[str], seeds: list[int]) -> list[dict]:
    jobs = [(args.data, variant, seed, args.epochs, str(args.out)) for seed in seeds for variant in variants]
    rows = []
    for row in workers.imap(train_timm, jobs):
        print(f"{row['variant']} seed {row['seed']}: {row['test']:.2f} %  ({row['seconds']:.0f} s)", flush=True)
        rows.append(row)
    return rows


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f} %  ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
