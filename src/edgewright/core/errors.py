"""The errors a user can meet, each with the exit code that the command line gives it.

An error's text is one sentence a stranger understands: what is wrong, where, and what to do.
"""


def one_line(error: Exception, most: int = 240) -> str:
    """Another library's error, for a sentence of ours: its words in one line, or what it is called if it has none."""
    return " ".join(str(error).split())[:most] or type(error).__name__


class EdgewrightError(Exception):
    """Something failed for a reason that can be named. Exit code 1."""

    exit_code = 1


class BadInput(EdgewrightError):
    """What the user gave cannot be used as it is. Exit code 2."""

    exit_code = 2


class DiskFull(EdgewrightError):
    """There is no room for what must be written. Exit code 1."""


class MissingExtra(BadInput):
    """An optional library is needed and not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed: pip install 'edgewright[{extra}]'")


class DeviceLost(EdgewrightError):
    """A device that is elsewhere does not answer any more, or not as it should. Exit code 1."""


class BudgetInfeasible(EdgewrightError):
    """Nothing in the space can meet the budget. Exit code 3."""

    exit_code = 3


class GateFailed(EdgewrightError):
    """A claim was checked and does not hold: the export differs, or a ceiling is broken. Exit code 4."""

    exit_code = 4
