"""Other libraries' talk: converters and exporters print, log and warn about things a user can do nothing about."""

import contextlib
import logging
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

_lock = threading.Lock()
_silent: Counter[int] = Counter()  # threads that are, and how often they have begun to be
_before: list[Any] = []  # what is put back when the last of them has done


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing is printed by this thread, logged or warned about; an error that is raised passes.

    What other threads print is printed. Python has one switch for all logging and one for all warnings: these are off
    until the last thread that asked for it has done.
    """
    here = threading.get_ident()
    with _lock:
        if not _silent:
            caught = warnings.catch_warnings()
            caught.__enter__()
            warnings.simplefilter("ignore")
            _before[:] = [caught, logging.root.manager.disable, sys.stdout]
            logging.disable(logging.ERROR)
            sys.stdout = _OfOthers(sys.stdout)
        _silent[here] += 1
    try:
        yield
    finally:
        with _lock:
            _silent[here] -= 1
            if not _silent[here]:
                del _silent[here]
            if not _silent:
                caught, level, stream = _before
                if isinstance(sys.stdout, _OfOthers):  # whoever has put another there keeps it
                    sys.stdout = stream
                logging.disable(level)
                caught.__exit__(None, None, None)


class _OfOthers:
    """A stream that loses what silent threads write."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() in _silent else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
