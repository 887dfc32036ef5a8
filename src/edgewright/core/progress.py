"""Progress for people: live bars with the time left on a terminal's stderr, silence everywhere else.

A terminal has one live display; a task within a task is one more line of it, gone when it is done.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_enabled = True
_held: list[str] | None = None
_live: "Progress | None" = None


def set_quiet(quiet: bool) -> None:
    """Turn every bar off (the command line's --quiet) or on again."""
    global _enabled
    _enabled = not quiet


class Bar:
    """What a long task reports to; does nothing when there is no terminal."""

    def advance(self, amount: float = 1) -> None: ...

    def note(self, text: str) -> None: ...


class _RichBar(Bar):
    def __init__(self, live: "Progress", task: "TaskID") -> None:
        self._live, self._task = live, task

    def advance(self, amount: float = 1) -> None:
        self._live.advance(self._task, amount)

    def note(self, text: str) -> None:
        self._live.update(self._task, note=text)


@contextlib.contextmanager
def progress(label: str, total: float | None = None) -> Iterator[Bar]:
    """`with progress("Scoring", total=400) as bar: bar.advance(1); bar.note("best 3.2")`."""
    global _live
    if not (_enabled and sys.stderr.isatty()):
        yield Bar()
        return
    if _live is not None:
        with _line(_live, label, total) as bar:
            yield bar
        return
    with _display() as _live:
        try:
            yield _RichBar(_live, _live.add_task(label, total=total, note=""))
        finally:
            _live = None


@contextlib.contextmanager
def _line(live: "Progress", label: str, total: float | None) -> Iterator[Bar]:
    task = live.add_task(f"  {label}", total=total, note="")
    try:
        yield _RichBar(live, task)
    finally:
        live.remove_task(task)


def _display() -> "Progress":
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
    return Progress(*columns, console=Console(stderr=True))


def say(text: str) -> None:
    """One plain line to stderr, for a person who watches; dropped under --quiet."""
    if _held is not None:
        _held.append(text)
    elif _enabled:
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def said_at_the_end() -> Iterator[None]:
    """What is said in the block is said when it ends, and not at all where it raises: an error is one sentence."""
    global _held
    if _held is not None:  # within another such block
        yield
        return
    _held = lines = []
    try:
        yield
    finally:
        _held = None
    for text in lines:
        say(text)
