"""Comparing methods on published tables."""

from pathlib import Path
from typing import Annotated

import typer

from edgewright.cli.app import AsJson, Quiet, app, guarded
from edgewright.core.errors import BadInput


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
    cheap: Annotated[bool, typer.Option(help="Thin networks, few images; misjudges MeCo and Zen.")] = False,
    weight_seeds: Annotated[int, typer.Option(min=1, help="Of weights and batches; scores are their mean.")] = 1,
    beside: Annotated[list[Path] | None, typer.Option(help="Another ranking's folder, for the heat map.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample, the weights and the intervals.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes [default: all cores].")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare training-free scores on published tables."""
    from edgewright.job.rank import rank as job
    from edgewright.report.parts.standings import in_order

    plan = job.RankPlan(
        space=space,
        tables=tuple(table),
        proxies=_listed(proxies),
        sample=sample,
        data=data,
        images=images,
        batches=batches,
        seed=seed,
        cheap=cheap,
        weight_seeds=weight_seeds,
    )
    result = job.rank(plan, out, workers=workers, beside=beside or ())
    if as_json:
        print(result.to_json(), end="")
        return
    seeds = f"{f'{weight_seeds} seeds':>16}" if weight_seeds > 1 else ""
    print(f"{'proxy':<20}{'Spearman':>9}{seeds}{'Kendall':>9}{'its choice':>12}{'s a net':>9}")
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
        print(f"{name:<20}{order}{kendall}{row['top1_accuracy']:>10.2f} %{seconds:>9}")
    print(f"report: {out / 'report.html'}")


@app.command()
@guarded
def search(
    space: Annotated[str, typer.Option(help="A space that tables speak of: nb201, nbmacro, ...")],
    table: Annotated[str, typer.Option(help="FILE.npz:COLUMN, accuracy in percent.")],
    latency: Annotated[str | None, typer.Option(help="FILE.npz:COLUMN, latency in ms.")] = None,
    latency_ms: Annotated[float | None, typer.Option(help="Ceiling [default: the latency table's median].")] = None,
    strategy: Annotated[str, typer.Option(help="Names with commas between, or 'all'.")] = "all",
    reward: Annotated[str, typer.Option(help="hard: stay inside the ceiling; soft: MnasNet's reward.")] = "hard",
    queries: Annotated[int, typer.Option(help="Networks whose accuracy a search may look up.")] = 100,
    repeats: Annotated[int, typer.Option(help="Searches of each strategy, from different seeds.")] = 100,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes [default: all cores].")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for search.json and search.html.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare search strategies on a published table."""
    from edgewright.job.table_search.table_search import search_table
    from edgewright.search.regret import table_lines

    if reward not in ("hard", "soft"):
        raise BadInput(f"--reward is hard or soft, not '{reward}'")
    found = search_table(
        space,
        table,
        latency=latency,
        latency_ms=latency_ms,
        strategies=None if strategy == "all" else _listed(strategy),
        reward=reward,
        queries=queries,
        repeats=repeats,
        seed=seed,
        workers=workers,
        out=out,
    )
    if as_json:
        print(found.to_json(), end="")
        return
    print("\n".join(table_lines(found)))
    if out is not None:
        print(f"report: {out / 'search.html'}")


def _listed(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())


@app.command()
@guarded
def codesign(
    task: Annotated[str, typer.Option(help="digits, images:DIR, or arrays:FILE.npz.")],
    family: Annotated[str, typer.Option(help="dense, residual or mobile.")] = "mobile",
    device: Annotated[str, typer.Option(help="Where the network must run.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    latency_ms: Annotated[float | None, typer.Option(help="Ceiling: median latency, batch 1, ms.")] = None,
    size_mb: Annotated[float | None, typer.Option(help="Ceiling: parameters as a file, MB.")] = None,
    peak_memory_kb: Annotated[float | None, typer.Option(help="Ceiling: peak activations, KB.")] = None,
    macs: Annotated[float | None, typer.Option(help="Ceiling: multiply-adds.")] = None,
    params: Annotated[float | None, typer.Option(help="Ceiling: number of parameters.")] = None,
    samples: Annotated[int, typer.Option(help="Networks that are trained and measured first.")] = 25,
    epochs: Annotated[int, typer.Option(help="Epochs of each.")] = 6,
    images: Annotated[int, typer.Option(help="Training images that each sees.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes [default: all cores].")] = None,
    out: Annotated[Path, typer.Option(help="Run folder; goes on where it was cut.")] = Path("runs/codesign"),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """FLASH: laws from a few samples, then a quick search."""
    from edgewright.core.cost import Budget, show
    from edgewright.job.codesign import codesign as job

    budget = Budget(latency_ms=latency_ms, size_mb=size_mb, peak_memory_kb=peak_memory_kb, macs=macs, params=params)
    plan = job.CodesignPlan(
        task=task, family=family, device=device, threads=threads, budget=budget, samples=samples, epochs=epochs,
        images=images, seed=seed,
    )  # fmt: skip
    found = job.codesign(plan, out, workers=workers)
    if as_json:
        print(found.to_json(), end="")
        return
    print(found.description)
    for name, value in found.costs.items():
        print(f"{name.replace('_', ' '):<16}{show(name, value.value):<20}{value.how}")
    print(f"{'latency by law':<16}{show('latency', found.predicted_latency_ms)}")
    law = found.accuracy_law
    order = "" if law.rank_correlation is None else f", Spearman {law.rank_correlation:.2f}"
    print(f"{'accuracy by law':<16}{found.predicted_accuracy:.1f} %, after a training like the samples'")
    print(f"{'the law':<16}median error {law.median_error:.1f} points{order}, each sample left out in turn")
    print(f"{'search':<16}{found.search_seconds:.2f} s, {found.evaluations} points")
    print(f"{'architecture':<16}{out / 'architecture.json'}")
