"""Handing out the file that is really fastest."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgewright.cli.app import AsJson, Quiet, app, guarded
from edgewright.core.errors import BadInput

Shape = Annotated[
    str | None,
    typer.Option(help="Of the input, where the file leaves it open: 1,3,224,224; of several: 'ids=1,128;mask=1,128'."),
]


@app.command()
@guarded
def export(
    source: Annotated[Path, typer.Argument(help="Run folder, or an ONNX file.")],
    choose: Annotated[bool, typer.Option("--choose", help="Measure every runtime and type; the fastest wins.")] = False,
    device: Annotated[str, typer.Option("--for", help="Where it must run: cpu, or a board.")] = "cpu",
    data: Annotated[str | None, typer.Option(help="images:DIR or arrays:FILE.npz [default: the run's].")] = None,
    max_drop: Annotated[float, typer.Option(help="Points of accuracy that may be lost.")] = 1.0,
    runtime: Annotated[str | None, typer.Option(help="What may win: onnxruntime,openvino,... [default: all].")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="fp32,bf16,int8 [default: all].")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every runtime.")] = 1,
    shape: Shape = None,
    mean: Annotated[str | None, typer.Option(help="Of each channel, pixels from 0 to 1: 0.5,0.5,0.5.")] = None,
    std: Annotated[str | None, typer.Option(help="The same, deviation.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder [default: export/ in the run or beside the file].")] = None,
    seed: Annotated[int, typer.Option(help="Which images calibrate and which compare.")] = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write the file that is really fastest here.

    Of every runtime and type that loses little enough, each measured in turns with the others.
    """
    names, types = _words(runtime), _words(type_)
    if not choose and not (names and types and len(names) == len(types) == 1):
        raise BadInput("say --choose to measure every runtime and type, or name one: --runtime NAME --type TYPE")
    from edgewright.export.choose.choice import NothingFits
    from edgewright.export.ship.ship import ship

    try:
        shipped = ship(
            source, data=data, device=device, max_drop=max_drop, runtimes=names, kinds=types, threads=threads,
            shape=_shape(shape), mean=_floats(mean, "--mean"), std=_floats(std, "--std"), out=out,
            seed=seed,
        )  # fmt: skip
    except NothingFits as error:
        print(error.choice.table(), file=sys.stderr if as_json else sys.stdout)
        raise
    if as_json:
        print(json.dumps(shipped.summary(), indent=2))
        return
    print(f"{shipped.choice.table()}\n{shipped.choice.why}\n{shipped.file}")


@app.command()
@guarded
def measure(
    files: Annotated[list[str], typer.Argument(help="FILE (its ending says which runtime), RUNTIME:FILE, run folder.")],
    threads: Annotated[int, typer.Option(min=1, help="Threads of every runtime.")] = 1,
    runs: Annotated[int, typer.Option(min=20, help="Timed runs of each.")] = 300,
    shape: Shape = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Time files of any runtime in turns, with confidence intervals."""
    from edgewright.export.choose.versus import versus

    found = versus(files, threads=threads, runs=runs, shape=_shape(shape))
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


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _shape(text: str | None) -> dict[str, tuple[int, ...]] | tuple[int, ...] | None:
    """A shape, or shapes by the names of inputs."""
    if text is None or "=" not in text:
        return None if text is None else _integers(text)
    parts = (part.rpartition("=") for part in text.split(";") if part.strip())
    return {name.strip(): _integers(sizes) for name, _, sizes in parts}


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise BadInput(f"--shape takes whole numbers with commas between, not '{text}'") from None


def _floats(text: str | None, option: str) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(word) for word in text.split(","))
    except ValueError:
        raise BadInput(f"{option} takes numbers with commas between, not '{text}'") from None
