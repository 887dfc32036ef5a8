"""What a person sees on a terminal: one live display, whatever lies within what."""

import os
import pty
import subprocess
import sys

import pytest

from edgewright.core.progress import said_at_the_end, say

NESTED = """
from edgewright.core.progress import progress, say
with progress("Outer", total=2) as outer:
    for _ in range(2):
        with progress("Inner", total=3) as inner:
            inner.advance()
            inner.note("a note")
        outer.advance()
    say("a line")
try:
    with progress("Fails"), progress("Within"):
        raise ValueError
except ValueError:
    pass
with progress("After"):
    pass
"""


def on_a_terminal(script: str) -> str:
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", script], stderr=theirs, env={**os.environ, "TERM": "xterm"}) as child:
        os.close(theirs)
        seen = b""
        while chunk := _read(ours):
            seen += chunk
    os.close(ours)
    assert child.returncode == 0, seen
    return seen.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


def test_a_task_within_a_task_is_a_line_of_the_same_display():
    seen = on_a_terminal(NESTED)
    assert seen.count("\x1b[?25l") == 3  # Outer, Fails, After: each hides the cursor once
    assert seen.count("\x1b[?25h") == 3
    assert "Inner" in seen
    assert "a line" in seen
    assert "Inner" not in seen.rsplit("Outer", 1)[1]  # gone when it is done


def test_no_terminal_no_bars():
    done = subprocess.run([sys.executable, "-c", NESTED], capture_output=True, text=True, check=True)
    assert done.stderr == "a line\n"


def test_remarks_come_at_the_end_and_not_with_an_error(capsys):
    with said_at_the_end():
        say("first")
        with said_at_the_end():
            say("second")
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err == "first\nsecond\n"
    with pytest.raises(ValueError, match="broken"), said_at_the_end():
        say("a remark")
        raise ValueError("broken")
    assert capsys.readouterr().err == ""
    say("after")
    assert capsys.readouterr().err == "after\n"
