"""Progress for people: a live bar with the time left on a terminal's stderr, silence everywhere else."""

import contextlib
import sys
from collections.abc import Iterator

_enabled = True


def set_quiet(quiet: bool) -> None:
    """Turn every bar off (the command line's --quiet) or on again."""
    global _enabled
    _enabled = not quiet


class Bar:
    """What a long task reports to; does nothing when there is no terminal."""

    def advance(self, amount: float = 1) -> None: ...

    def note(self, text: str) -> None: ...


class _RichBar(Bar):
    def __init__(self, live, task) -> None:
        self._live, self._task = live, task

    def advance(self, amount: float = 1) -> None:
        self._live.advance(self._task, amount)

    def note(self, text: str) -> None:
        self._live.update(self._task, note=text)


@contextlib.contextmanager
def progress(label: str, total: float | None = None) -> Iterator[Bar]:
    """`with progress("Scoring", total=400) as bar: bar.advance(1); bar.note("best 3.2")`."""
    if not (_enabled and sys.stderr.isatty()):
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as live:
        yield _RichBar(live, live.add_task(label, total=total, note=""))


def say(text: str) -> None:
    """One plain line to stderr, for a person who watches; dropped under --quiet."""
    if _enabled:
        print(text, file=sys.stderr, flush=True)
