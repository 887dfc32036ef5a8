"""The main job and what is done with its run folder."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewright.cli.app import AsJson, Quiet, app, guarded
from edgewright.cli.options import Asked, asks
from edgewright.core.errors import BadInput
from edgewright.core.plan import Plan


@app.command()
@guarded
@asks(Plan, optional=True, after={"minutes": ("out", "resume", "config")})
def design(
    asked: Asked,
    out: Annotated[Path | None, typer.Option(help="Run folder to make.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Run folder to go on with.")] = None,
    config: Annotated[Path | None, typer.Option(help="A plan as a YAML file; other options override it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the input, print the plan, do nothing.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find, train and measure a network that keeps a budget."""
    began = time.monotonic()  # importing torch takes seconds, which count
    budget = asked.pop("budget", {})

    from edgewright.job.design import run as job
    from edgewright.job.design.ground import check

    if resume is not None:
        if out or config or asked or budget:
            raise BadInput("--resume goes on with the plan in the run folder and takes no other plan options")
        return _show_result(resume, job.resume(resume, began=began), as_json)
    plan = job.make_plan(config, asked, budget)
    if dry_run:
        check(plan)
        print(plan.to_json() if as_json else job.plan_text(plan), end="")
        return None
    if out is None:
        raise BadInput("say where the run goes: --out FOLDER")
    return _show_result(out, job.run(plan, out, began=began), as_json)


def _show_result(out: Path, result: Any, as_json: bool) -> None:
    if as_json:
        print(result.to_json(), end="")
        return
    from edgewright.core.cost import show, words

    ceilings = result.budget.ceilings()
    for name, cost in result.costs.items():
        limit = f"  (ceiling {show(name, ceilings[name])}: met)" if name in ceilings else ""
        print(f"{words(name):<16}{show(name, cost.value):<20}{cost.how}{limit}")
    figures = {f"test {name.replace('_', ' ')}": (name, value) for name, value in result.metrics.test.items()}
    width = max(24, 2 + max(map(len, figures), default=0))
    for told, (name, value) in figures.items():
        decides = "  (decides)" if name == result.metrics.decides and len(figures) > 1 else ""
        print(f"{told:<{width}}{value:.2f}{decides}")
    if result.random is not None:
        print(f"{'over random':<16}{result.random.text()}")
    print(f"{'report':<16}{out / 'report.html'}")


@app.command()
@guarded
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    images: Annotated[list[str], typer.Argument(help="Image files, folders of them, or arrays:FILE.npz.")],
    out: Annotated[Path | None, typer.Option(help="Folder for files that belong to the answers: masks.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """What the exported model says of each image."""
    import edgewright
    from edgewright.export.predict import lines

    found = edgewright.predict(run, images, out=out)
    print(json.dumps(found, indent=2) if as_json else "\n".join(lines(run, found)))


@app.command()
@guarded
def bench(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime [default: the plan's].")] = None,
    runs: Annotated[int, typer.Option(min=200, help="Timed runs.")] = 500,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure the exported model again, on this machine."""
    import edgewright

    report = edgewright.bench(run, threads=threads, runs=runs)
    print(report.to_json() if as_json else report.text())
    if report.broken:
        raise typer.Exit(4)
