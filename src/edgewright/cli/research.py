"""Comparing methods on published tables."""

from pathlib import Path
from typing import Annotated

import typer

from edgewright.cli.app import AsJson, Quiet, app, guarded
from edgewright.cli.options import Asked, asks
from edgewright.job.codesign.plan import CodesignPlan
from edgewright.job.rank.plan import RankPlan
from edgewright.job.table_search.plan import TableSearchPlan

Workers = Annotated[int | None, typer.Option(help="Processes [default: all cores].")]


@app.command()
@guarded
@asks(
    RankPlan,
    names={"tables": ("--table",), "ceilings": ("--ceiling",)},
    after={"tables": ("out",), "weight_seeds": ("beside",)},
)
def rank(
    asked: Asked,
    out: Annotated[Path, typer.Option(help="Folder for rank.json and report.html; goes on where it was cut.")],
    beside: Annotated[list[Path] | None, typer.Option(help="Another ranking's folder, for the heat map.")] = None,
    workers: Workers = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare training-free scores on published tables."""
    from edgewright.job.rank import run as job
    from edgewright.report.parts.standings import average_words, in_order

    plan = RankPlan.parse(asked, "the options")
    weight_seeds = plan.weight_seeds
    result = job.rank(plan, out, workers=workers, beside=beside or ())
    if as_json:
        print(result.to_json(), end="")
        return
    seeds = f"{f'{weight_seeds} seeds':>16}" if weight_seeds > 1 else ""
    print(f"{'proxy':<20}{'Spearman':>9}{seeds}{'Kendall':>9}{'its choice':>12}{'over average':>14}{'s a net':>9}")
    for name in in_order(result.proxies):
        row = result.proxies[name]
        if "missing" in row:
            print(f"{name:<20}{row['missing']}")
            continue
        seconds = f"{row['seconds']:.3f}" if row.get("seconds") is not None else ""
        each = [value for value in row.get("seed_spearman", ()) if value is not None]
        between = f"{min(each):.3f} to {max(each):.3f}" if each else ""
        spread = f"{between:>16}" if weight_seeds > 1 else ""
        order, kendall = f"{row['spearman']:>9.3f}{spread}", f"{row['kendall']:>9.3f}"
        chosen = f"{row['top1_accuracy']:>10.2f} %{row['relative_improvement']:>+12.2f} %"
        print(f"{name:<20}{order}{kendall}{chosen}{seconds:>9}")
    print(average_words(result, plan.tables[0]))
    print(f"report: {out / 'report.html'}")


@app.command()
@guarded
@asks(TableSearchPlan, names={"strategies": ("--strategy",), "ceilings": ("--ceiling",)})
def search(
    asked: Asked,
    workers: Workers = None,
    out: Annotated[Path | None, typer.Option(help="Folder for search.json and search.html.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare search strategies on a published table."""
    from edgewright.job.table_search.table_search import search_table
    from edgewright.search.regret import inside_words, table_lines

    found = search_table(TableSearchPlan.parse(asked, "the options"), workers=workers, out=out)
    if as_json:
        print(found.to_json(), end="")
        return
    print("\n".join(table_lines(found)))
    print(inside_words(found))
    if out is not None:
        print(f"report: {out / 'search.html'}")


@app.command()
@guarded
@asks(CodesignPlan)
def codesign(
    asked: Asked,
    workers: Workers = None,
    out: Annotated[Path, typer.Option(help="Run folder; goes on where it was cut.")] = Path("runs/codesign"),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """FLASH: laws from a few samples, then a quick search."""
    from edgewright.core.cost import show, words
    from edgewright.job.codesign import run as job

    plan = CodesignPlan.parse({"budget": {}, **asked}, "the options")
    found = job.codesign(plan, out, workers=workers)
    if as_json:
        print(found.to_json(), end="")
        return
    print(found.description)
    for name, value in found.costs.items():
        print(f"{words(name):<16}{show(name, value.value):<20}{value.how}")
    print(f"{'latency by law':<16}{show('latency', found.predicted_latency_ms)}")
    law = found.accuracy_law
    order = "" if law.rank_correlation is None else f", Spearman {law.rank_correlation:.2f}"
    print(f"{'accuracy by law':<16}{found.predicted_accuracy:.1f} %, after a training like the samples'")
    print(f"{'the law':<16}median error {law.median_error:.1f} points{order}, each sample left out in turn")
    print(f"{'search':<16}{found.search_seconds:.2f} s, {found.evaluations} points")
    print(f"{'architecture':<16}{out / 'architecture.json'}")
