"""Learning on the device."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewright.cli.app import AsJson, Quiet, app, guarded, size_asked
from edgewright.core.errors import BadInput

HOW = "edgewright adapt RUN_OR_TIMM --task TASK --memory-kb N --out FOLDER"


@app.command()
@guarded
def adapt(
    source: Annotated[str | None, typer.Argument(help="A run folder, or timm:NAME with --weights.")] = None,
    task: Annotated[str | None, typer.Option(help="The new data: images:DIR, arrays:FILE.npz or digits.")] = None,
    memory_mb: Annotated[float | None, typer.Option(help="Ceiling: memory, MB of 1024 x 1024 bytes.")] = None,
    memory_kb: Annotated[float | None, typer.Option(help="The same in KB of 1024 bytes.")] = None,
    device: Annotated[
        str | None, typer.Option(help="A board, whose RAM is the ceiling where --memory-kb is not given.")
    ] = None,
    macs: Annotated[float | None, typer.Option(help="Ceiling: multiply-adds of a batch; 1e9 is fine.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Wall-clock limit [default: 10, or none with --epochs].")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Most passes over the training images.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder to go on with.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Safetensors file for a timm network.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Images held at a time [default: up to 8, as the memory serves best].")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate [default: 0.003].")] = None,
    momentum: Annotated[float | None, typer.Option(help="Of SGD; 0 saves its memory [default: 0.9].")] = None,
    methods: Annotated[str | None, typer.Option(help="What may be chosen: full,bias,... [default: all].")] = None,
    resolution: Annotated[
        str | None, typer.Option(help="Pixels a timm network's input has: 64, or 48x64 (height x width).")
    ] = None,
    skip_bad: Annotated[int | None, typer.Option(help="Unreadable images to skip [default: 0].")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same plan and order of images [default: 0].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would learn, write nothing.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Let a trained network learn new data in a memory budget.

    The ceilings are of one training step, on top of running the network: activations kept for the backward
    pass, gradients, and the optimizer's state. The planner chooses which layers learn, and how; without a ceiling, what
    brings most. Where the classes differ, the network gets a new last layer.
    """
    flags = dict(locals())
    began = time.monotonic()  # importing torch takes seconds, which count
    for name in ("out", "resume", "dry_run", "as_json", "quiet"):
        flags.pop(name)
    given = {name: value for name, value in flags.items() if value is not None}

    from edgewright.job.adapt import run as job

    if resume is not None:
        if given or out or dry_run:
            raise BadInput("--resume goes on with what was asked in the folder and takes no other options")
        return _show(resume, job.resume(resume, began), as_json)
    asked = job.resolved(job.AdaptPlan.parse(_fields(given), "the options"))
    if dry_run:
        plan = job.dry_run(asked)
        print(_as_json(plan) if as_json else plan)
        return None
    if out is None:
        raise BadInput("say where it goes: --out FOLDER")
    return _show(out, job.run(asked, out, began), as_json)


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """The options as `AdaptPlan` names them."""
    from edgewright.job.adapt.run import ceiling

    for name, what in (("source", "which network"), ("task", "which data")):
        if name not in given:
            raise BadInput(f"say {what}: {HOW}")
    if {"memory_mb", "memory_kb"} <= set(given):
        raise BadInput("give --memory-mb or --memory-kb, not both")
    fields = dict(given)
    for name, field, unit in (
        ("memory_mb", "memory_bytes", 2**20),
        ("memory_kb", "memory_bytes", 2**10),
        ("macs", "macs", 1),
    ):
        if name in fields:
            fields[field] = ceiling(fields.pop(name), unit, f"--{name.replace('_', '-')}")
    if "weights" in fields:
        fields["weights"] = str(fields["weights"])
    if "resolution" in fields:
        fields["resolution"] = size_asked(fields["resolution"])
    if "methods" in fields:
        fields["methods"] = tuple(name.strip() for name in fields["methods"].split(","))
    return fields


def _as_json(plan: Any) -> str:
    from edgewright.job.adapt.run import rows

    sums = ("stored_bytes", "full_stored_bytes", "memory_bytes", "full_memory_bytes", "gradient_bytes", "state_bytes")
    shown = {"plan": rows(plan), **{name: getattr(plan, name) for name in (*sums, "macs", "full_macs")}}
    return json.dumps(shown, indent=2)


def _show(out: Path, result: Any, as_json: bool) -> None:
    if as_json:
        print(result.to_json(), end="")
        return
    from edgewright.backward.plans.training_plan import said

    plan = result.training
    learns = sum(bool(row.learns) for row in plan.layers)
    share = 100 * plan.memory_bytes / max(1, plan.full_memory_bytes)
    before = "with a new head alone" if result.new_head else "before"
    figure = result.figure
    name = f"test {figure.name.replace('_', ' ')}"
    print(f"{name:<16}{figure.before:.2f} {figure.unit} {before}, {figure.after:.2f} {figure.unit} after")
    if result.old_task is not None:
        print(f"{'old task':<16}{result.old_task.before:.2f} % before, {result.old_task.after:.2f} % after")
    else:
        print(f"{'old task':<16}not measured: {result.old_task_missing}")
    held = f"{plan.held} of {plan.batch[0]} images held at a time"
    print(f"{'training memory':<16}{said(plan.memory_bytes)} ({share:.1f} % of full), {held}")
    print(f"{'learned':<16}{learns} layers, {result.tuned.steps:,} steps, {result.tuned.epochs:.1f} epochs")
    if result.tuned.stopped:
        print(f"{'ended early':<16}{result.tuned.stopped}")
    print(f"{'report':<16}{out / 'report.html'}")
