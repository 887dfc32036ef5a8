"""Devices of one's own."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewright.cli.app import AsJson, Quiet, app, guarded
from edgewright.core.errors import BadInput

group = typer.Typer(name="device", help="Devices of your own (all: edgewright devices).", no_args_is_help=True)
app.add_typer(group)

Priors = Annotated[list[Path] | None, typer.Option(help=".npz with latencies of other devices; may be given again.")]


_LONG = {"latency_ms", "spread_ms"}  # one number for each network of the space


def _words(model: Any) -> str:
    """What a fitted device was learned from, and how good it is."""
    learned = f"{len(model.indices)} samples and {len(model.priors) or 'no'} other devices"
    order = "" if model.rank_correlation is None else f", Spearman {model.rank_correlation:.3f}"
    return f"from {learned}; each sample left out in turn: median error {100 * model.median_error:.1f} %{order}"


@group.command()
@guarded
def add(
    name: Annotated[str, typer.Argument(help="What to call the device.")],
    from_samples: Annotated[
        Path | None, typer.Option(help="CSV with the columns index,latency_ms: 10 to 20 networks.")
    ] = None,
    from_: Annotated[Path | None, typer.Option("--from", help="YAML file that describes a board; or this.")] = None,
    space: Annotated[str, typer.Option(help="The space whose networks were measured.")] = "nb201",
    prior: Priors = None,
    predict: Annotated[str, typer.Option(help="Which networks: all of the space.")] = "all",
    out: Annotated[Path | None, typer.Option(help=".npz to write with latency_ms over the whole space.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Keep a device of your own: a board by its description, or a latency of every network from a few measured ones."""
    from edgewright.job.new_device.new_device import add_device

    if (from_samples is None) == (from_ is None):
        raise BadInput("say what is known of the device: --from BOARD.yaml, or --from-samples FILE.csv")
    if from_ is not None:
        return _add_board(name, from_, as_json)
    assert from_samples is not None

    if predict != "all":
        raise BadInput(f"--predict takes all, not '{predict}'")
    device = add_device(name, space, from_samples, prior or (), out=out)
    if as_json:
        print(device.to_json(), end="")
        return None
    print(f"{name}: all {len(device.model.latency_ms)} networks of {space} predicted; {_words(device.model)}")
    if out is not None:
        print(f"predictions: {out}")
    return None


def _add_board(name: str, path: Path, as_json: bool) -> None:
    from edgewright.device.board.target import read_target, save_target

    target = read_target(path)
    if target.name != name:
        raise BadInput(f"{path}: describes '{target.name}', not '{name}'; call it by the name in the file")
    kept = save_target(target)
    print(
        target.to_json() if as_json else f"{name}: kept in {kept}; use it as --device {name}", end="\n" * (not as_json)
    )


@group.command("list")
@guarded
def list_added(as_json: AsJson = False) -> None:
    """The devices that were added from samples, and how well each predicts these; `edgewright devices` lists boards."""
    from edgewright.device.few.added import added_devices, load_device

    rows = [load_device(name) for name in added_devices()]
    if as_json:
        facts = [{"name": r.name, "space": r.space, **r.model.model_dump(exclude=_LONG, mode="json")} for r in rows]
        print(json.dumps(facts, indent=2))
        return
    for row in rows:
        print(f"{row.name:<18}{row.space:<10}{_words(row.model)}")
    if not rows:
        print("none; edgewright device add --help says how")


@group.command()
@guarded
def suggest(
    count: Annotated[int, typer.Argument(min=1, help="How many networks.")] = 20,
    space: Annotated[str, typer.Option(help="A space that tables speak of.")] = "nb201",
    prior: Priors = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """The networks that tell most about a new device, as the index column of the CSV that `device add` reads."""
    from edgewright.job.new_device.new_device import suggest_networks

    rows = suggest_networks(space, count, prior or ())
    print(json.dumps(rows) if as_json else "\n".join(map(str, ["index", *rows])))
