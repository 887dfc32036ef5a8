"""The page of a compression: its figures are the result's, and nothing in it is taken for markup."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgewright.core.cost import Budget, cost
from edgewright.core.metric import Score
from edgewright.core.result import Export
from edgewright.device.compare import Ratio
from edgewright.report.parts.compression import learning, trade, write_compression


def costs(ms: float, size: float = 2**20, macs: float = 4e6) -> dict[str, Any]:
    return {
        "latency": cost("latency", ms, "measured"),
        "size": cost("size", size, "measured"),
        "peak_memory": cost("peak_memory", 40 * 1024, "analytic"),
        "macs": cost("macs", macs, "analytic"),
        "params": cost("params", 1e5, "analytic"),
    }


def trial(name: str, ms: float, figure: float | None, verdict: str) -> Any:
    return SimpleNamespace(name=name, type="fp32", costs=costs(ms), latency_ms=ms, figure=figure, verdict=verdict)


def training(name: str, trial: bool) -> Any:
    looks = [None if n == 1 else Score(name="accuracy", value=60.0 + n) for n in range(5)]
    history = [SimpleNamespace(epoch=n, val=look, precision="bfloat16") for n, look in enumerate(looks)]
    return SimpleNamespace(
        name=name,
        trial=trial,
        trained=SimpleNamespace(
            history=history, looks=[one for one in history if one.val], steps=1234, epochs=5.0, seconds=30.0
        ),
    )


def made(**changes: Any) -> Any:
    found = {
        "source": "runs <b>flowers</b>",
        "task": {"name": "mine & <script>alert(1)</script>", "num_test": 1234},
        "budget": Budget(latency_ms=0.15),
        "max_drop": 1.5,
        "before": SimpleNamespace(type="fp32", costs=costs(0.31), test=91.25, val=92.0, note=""),
        "after": SimpleNamespace(type="int8", costs=costs(0.14, 2**18, 2e6), test=90.5, val=91.5, note="U8S8"),
        "ratio": Ratio(value=0.45, low=0.43, high=0.47),
        "way": "pruned",
        "trials": (
            trial("as it was", 0.31, 92.0, "what is to be compressed"),
            trial("<i>exact</i>", 0.29, 92.0, "latency is over"),
            trial("pruned, aimed at 60 %", 0.13, None, "has yet to learn"),
            trial("taught again", 0.14, 91.5, "handed out"),
        ),
        "rewrites": ("prune <conv>  8 of 16",),
        "widths": (SimpleNamespace(layer="stage1.0<x>", before=32, after=8),),
        "dropped": ("stage3.1",),
        "remarks": ("linearise: none is faster",),
        "learned": (training("pruned", False),),
        "export": Export(outputs=(), same=99.5, samples=200),
        "seconds": 65.0,
    }
    return SimpleNamespace(**{**found, **changes})


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html.partition("<main>")[2].partition("</main>")[0]).split())


def test_the_page_says_what_came_of_it(tmp_path: Path) -> None:
    html = write_compression(tmp_path / "report.html", made()).read_text()
    words = text_of(html)
    assert "0.31 ms before, 0.14 ms after, 0.75 points lost." in words
    assert "Asked for: latency up to 0.15 ms, losing at most 1.5 percentage points of accuracy." in words
    assert "It ships in int8 (U8S8); pruned" in words
    assert "takes 45 % of the time (43 to 47 %, 95 %)" in words
    assert "file size 1 MB 256 KB 25 %" in words and "multiply-adds 4 M 2 M 50 %" in words
    assert "latency 0.31 ms 0.14 ms 0.15 ms 45 %" in words
    assert "1 layer, and what reads it, has 8 of 32 channels left. Whole blocks that went: stage3.1." in words
    assert "own answer on 99.5 % of 200 images" in words and "1,234 held-out test images" in words
    assert "1,234 steps in bfloat16, 5.0 epochs" in words
    assert "<script>alert" not in html and "<b>flowers" not in html and "<i>exact" not in html
    assert "<conv>" not in html and "<x>" not in html
    assert not re.search(r"https?://", html.partition("<main>")[2].partition("</main>")[0])


def test_what_needed_no_training_says_so(tmp_path: Path) -> None:
    quick = made(learned=(), widths=(), dropped=(), way="exact rewrites", ratio=None)
    words = text_of(write_compression(tmp_path / "report.html", quick).read_text())
    assert "nothing had to be trained" in words and "How it learned again" not in words and "What went" not in words
    assert "law and by counting: nothing was measured there" in words


@pytest.mark.parametrize(("after", "words"), [(91.25, "no accuracy lost"), (92.0, "0.75 points gained")])
def test_accuracy_that_is_kept_is_not_called_lost(after: float, words: str, tmp_path: Path) -> None:
    result = made()
    result.after.test = after
    assert words in text_of(write_compression(tmp_path / "report.html", result).read_text())


def test_the_trade_curve_has_every_trial_where_it_is() -> None:
    found = trade(made())
    points = {trace["name"]: list(zip(trace["x"], trace["y"], strict=True)) for trace in found["data"]}
    assert points["as it was"] == [(0.31, 92.0)] and points["handed out"] == [(0.14, 91.5)]
    assert points["tried"] == [(0.29, 92.0)]
    ((x, y),) = points["not trained yet"]
    assert x == 0.13 and y < 90.5  # below what is allowed
    lines = found["layout"]["shapes"]
    assert {line.get("x0") for line in lines} >= {0.15} and {line.get("y0") for line in lines} >= {90.5}


def test_learning_is_drawn_where_it_was_looked_at() -> None:
    result = made(learned=(training("a", True), training("b", False)))
    brief, whole = learning(result)["data"]
    assert brief["name"] == "a, brief" and whole["name"] == "b"
    assert list(zip(whole["x"], whole["y"], strict=True)) == [(0, 60.0), (2, 62.0), (3, 63.0), (4, 64.0)]
    assert learning(result)["layout"]["shapes"][0]["y0"] == 92.0
