"""The page of a ranking: order, labels and empty cells of its heat maps."""

import json
import re
from dataclasses import dataclass

import numpy as np
import pytest

from edgewright.report.parts.standings import in_order, write_standings


@dataclass(frozen=True)
class Ranked:
    """What the page reads of a result."""

    tables: dict
    space: str = "cells"
    sample: int = 12
    seed: int = 0
    weight_seeds: int = 1
    names: tuple = ("params", "odd")
    between: tuple = ((1.0, None), (None, None))

    @property
    def average_accuracy(self):
        return dict.fromkeys(self.tables, 60.0)

    @property
    def best_accuracy(self):
        return dict.fromkeys(self.tables, 70.0)


def row(value: float, **more) -> dict:
    shares = {f"precision_{share}": 0.5 for share in (0.01, 0.05, 0.1)}
    return {
        "spearman": value,
        "kendall": value,
        "top1_accuracy": 69.0,
        "top1_regret": 1.0,
        "relative_improvement": 15.0,
        **shares,
        **more,
    }


def drawn(folder, result: Ranked, beside=()) -> tuple[str, dict]:
    truth = {name: np.linspace(50, 70, 12) for name in result.tables}
    write_standings(folder / "r.html", list(result.tables), result, {"params": np.arange(12)}, truth, beside)
    page = (folder / "r.html").read_text()
    return page, json.loads(re.findall(r'id="figures">(.*?)</script>', page, flags=re.DOTALL)[0])


def test_a_correlation_of_zero_is_a_value():
    assert in_order({"a": row(-0.2), "b": {"missing": "constant"}, "c": row(0.0), "d": row(0.3)}) == [
        "d",
        "c",
        "a",
        "b",
    ]


def test_a_table_alone_needs_no_heat_map(tmp_path):
    page, figures = drawn(tmp_path, Ranked({"f.npz:acc": {"params": row(0.5), "odd": {"missing": "it is <odd>"}}}))
    assert set(figures) == {"scatter", "between"}
    assert figures["between"]["data"][0]["y"] == ["params"], "what ranks nothing is not compared"
    assert "+15.00 %" in page and "best possible: 70.00 %, +16.67 % over it" in page
    assert "it is &lt;odd&gt;" in page and "seeds" not in page.split("<script")[0]


def test_equal_labels_are_told_apart_and_empty_cells_say_why(tmp_path):
    one = Ranked({"f.npz:acc": {"params": row(0.5), "odd": {"missing": "it is <odd>"}}})
    other = Ranked({"g.npz:acc": {"params": row(0.4), "late": row(0.9)}})
    _, figures = drawn(tmp_path, one, [("run", other), ("run", other), ("run", Ranked(other.tables, space="more"))])
    heat, notes = figures["tables"]["data"][0], figures["tables"]["layout"]["annotations"]
    assert heat["x"] == ["cells acc", "cells acc (run)", "cells acc (run 2)", "more acc"]
    assert heat["y"] == ["params", "odd", "late"]
    assert heat["z"] == [[0.5, 0.4, 0.4, 0.4], [None] * 4, [None, 0.9, 0.9, 0.9]]
    said = {(note["x"], note["y"]): (note["text"], note["hovertext"]) for note in notes}
    assert said["cells acc", "odd"] == ("no value", "it is &lt;odd&gt;")
    assert said["cells acc", "late"] == ("not run", "late was not run there") and len(said) == 5


def test_seeds_are_drawn_where_the_score_depends_on_them(tmp_path):
    rows = {"params": row(0.5), "odd": row(0.6, seed_spearman=[0.4, None, 0.7], seed_interval=[0.2, 0.8])}
    page, figures = drawn(tmp_path, Ranked({"f.npz:acc": rows}, weight_seeds=3))
    mean, alone = figures["seeds"]["data"]
    assert mean["y"] == ["odd"] and mean["x"] == [0.6]
    assert mean["error_x"]["array"] == pytest.approx([0.2]) and mean["error_x"]["arrayminus"] == pytest.approx([0.4])
    assert alone["x"] == [0.4, 0.7]
    assert "0.40–0.70" in page and "0.20–0.80" in page
