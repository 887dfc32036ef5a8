"""Running the command line in the test's own process."""

from pathlib import Path

from typer.testing import CliRunner

from edgewright.cli.app import app


def edgewright(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(command: str, tmp_path: Path, *arguments: object, code: int = 2) -> str:
    """What must be refused; returns the line that says why, and sees that nothing was written."""
    out = tmp_path / "out"
    result = edgewright(command, *arguments, "--out", out)
    assert result.exit_code == code, result.stderr
    lines = [line for line in result.stderr.strip().splitlines() if line.startswith("edgewright: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert not out.exists()
    return lines[0]
