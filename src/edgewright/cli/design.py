"""The main job and what is done with its run folder."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewright.cli.app import AsJson, Quiet, app, guarded, size_asked
from edgewright.core.errors import BadInput


@app.command()
@guarded
def design(
    task: Annotated[str | None, typer.Option(help="digits, images:DIR, or arrays:FILE.npz.")] = None,
    latency_ms: Annotated[float | None, typer.Option(help="Ceiling: median latency, batch 1, ms.")] = None,
    size_mb: Annotated[float | None, typer.Option(help="Ceiling: exported file, MB of 1024 x 1024 bytes.")] = None,
    peak_memory_kb: Annotated[float | None, typer.Option(help="Ceiling: peak activations, KB of 1024 bytes.")] = None,
    macs: Annotated[float | None, typer.Option(help="Ceiling: multiply-adds; 6e6 is fine.")] = None,
    params: Annotated[float | None, typer.Option(help="Ceiling: number of parameters.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall-clock limit for the whole run [default: 30].")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to make.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Run folder to go on with.")] = None,
    config: Annotated[Path | None, typer.Option(help="A plan as a YAML file; other options override it.")] = None,
    device: Annotated[str | None, typer.Option(help="Where the network must run [default: cpu].")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime [default: 1].")] = None,
    space: Annotated[str | None, typer.Option(help="What may be built [default: mobile].")] = None,
    proxy: Annotated[str | None, typer.Option(help="Training-free score [default: capacity].")] = None,
    strategy: Annotated[str | None, typer.Option(help="Search strategy [default: evolution].")] = None,
    candidates: Annotated[int | None, typer.Option(help="How many architectures to score.")] = None,
    finalists: Annotated[int | None, typer.Option(help="How many are trained briefly [default: 8].")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the full training.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed and plan, same candidates [default: 0].")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes for scoring [default: all cores].")] = None,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster; 'local' starts one.")] = None,
    skip_bad: Annotated[int | None, typer.Option(help="Unreadable images to skip [default: 0].")] = None,
    resolution: Annotated[
        str | None, typer.Option(help="Pixels images are kept at: 64, or 48x64 (height x width).")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="What decides which network is better [default: by kind].")] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Do left-right flips keep the label?")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the input, print the plan, do nothing.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find, train and measure a network that keeps a budget."""
    flags = dict(locals())
    began = time.monotonic()  # importing torch takes seconds, which count
    ceilings = {name: flags.pop(name) for name in ("latency_ms", "size_mb", "peak_memory_kb", "macs", "params")}
    for name in ("out", "resume", "config", "dry_run", "as_json", "quiet"):
        flags.pop(name)
    given = {name: value for name, value in flags.items() if value is not None}
    if resolution is not None:
        given["resolution"] = size_asked(resolution)
    budget = {name: value for name, value in ceilings.items() if value is not None}

    from edgewright.job.design import run as job
    from edgewright.job.design.ground import check

    if resume is not None:
        if out or config or given or budget:
            raise BadInput("--resume goes on with the plan in the run folder and takes no other plan options")
        return _show_result(resume, job.resume(resume, began=began), as_json)
    plan = job.make_plan(config, given, budget)
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
    from edgewright.core.cost import show

    ceilings = result.budget.ceilings()
    for name, cost in result.costs.items():
        limit = f"  (ceiling {show(name, ceilings[name])}: met)" if name in ceilings else ""
        print(f"{name.replace('_', ' '):<16}{show(name, cost.value):<20}{cost.how}{limit}")
    for name, value in result.metrics.test.items():
        decides = "  (decides)" if name == result.metrics.decides and len(result.metrics.test) > 1 else ""
        print(f"{'test ' + name.replace('_', ' '):<24}{value:.2f}{decides}")
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
