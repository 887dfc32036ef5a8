"""Making a run's network smaller and faster."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewright.cli.app import AsJson, Quiet, app, guarded
from edgewright.cli.options import Asked, asks
from edgewright.core.errors import BadInput
from edgewright.job.compress.plan import CompressPlan

HOW = "edgewright compress RUN --latency-ms X --max-drop 1.0 --out FOLDER"


@app.command()
@guarded
@asks(
    CompressPlan,
    argument="source",
    optional=True,
    names={"peak_memory_kb": ("--peak-memory-kb", "--memory-kb")},
    after={"epochs": ("out", "resume")},
)
def compress(
    asked: Asked,
    out: Annotated[Path | None, typer.Option(help="Folder to make.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder to go on with.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, write nothing.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make a run's network keep lower ceilings.

    At the least loss of accuracy: first rewrites that change nothing, then int8, each measured. Only if that is not
    enough, the network learns to be int8, or channels or whole activations go, and the network as it was teaches what
    is left. The folder made is a run again.
    """
    began = time.monotonic()  # importing torch takes seconds, which count

    from edgewright.job.compress import run as job
    from edgewright.job.compress.decide import NothingKeeps, shown

    if resume is not None and (asked or out or dry_run):
        raise BadInput("--resume goes on with what was asked in the folder and takes no other options")
    try:
        if resume is not None:
            return _show(resume, job.resume(resume, began), as_json)
        plan = job.resolved(CompressPlan.parse(_checked(asked), "the options"))
        if dry_run:
            ground, decided = job.dry_run(plan)
            return _show_ways(ground, decided, as_json)
        if out is None:
            raise BadInput("say where it goes: --out FOLDER")
        return _show(out, job.run(plan, out, began), as_json)
    except NothingKeeps as error:
        print(shown(error.trials), file=sys.stderr if as_json else sys.stdout)
        raise


def _checked(asked: Asked) -> Asked:
    """What was asked, if it says which run and by what."""
    if "source" not in asked:
        raise BadInput(f"say which run: {HOW}")
    if "budget" not in asked:
        raise BadInput(f"say what it must keep, by one ceiling at least: {HOW}")
    return asked


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
    from edgewright.core.cost import show, words

    old, new = result.before, result.after
    print(f"{'on test':<16}{old.test:.2f} before, {new.test:.2f} after")
    for name in new.costs:
        was, is_ = (show(name, figures.costs[name].value) for figures in (old, new))
        faster = f" ({result.ratio.text()} of the time)" if name == "latency" and result.ratio else ""
        print(f"{words(name):<16}{was} before, {is_} after{faster}")
    print(f"{'numbers':<16}{old.type} before, {new.type} after" + (f": {new.note}" if new.note else ""))
    print(f"{'what was done':<16}{result.way}" + (f", {result.learned[-1].trained.epochs:.1f} epochs of learning again"
                                                  if result.learned else ""))  # fmt: skip
    print(f"{'report':<16}{out / 'report.html'}")
