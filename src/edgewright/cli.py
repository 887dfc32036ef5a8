"""The command line: a thin skin over the functions of the same names in Python.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 failure, 2 usage or bad input, 3 the budget
cannot be met, 4 a gate failed, 130 interrupted.
"""

import functools
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from edgewright.core.errors import BadInput, EdgewrightError

app = typer.Typer(
    name="edgewright",
    help="From a data set and a device budget to a neural network that fits, measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


# Typer brings its own copy of click or takes the installed one, by version; its public names lead to either.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # pyright: ignore[reportAssignmentType]


def main() -> None:
    """Run the command line; a wrong word or option gets one line, as every other error does."""
    try:
        sys.exit(app(standalone_mode=False))
    except UsageError as error:
        context = getattr(error, "ctx", None)
        if context is not None and len(sys.argv) == 1:  # nothing asked: the list of commands
            print(context.get_help(), file=sys.stderr)
            sys.exit(2)
        path = context.command_path if context else "edgewright"
        message = f"{error.format_message().rstrip('.')}; see {path} --help"  # pyright: ignore[reportAttributeAccessIssue]
        _report(message, 2, "--json" in sys.argv)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Give every named error its one line and its exit code."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        signal.signal(signal.SIGTERM, _interrupt)
        if options.get("quiet"):
            from edgewright.core.progress import set_quiet

            set_quiet(True)
        try:
            command(*args, **options)
        except EdgewrightError as error:
            _fail(str(error), error.exit_code, bool(options.get("as_json")))
        except BrokenPipeError:
            raise typer.Exit(1) from None
        except OSError as error:  # a folder where a file should be, no permission, a lost disk
            message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            _fail(message, 1, bool(options.get("as_json")))
        except KeyboardInterrupt:
            out = options.get("resume") or options.get("out")
            begun = out is not None and (out / "plan.yaml").exists()
            hint = f"; go on with: edgewright design --resume {out}" if begun else "; nothing was written"
            _fail(f"interrupted{hint}", 130, bool(options.get("as_json")))

    return run


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _report(message: str, code: int, as_json: bool) -> None:
    print(f"edgewright: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": message, "exit_code": code}))


def _fail(message: str, code: int, as_json: bool) -> None:
    _report(message, code, as_json)
    raise typer.Exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        from edgewright import __version__

        print(f"edgewright {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say which version.")]


@app.callback()
def begin(version: Version = False) -> None:
    """From a data set and a device budget to a neural network that fits, measured."""


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
    resolution: Annotated[int | None, typer.Option(help="Side of the square images, pixels.")] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Do left-right flips keep the label?")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the input, print the plan, do nothing.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find, train and measure a network that keeps a budget."""
    flags = dict(locals())
    ceilings = {name: flags.pop(name) for name in ("latency_ms", "size_mb", "peak_memory_kb", "macs", "params")}
    for name in ("out", "resume", "config", "dry_run", "as_json", "quiet"):
        flags.pop(name)
    given = {name: value for name, value in flags.items() if value is not None}
    budget = {name: value for name, value in ceilings.items() if value is not None}

    from edgewright.job import run as job
    from edgewright.job.ground import check

    if resume is not None:
        if out or config or given or budget:
            raise BadInput("--resume goes on with the plan in the run folder and takes no other plan options")
        return _show_result(resume, job.resume(resume), as_json)
    plan = job.make_plan(config, given, budget)
    if dry_run:
        check(plan)
        print(plan.to_json() if as_json else job.plan_text(plan), end="")
        return None
    if out is None:
        raise BadInput("say where the run goes: --out FOLDER")
    return _show_result(out, job.run(plan, out), as_json)


def _show_result(out: Path, result: Any, as_json: bool) -> None:
    if as_json:
        print(result.to_json(), end="")
        return
    from edgewright.core.cost import show

    ceilings = result.budget.ceilings()
    for name, cost in result.costs.items():
        limit = f"  (ceiling {show(name, ceilings[name])}: met)" if name in ceilings else ""
        print(f"{name.replace('_', ' '):<16}{show(name, cost.value):<20}{cost.how}{limit}")
    print(f"{'test accuracy':<16}{result.metrics.test_accuracy:.2f} %")
    print(f"{'report':<16}{out / 'report.html'}")


@app.command()
@guarded
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    images: Annotated[list[Path], typer.Argument(help="Image files or folders of them.")],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Class and probability for each image, by the exported model."""
    import edgewright

    predictions = edgewright.predict(run, images)
    if as_json:
        print(json.dumps([prediction.model_dump(mode="json") for prediction in predictions], indent=2))
        return
    for prediction in predictions:
        print(f"{prediction.path}\t{prediction.label}\t{prediction.probability:.4f}")


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


def _catalogue(rows: dict[str, Any], as_json: bool) -> None:
    entries = [{"name": name, "summary": entry.summary, "source": entry.source} for name, entry in rows.items()]
    if as_json:
        print(json.dumps(entries, indent=2))
        return
    for entry in entries:
        print(f"{entry['name']:<14}{entry['summary']}\n{'':<14}{entry['source']}")


@app.command()
@guarded
def devices(as_json: AsJson = False) -> None:
    """What a network can be fitted to."""
    from edgewright.device.resolve import devices as rows

    _catalogue(rows(), as_json)


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
    from edgewright.proxy.resolve import proxies as rows

    _catalogue(rows(), as_json)


@app.command()
@guarded
def strategies(as_json: AsJson = False) -> None:
    """Who proposes the next candidates."""
    from edgewright.search.resolve import strategies as rows

    _catalogue(rows(), as_json)


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


if __name__ == "__main__":
    main()
