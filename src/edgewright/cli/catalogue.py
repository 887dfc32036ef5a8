"""What there is to choose from."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewright.cli.app import AsJson, app, guarded


def _catalogue(rows: dict[str, Any], as_json: bool, more: dict[str, dict[str, Any]] | None = None) -> None:
    """more: further facts of a row, by its name."""
    facts = {name: {"name": name, "summary": row.summary, "source": row.source} for name, row in rows.items()}
    entries = [{**found, **(more or {}).get(name, {})} for name, found in facts.items()]
    if as_json:
        print(json.dumps(entries, indent=2))
        return
    for entry in entries:
        print(f"{entry['name']:<18}{entry['summary']}\n{'':<18}{entry['source']}")
        for word, values in (more or {}).get(entry["name"], {}).items():
            print(f"{'':<18}{word}: {', '.join(values)}")


@app.command()
@guarded
def devices(as_json: AsJson = False) -> None:
    """What a network can be fitted to."""
    from edgewright.device.resolve import devices as known

    rows = known()
    _catalogue(
        rows, as_json, {name: {"can": sorted(row.can), "costs": sorted(row.gives)} for name, row in rows.items()}
    )


@app.command()
@guarded
def spaces(as_json: AsJson = False) -> None:
    """What may be built."""
    from edgewright.space.resolve import spaces as rows

    _catalogue(rows(), as_json)


@app.command()
@guarded
def proxies(as_json: AsJson = False) -> None:
    """How networks are scored before training."""
    from edgewright.proxy.resolve import proxies as known

    rows = known()
    _catalogue(rows, as_json, {name: {"needs": sorted(row.needs)} for name, row in rows.items() if row.needs})


@app.command()
@guarded
def strategies(as_json: AsJson = False) -> None:
    """Who proposes the next candidates."""
    from edgewright.search.resolve import strategies as rows

    _catalogue(rows(), as_json)


@app.command()
@guarded
def starts(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Where to look, beside the hub's cache [default: here, and runs/].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Networks that have learned and could be started from: finished runs, files of networks, the hub's cache."""
    from edgewright.core.cost import show
    from edgewright.core.errors import BadInput
    from edgewright.core.home import user_path
    from edgewright.start.resolve import at_hand

    places = [user_path(folder) for folder in folders or ()]
    for place in places:
        if not place.is_dir():
            raise BadInput(f"{place}: no such folder")
    found = list(at_hand(*(places or (Path(), Path("runs")))))
    sizes = [Path(one.weights or "").stat().st_size for one in found]
    if as_json:
        told = ("name", "source", "licence", "trained_on", "input", "weights", "sha256")
        rows = [{word: getattr(one, word) for word in told} for one in found]
        print(json.dumps([{**row, "size": size} for row, size in zip(rows, sizes, strict=True)], indent=2))
        return
    for one, size in zip(found, sizes, strict=True):
        facts = (one.input, one.trained_on and f"trained on {one.trained_on}", one.licence, show("size", size))
        print(f"{one.source}\n{'':<18}{', '.join(filter(None, facts))}\n{'':<18}{one.weights}")
    if not found:
        print(
            "nothing to start from here: no finished run, no NAME.safetensors of a network of timm, and none in the "
            "hub's cache; edgewright design --start timm:NAME --download fetches one"
        )


@app.command()
@guarded
def version(as_json: AsJson = False) -> None:
    """Versions of edgewright and its libraries."""
    from edgewright.core.environment import versions

    if as_json:
        print(json.dumps(versions(), indent=2))
        return
    for name, number in versions().items():
        print(f"{name:<14}{number}")
