"""Making a run's network smaller and faster."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewright.cli.app import AsJson, Quiet, app, guarded
from edgewright.core.errors import BadInput

HOW = "edgewright compress RUN --latency-ms X --max-drop 1.0 --out FOLDER"
CEILINGS = ("latency_ms", "size_mb", "peak_memory_kb", "macs", "params")


@app.command()
@guarded
def compress(
    source: Annotated[str | None, typer.Argument(help="A run folder, of design, adapt or compress.")] = None,
    latency_ms: Annotated[float | None, typer.Option(help="Ceiling: median latency, batch 1, ms.")] = None,
    size_mb: Annotated[float | None, typer.Option(help="Ceiling: exported file, MB of 1024 x 1024 bytes.")] = None,
    peak_memory_kb: Annotated[
        float | None, typer.Option("--peak-memory-kb", "--memory-kb", help="Ceiling: activations, KB of 1024 bytes.")
    ] = None,
    macs: Annotated[float | None, typer.Option(help="Ceiling: multiply-adds; 6e6 is fine.")] = None,
    params: Annotated[float | None, typer.Option(help="Ceiling: number of parameters.")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Points of accuracy that may be lost [default: 1].")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Wall-clock limit [default: 20, or none with --epochs].")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Most passes over the training images.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder to go on with.")] = None,
    steps: Annotated[str | None, typer.Option(help="What may be done: quantise,prune,linearise [default].")] = None,
    device: Annotated[str | None, typer.Option(help="Where it must run [default: as the run says].")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime [default: the run's].")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate [default: half of the task's].")] = None,
    seed: Annotated[int | None, typer.Option(help="Of images and training [default: 0].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, write nothing.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make a run's network keep lower ceilings.

    At the least loss of accuracy: first rewrites that change nothing, then int8, each measured. Only if that is not
    enough, the network learns to be int8, or channels or whole activations go, and the network as it was teaches what
    is left. The folder made is a run again.
    """
    flags = dict(locals())
    began = time.monotonic()  # importing torch takes seconds, which count
    for name in ("out", "resume", "dry_run", "as_json", "quiet"):
        flags.pop(name)
    given = {name: value for name, value in flags.items() if value is not None}

    from edgewright.job.compress import run as job
    from edgewright.job.compress.decide import NothingKeeps, shown

    if resume is not None and (given or out or dry_run):
        raise BadInput("--resume goes on with what was asked in the folder and takes no other options")
    try:
        if resume is not None:
            return _show(resume, job.resume(resume, began), as_json)
        asked = job.resolved(job.CompressPlan.parse(_fields(given), "the options"))
        if dry_run:
            ground, decided = job.dry_run(asked)
            return _show_ways(ground, decided, as_json)
        if out is None:
            raise BadInput("say where it goes: --out FOLDER")
        return _show(out, job.run(asked, out, began), as_json)
    except NothingKeeps as error:
        print(shown(error.trials), file=sys.stderr if as_json else sys.stdout)
        raise


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """The options as `CompressPlan` names them."""
    if "source" not in given:
        raise BadInput(f"say which run: {HOW}")
    budget = {name: given[name] for name in CEILINGS if name in given}
    if not budget:
        raise BadInput(f"say what it must keep, by one ceiling at least: {HOW}")
    fields = {name: value for name, value in given.items() if name not in CEILINGS}
    if "steps" in fields:
        fields["steps"] = tuple(name.strip() for name in fields["steps"].split(",") if name.strip())
    return {**fields, "budget": budget}


def _show_ways(ground: Any, decided: Any, as_json: bool) -> None:
    """The plans: what would be rewritten, pruned, and what it would save."""
    from edgewright.compress.planner import read_plan
    from edgewright.job.compress.decide import shown

    plans = {way.name: read_plan(way.plan, way.name) for way in decided.ways}
    if as_json:
        print(json.dumps({"ready": decided.ready, "remarks": decided.remarks,
                          "trials": [trial.model_dump(mode="json") for trial in decided.trials],
                          "ways": [way.model_dump(mode="json") for way in decided.ways]}, indent=2))  # fmt: skip
        return
    print(shown(decided.trials))
    for remark in decided.remarks:
        print(remark)
    for way in decided.ways:
        print(f"\n{way.name}, in {way.type}; then it learns again:\n{plans[way.name]}")
    if decided.ready:
        print("\nnothing needs to be trained: exact rewrites and the type of numbers are enough")


def _show(out: Path, result: Any, as_json: bool) -> None:
    if as_json:
        print(result.to_json(), end="")
        return
    from edgewright.core.cost import show

    old, new = result.before, result.after
    print(f"{'on test':<16}{old.test:.2f} before, {new.test:.2f} after")
    for name in ("latency", "size", "peak_memory", "macs", "params"):
        was, is_ = (show(name, figures.costs[name].value) for figures in (old, new))
        faster = f" ({result.ratio.text()} of the time)" if name == "latency" and result.ratio else ""
        print(f"{name.replace('_', ' '):<16}{was} before, {is_} after{faster}")
    print(f"{'numbers':<16}{old.type} before, {new.type} after" + (f": {new.note}" if new.note else ""))
    print(f"{'what was done':<16}{result.way}" + (f", {result.learned[-1].trained.epochs:.1f} epochs of learning again"
                                                  if result.learned else ""))  # fmt: skip
    print(f"{'report':<16}{out / 'report.html'}")
