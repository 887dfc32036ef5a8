"""Learning on the device."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewright.cli.app import AsJson, Quiet, app, guarded
from edgewright.cli.options import Asked, asks
from edgewright.core.errors import BadInput
from edgewright.job.adapt.plan import AdaptPlan

HOW = "edgewright adapt RUN_OR_TIMM --task TASK --memory-kb N --out FOLDER"


@app.command()
@guarded
@asks(
    AdaptPlan,
    argument="source",
    optional=True,
    but=("memory_bytes", "macs"),
    after={"task": ("memory_mb", "memory_kb"), "device": ("macs",), "epochs": ("out", "resume")},
)
def adapt(
    asked: Asked,
    memory_mb: Annotated[float | None, typer.Option(help="Ceiling: memory, MB of 1024 x 1024 bytes.")] = None,
    memory_kb: Annotated[float | None, typer.Option(help="The same in KB of 1024 bytes.")] = None,
    macs: Annotated[float | None, typer.Option(help="Ceiling: multiply-adds of a batch; 1e9 is fine.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder to go on with.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would learn, write nothing.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Let a trained network learn new data in a memory budget.

    The ceilings are of one training step, on top of running the network: activations kept for the backward
    pass, gradients, and the optimizer's state. The planner chooses which layers learn, and how; without a ceiling, what
    brings most. Where the classes differ, the network gets a new last layer.
    """
    began = time.monotonic()  # importing torch takes seconds, which count
    ceilings = {"memory_mb": memory_mb, "memory_kb": memory_kb, "macs": macs}
    given = asked | {name: value for name, value in ceilings.items() if value is not None}

    from edgewright.job.adapt import run as job

    if resume is not None:
        if given or out or dry_run:
            raise BadInput("--resume goes on with what was asked in the folder and takes no other options")
        return _show(resume, job.resume(resume, began), as_json)
    plan = job.resolved(AdaptPlan.parse(_fields(given), "the options"))
    if dry_run:
        found = job.dry_run(plan)
        print(_as_json(found) if as_json else found)
        return None
    if out is None:
        raise BadInput("say where it goes: --out FOLDER")
    return _show(out, job.run(plan, out, began), as_json)


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
