"""Learning on the device."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewright.cli.app import AsJson, Quiet, app, guarded
from edgewright.core.errors import BadInput


@app.command()
@guarded
def adapt(
    source: Annotated[str | None, typer.Argument(help="A run folder, or timm:NAME with --weights.")] = None,
    task: Annotated[str | None, typer.Option(help="The new data: images:DIR, arrays:FILE.npz or digits.")] = None,
    memory_mb: Annotated[float | None, typer.Option(help="Ceiling of a training step, MB (see below).")] = None,
    memory_kb: Annotated[float | None, typer.Option(help="The same in KB of 1024 bytes.")] = None,
    macs: Annotated[float | None, typer.Option(help="Ceiling: multiply-adds of a step; 1e9 is fine.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall-clock limit [default: 10].")] = None,
    epochs: Annotated[int | None, typer.Option(help="Most passes over the training images.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder to go on with.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Safetensors file for a timm network.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images held at a time [default: 8].")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate [default: 0.02].")] = None,
    momentum: Annotated[float | None, typer.Option(help="Of SGD; 0 saves its memory [default: 0.9].")] = None,
    methods: Annotated[str | None, typer.Option(help="What may be chosen: full,bias,... [default: all].")] = None,
    resolution: Annotated[int | None, typer.Option(help="Input side of a timm network, pixels.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same plan and order of images [default: 0].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be trained, stored, computed.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Adapt a trained network to new data inside a training-memory budget.

    The budget is what one batch's training step keeps on top of running the network: activations for the backward pass,
    gradients, and the optimizer's state. The planner chooses which layers learn, and how.
    """
    flags = dict(locals())
    from edgewright.backward.resolve import methods as known
    from edgewright.job import adapt as job

    options = ("source", "task", "minutes", "epochs", "batch", "lr", "momentum", "resolution", "seed")
    given: dict[str, Any] = {name: flags[name] for name in options if flags[name] is not None}
    if resume is not None:
        if given or out or weights or methods or memory_mb or memory_kb or macs:
            raise BadInput("--resume goes on with what was asked in the folder and takes no other options")
        return _show(resume, job.resume(resume), as_json)
    if memory_mb is not None and memory_kb is not None:
        raise BadInput("give --memory-mb or --memory-kb, not both")
    for name in ("source", "task"):
        if name not in given:
            raise BadInput("say which network and which data: edgewright adapt RUN_OR_TIMM --task TASK --out FOLDER")
    if memory_mb is not None:
        given["memory_bytes"] = int(memory_mb * 2**20)
    if memory_kb is not None:
        given["memory_bytes"] = int(memory_kb * 2**10)
    if macs is not None:
        given["macs"] = int(macs)
    if weights is not None:
        given["weights"] = str(weights)
    if methods is not None:
        given["methods"] = tuple(methods.split(","))
        unknown = [name for name in given["methods"] if name not in known()]
        if unknown:
            raise BadInput(f"unknown backward method '{unknown[0]}'; choose from {', '.join(known())}")
    asked = job.resolved(job.AdaptPlan.parse(given, "the options"))
    if dry_run:
        plan = job.dry_run(asked)
        print(_as_json(plan) if as_json else plan)
        return None
    if out is None:
        raise BadInput("say where it goes: --out FOLDER")
    return _show(out, job.run(asked, out), as_json)


def _as_json(plan: Any) -> str:
    from edgewright.job.adapt import rows

    sums = ("stored_bytes", "full_stored_bytes", "memory_bytes", "full_memory_bytes", "gradient_bytes", "state_bytes")
    shown = {"plan": rows(plan), **{name: getattr(plan, name) for name in (*sums, "macs", "full_macs")}}
    return json.dumps(shown, indent=2)


def _show(out: Path, result: Any, as_json: bool) -> None:
    if as_json:
        print(result.to_json(), end="")
        return
    from edgewright.backward.training_plan import said

    plan = result.training
    learns = sum(bool(row.learns) for row in plan.layers)
    share = 100 * plan.memory_bytes / max(1, plan.full_memory_bytes)
    print(f"{'test accuracy':<16}{result.accuracy.before:.2f} % before, {result.accuracy.after:.2f} % after")
    if result.old_task is not None:
        print(f"{'old task':<16}{result.old_task.before:.2f} % before, {result.old_task.after:.2f} % after")
    else:
        print(f"{'old task':<16}not measured: {result.old_task_missing}")
    print(f"{'training memory':<16}{said(plan.memory_bytes)} a batch of {plan.batch[0]} ({share:.1f} % of full)")
    print(f"{'learned':<16}{learns} layers, {result.tuned.steps:,} steps, {result.tuned.epochs:.1f} epochs")
    if result.tuned.stopped:
        print(f"{'ended early':<16}{result.tuned.stopped}")
    print(f"{'report':<16}{out / 'report.html'}")
