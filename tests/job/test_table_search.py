"""A search of a made table under ceilings on any of its columns; the answer is known by hand."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from edgewright.cli.app import app
from edgewright.space.resolve import make_tabular

SPACE = make_tabular("nbmacro")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    """Accuracy and energy rise together, memory falls: a ceiling on each leaves a band in the middle."""
    row = np.arange(len(SPACE), dtype=float)
    path = tmp_path_factory.mktemp("tables") / "made.npz"
    np.savez(path, accuracy=50 + row / 200, energy=1 + row, memory=1 + row[::-1])
    return str(path)


def search(*options: str):
    return CliRunner().invoke(app, ["search", "--space", "nbmacro", *options, "--workers", "1"])


def test_every_ceiling_is_kept_and_the_improvement_is_over_those_inside(table, tmp_path) -> None:
    asked = ["--table", f"{table}:accuracy", "--ceiling", f"{table}:energy<=40", "--ceiling", f"{table}:memory<=6540"]
    found = search(*asked, "--strategy", "random", "--queries", "30", "--repeats", "2", "--json")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    inside = 50 + np.arange(21, 40) / 200  # rows 21 to 39: energy 22 to 40, memory 6540 down to 6522
    assert told["ceilings"] == {f"{table}:energy": 40.0, f"{table}:memory": 6540.0}
    assert (told["inside"], told["best"]) == (19, pytest.approx(inside.max()))
    best = 100 * (inside.max() / inside.mean() - 1)
    assert told["best_improvement"] == pytest.approx(best)
    assert told["curves"]["random"]["improvement"] == pytest.approx(best), "30 queries see all 19"
    shown = search(*asked, "--strategy", "random", "--queries", "30", "--repeats", "2", "--out", str(tmp_path / "s"))
    assert f"19 networks are inside, {inside.mean():.2f} % on average; best possible" in shown.stdout
    assert "made.npz:energy ≤ 40 and made.npz:memory ≤ 6540" in (tmp_path / "s" / "search.html").read_text().replace(
        ",", ""
    )


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--ceiling", "{}:energy<=0.5"], 3, "no network of the table keeps"),
        (["--ceiling", "{}:energy"], 2, "a ceiling is FILE.npz:COLUMN<=VALUE, in quotes"),
        (["--ceiling", "{}:watts<=3"], 2, "no column 'watts'"),
        (["--latency-ms", "3"], 2, "give it, as --latency FILE.npz:COLUMN"),
        (["--reward", "soft"], 2, "the soft reward needs a ceiling"),
    ],
)
def test_what_cannot_be_held_is_one_sentence(table, options: list[str], code: int, words: str) -> None:
    found = search("--table", f"{table}:accuracy", *(option.format(table) for option in options))
    assert found.exit_code == code and words in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
