"""Comparing methods on published tables."""

from pathlib import Path
from typing import Annotated

import typer

from edgewright.cli.app import AsJson, Quiet, app, guarded


@app.command()
@guarded
def rank(
    space: Annotated[str, typer.Option(help="A space that tables speak of: nb201, nbmacro, ...")],
    table: Annotated[list[str], typer.Option(help="FILE.npz:COLUMN with accuracies; may be given again.")],
    out: Annotated[Path, typer.Option(help="Folder for rank.json and report.html; goes on where it was cut.")],
    proxies: Annotated[str, typer.Option(help="Names with commas between, or 'all'.")] = "all",
    sample: Annotated[int | None, typer.Option(help="Networks, drawn at random [default: every one].")] = None,
    data: Annotated[str | None, typer.Option(help="arrays:FILE.npz or another task, for proxies that need it.")] = None,
    images: Annotated[int, typer.Option(help="Images of a scoring batch.")] = 64,
    batches: Annotated[int, typer.Option(help="Scoring batches.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the sample, the weights and the intervals.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes [default: all cores].")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Which training-free score orders the networks of a published table best."""
    from edgewright.job import rank as job
    from edgewright.report.standings import in_order

    names = tuple(name.strip() for name in proxies.split(",") if name.strip())
    plan = job.RankPlan(
        space=space,
        tables=tuple(table),
        proxies=names,
        sample=sample,
        data=data,
        images=images,
        batches=batches,
        seed=seed,
    )
    result = job.rank(plan, out, workers=workers)
    if as_json:
        print(result.to_json(), end="")
        return
    print(f"{'proxy':<20}{'Spearman':>9}{'Kendall':>9}{'its choice':>12}{'s a net':>9}")
    for name in in_order(result.proxies):
        row = result.proxies[name]
        if "missing" in row:
            print(f"{name:<20}{row['missing']}")
            continue
        seconds = f"{row['seconds']:.3f}" if row.get("seconds") is not None else ""
        print(f"{name:<20}{row['spearman']:>9.3f}{row['kendall']:>9.3f}{row['top1_accuracy']:>10.2f} %{seconds:>9}")
    print(f"report: {out / 'report.html'}")
