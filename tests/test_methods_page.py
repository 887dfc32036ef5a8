"""Every snippet of docs/methods.md runs, one after the other, as the page says."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "methods.md"


def snippets(text: str) -> list[tuple[int, str]]:
    """The line that each Python block begins on, and the block."""
    found = re.finditer(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, block.start(1)), block[1]) for block in found]


def test_snippets_are_found() -> None:
    text = "a\n```python\nx = 1\n```\n    y\n```\nno\n```\n```python\nz\n```\n"
    assert snippets(text) == [(2, "x = 1\n"), (9, "z\n")]


def test_every_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"folder": tmp_path / "smaller"}
    blocks = snippets(PAGE.read_text())
    assert len(blocks) >= 8
    for line, block in blocks:
        exec(compile("\n" * line + block, str(PAGE), "exec"), names)
