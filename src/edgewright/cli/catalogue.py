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
    from edgewright.start.resolve import at_hand

    found = list(at_hand(*(folders or (Path(), Path("runs")))))
    rows = [
        {
            "name": Path(one.source).name,
            "source": one.source,
            "licence": one.licence,
            "trained_on": one.trained_on,
            "input": f"{one.channels}x{one.size}x{one.size}",
            "sha256": one.sha256,
        }
        for one in found
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        told = (row["input"], row["trained_on"] and f"trained on {row['trained_on']}", row["licence"])
        print(f"{row['source']}\n{'':<18}{', '.join(filter(None, told))}")
    if not rows:
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
