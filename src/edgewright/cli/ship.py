"""Handing out the file that is really fastest."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgewright.cli.app import AsJson, Quiet, app, guarded
from edgewright.cli.options import Asked, asks
from edgewright.core.errors import BadInput
from edgewright.export.choose.plan import VersusPlan
from edgewright.export.ship.plan import ShipPlan


@app.command()
@guarded
@asks(
    ShipPlan,
    names={"device": ("--for",), "runtimes": ("--runtime",), "kinds": ("--type",)},
    after={"": ("choose",), "std": ("out",)},
)
def export(
    asked: Asked,
    source: Annotated[Path, typer.Argument(help="Run folder, or an ONNX file.")],
    choose: Annotated[bool, typer.Option("--choose", help="Measure every runtime and type; the fastest wins.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder [default: export/ in the run or beside the file].")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write the file that is really fastest here.

    Of every runtime and type that loses little enough, each measured in turns with the others.
    """
    plan = ShipPlan.parse(asked, "the options")
    if not choose and not (plan.runtimes and plan.kinds and len(plan.runtimes) == len(plan.kinds) == 1):
        raise BadInput("say --choose to measure every runtime and type, or name one: --runtime NAME --type TYPE")
    from edgewright.export.choose.choice import NothingFits
    from edgewright.export.ship.ship import ship

    try:
        shipped = ship(source, out=out, **asked)
    except NothingFits as error:
        print(error.choice.table(), file=sys.stderr if as_json else sys.stdout)
        raise
    if as_json:
        print(json.dumps(shipped.summary(), indent=2))
        return
    print(f"{shipped.choice.table()}\n{shipped.choice.why}\n{shipped.file}")


@app.command()
@guarded
@asks(VersusPlan)
def measure(
    asked: Asked,
    files: Annotated[list[str], typer.Argument(help="FILE (its ending says which runtime), RUNTIME:FILE, run folder.")],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Time files of any runtime in turns, with confidence intervals."""
    plan = VersusPlan.parse(asked, "the options")
    from edgewright.export.choose.versus import versus

    found = versus(files, threads=plan.threads, runs=plan.runs, shape=plan.shape, seed=plan.seed)
    print(found.to_json() if as_json else found.text(), end="" if as_json else "\n")


@app.command()
@guarded
def show(
    file: Annotated[Path, typer.Argument(help="A network's file.")],
    as_json: AsJson = False,
) -> None:
    """Tell where a file comes from, and whether it is whole."""
    from edgewright.export.ship.show import read_provenance

    found = read_provenance(file)
    print(found.to_json() if as_json else found.text(), end="" if as_json else "\n")
