"""What all commands share: the app, the one line of an error, the exit codes.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 failure, 2 usage or bad input, 3 the budget
cannot be met, 4 a gate failed, 130 interrupted.
"""

import contextlib
import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from edgewright.core.errors import DeviceLost, EdgewrightError

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
            with results_alone():
                command(*args, **options)
        except DeviceLost as error:
            _fail(f"{error}{_go_on(options)}", error.exit_code, bool(options.get("as_json")))
        except EdgewrightError as error:
            _fail(str(error), error.exit_code, bool(options.get("as_json")))
        except BrokenPipeError:
            raise typer.Exit(1) from None
        except OSError as error:  # a folder where a file should be, no permission, a lost disk
            message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            _fail(message, 1, bool(options.get("as_json")))
        except KeyboardInterrupt:
            _fail(f"interrupted{_go_on(options)}", 130, bool(options.get("as_json")))

    return run


@contextlib.contextmanager
def results_alone() -> Iterator[None]:
    """Stdout holds the result, and nothing else: what libraries write there by themselves goes to stderr meanwhile.

    The solver and the converters write from C, and now and then without being asked.
    """
    try:
        asked = sys.stdout
        asked.flush()
        if asked.fileno() != 1:
            raise OSError
        results = os.dup(1)
        os.dup2(2, 1)
    except (OSError, ValueError):  # stdout is no file of this process: a test's, or closed
        yield
        return
    sys.stdout = os.fdopen(results, "w", encoding=asked.encoding, errors=asked.errors, buffering=1)
    try:
        yield
        sys.stdout.flush()
    finally:
        os.dup2(results, 1)
        mine, sys.stdout = sys.stdout, asked
        mine.close()


def _go_on(options: dict[str, Any]) -> str:
    """How to go on with what was cut."""
    from edgewright.core.run import RunFolder

    out = options.get("resume") or options.get("out")
    command = None if out is None else RunFolder(out).resumed_by
    return f"; go on with: {command}" if command else "; nothing was written"


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
