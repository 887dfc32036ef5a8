"""The page of an adaptation: its figures are the plan's, and nothing in it is taken for markup."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from edgewright.backward.plans.planner import plan
from edgewright.backward.plans.training_plan import TrainingBudget, TrainingPlan
from edgewright.backward.resolve import methods
from edgewright.core.metric import Score
from edgewright.report.parts.adaptation import (
    in_words,
    learning,
    memory_over_a_step,
    trade_curve,
    unit_for,
    write_adaptation,
)
from edgewright.train.record import Record, Trained


def network(blocks: int = 2) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 6, 3), nn.ReLU()]
    for _ in range(blocks):
        layers += [nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.Hardswish()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


def planned(blocks: int = 2, memory: int = 40_000) -> TrainingPlan:
    model, budget = network(blocks), TrainingBudget(memory_bytes=memory)
    return plan(model, torch.zeros(5, 3, 14, 11), budget=budget, curve=True)


def made(training: TrainingPlan, **changes: Any) -> Any:
    scores = [Score(name="accuracy", value=60.0 + i) for i in range(5)]
    looks = tuple(
        Record(epoch=i / 2, step=8 * i, progress=i / 4, lr=0.1, train_loss=1.0, val=score, val_loss=1.0, seconds=i)
        for i, score in enumerate(scores)
    )
    found = {
        "source": "runs <b>flowers</b>",
        "task": {"name": "mine & <script>alert(1)</script>", "num_test": 1234},
        "training": training,
        "new_head": "10",
        "figure": SimpleNamespace(before=61.04, after=72.51),
        "old_task": SimpleNamespace(before=80.0, after=78.25),
        "old_task_missing": None,
        "tuned": Trained(history=looks, val=scores[-1], seconds=4.0, epochs=2.0, steps=32, samples_per_second=9.0),
        "seconds": 65.0,
    }
    return SimpleNamespace(**{**found, **changes})


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html.partition("<main>")[2].partition("</main>")[0]).split())


def test_the_page_says_what_came_of_it(tmp_path: Path) -> None:
    training = planned()
    html = write_adaptation(tmp_path / "report.html", made(training)).read_text()
    words = text_of(html)
    assert "61.0 % with a new head alone, 72.5 % after" in words
    assert "On the old task it went from 80.0 to 78.2 %" in words
    assert "of the 39.1 KB allowed" in words and "1,234 held-out test images" in words
    assert "<script>alert" not in html and "&lt;script&gt;alert" in html and "<b>flowers" not in html
    for row in training.layers:
        assert (f"<th>{row.layer}</th>" in html) == bool(row.learns)
    assert not re.search(r"https?://", html.partition("<main>")[2].partition("</main>")[0])


def test_what_got_worse_is_not_shown_as_a_success(tmp_path: Path) -> None:
    worse = made(planned(), figure=SimpleNamespace(before=80.0, after=70.0), new_head=None, old_task=None)
    worse.old_task_missing = "the data <is> gone"
    worse.tuned = worse.tuned.model_copy(update={"stopped": "the loss is nan in step 7"})
    html = write_adaptation(tmp_path / "report.html", worse).read_text()
    assert '<em class="no">70.0 %</em>' in html
    assert "80.0 % before," in html
    assert "The old task was not measured: the data &lt;is&gt; gone." in html
    assert "It ended early: the loss is nan in step 7." in html


def test_the_step_goes_up_to_what_is_stored_and_down_again() -> None:
    training = planned()
    traces = {trace["name"]: trace["y"] for trace in memory_over_a_step(training)["data"]}
    size, unit = unit_for(training.memory_bytes)
    assert unit == "KB"
    layers, between = traces["kept by layers"], traces.get("kept between layers", [0.0])
    count = len(training.layers)
    assert len(layers) == 2 * count
    assert max(layers) == pytest.approx(layers[count - 1])
    assert size * (max(layers) + max(between)) == pytest.approx(training.stored_bytes)
    assert layers[:count] == sorted(layers[:count]) and layers[count:] == sorted(layers[count:], reverse=True)
    assert set(traces["gradients"][:count]) == {0}
    assert size * traces["gradients"][-1] == pytest.approx(training.gradient_bytes)
    assert [size * bytes_ for bytes_ in traces["optimizer"]] == pytest.approx([training.state_bytes] * 2 * count)


def test_the_trade_curve_marks_the_plan() -> None:
    training = planned()
    found = trade_curve(training)
    assert found is not None
    size, _ = unit_for(max(point.memory_bytes for point in training.curve))
    curve, mark = found["data"]
    assert [size * x for x in curve["x"]] == pytest.approx([point.memory_bytes for point in training.curve])
    assert size * mark["x"][0] == pytest.approx(training.memory_bytes)
    assert trade_curve(training.model_copy(update={"curve": ()})) is None


def test_learning_is_drawn_look_by_look() -> None:
    (trace,) = learning(made(planned()))["data"]
    assert list(zip(trace["x"], trace["y"], strict=True)) == [(8 * i, 60.0 + i) for i in range(5)]


@pytest.mark.parametrize(("most", "unit"), [(0, "bytes"), (900, "bytes"), (2000, "KB"), (3 * 2**20, "MB")])
def test_the_unit_suits_the_numbers(most: int, unit: str) -> None:
    assert unit_for(most)[1] == unit


def test_every_method_that_learns_has_words() -> None:
    silent = {"frozen", "mask", "signed"}  # nothing learns by them
    assert {name for name in methods() if in_words(name) == name} <= silent
    assert in_words("filter-4") == "gradients averaged over patches of 4 x 4"


def test_a_long_table_is_folded(tmp_path: Path) -> None:
    long = planned(blocks=12, memory=10**9)
    html = write_adaptation(tmp_path / "report.html", made(long)).read_text()
    rows = sum(bool(row.learns) for row in long.layers)
    assert rows > 16 and f"<summary>layer by layer: {rows} layers</summary>" in html
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', html).group(1))  # pyright: ignore[reportOptionalMemberAccess]
    assert set(figures) == {"step", "learning", "trade"}
