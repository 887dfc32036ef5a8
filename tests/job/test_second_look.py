"""A machine that was slow for some seconds does not decide which networks compete."""

from types import SimpleNamespace
from typing import Any

import pytest

from edgewright.job.design import choose
from edgewright.space.resolve import make_space
from edgewright.task.load import load_task


@pytest.mark.parametrize(
    ("measured", "again", "kept"),
    [
        ([1.6, 1.5, 0.8], 0.9, [0.9, 0.9, 0.8]),  # slow then, quick now: what was refused fits
        ([1.6, 1.5, 0.8], 1.7, [1.6, 1.5, 0.8]),  # slow still, or flattered by the table: the lower figure
        ([1.6, 0.6, 0.5], 0.9, [1.6, 0.6, 0.5]),  # one of three above the table is no slow machine
        ([0.9, 0.8, 0.7], 0.1, [0.9, 0.8, 0.7]),  # nothing was refused
    ],
)
def test_what_was_refused_is_measured_again(measured, again: float, kept, monkeypatch) -> None:
    space = make_space("mobile", load_task("digits").spec)
    monkeypatch.setattr(choose, "PAUSE", 0.0)
    known: Any = SimpleNamespace(architecture=space.smallest().model_dump(mode="json"))
    monkeypatch.setattr(choose, "candidates", lambda run: dict.fromkeys("abc", known))
    device = SimpleNamespace(measure=lambda files, runs: (SimpleNamespace(median_ms=again),))
    run: Any = SimpleNamespace(ground=SimpleNamespace(space=space, device=device))
    rows: list[Any] = [
        {"key": key, "predicted_ms": 0.6, "measured_ms": value} for key, value in zip("abc", measured, strict=True)
    ]
    choose._second_look(run, rows, ceiling=1.0)
    assert [row["measured_ms"] for row in rows] == kept
