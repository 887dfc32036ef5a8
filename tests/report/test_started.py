"""The report's part on starts: who won, by how much, and what is kept."""

import re
from dataclasses import replace

import pytest

from edgewright.core.metric import Score
from edgewright.core.result import Contestant
from edgewright.core.run import RunFolder
from edgewright.report.facts import Facts, gather
from edgewright.report.started import contest, picture, standing

PARTS = {
    "stem": {"stream": 0.75, "inside": 1.0},
    "a": {"stream": 0.5, "inside": 0.25},
    "b": None,
    "c<d": {"stream": 1.0, "inside": 1.0},
    "e": None,
}
CONTEST = [
    Contestant(key="1", start="timm:net", val=71.0),
    Contestant(key="2", start="/somewhere/runs/old", val=80.5),
    Contestant(key="3", start="timm:net", val=83.25),
    Contestant(key="4", start=None, val=60.0),
    Contestant(key="5", start=None, val=None),
]
START = {"source": "timm:net", "sha256": "ab" * 32, "licence": "apache-2.0", "trained_on": "ImageNet-1k"}


def told(made_run: RunFolder, **changes) -> Facts:
    facts = gather(made_run)
    given = {"contest": CONTEST, "start": {**START, "kept": {"parts": PARTS}}, **changes}
    result = facts.result.model_copy(update={**given, "architecture": {"parts": 4}})
    return replace(facts, result=result)


def test_the_best_of_each_stands_first_and_what_diverged_last() -> None:
    assert list(standing(CONTEST, higher=True).items()) == [
        ("timm:net", (2, 83.25)), ("/somewhere/runs/old", (1, 80.5)), (None, (2, 60.0)),
    ]  # fmt: skip
    assert list(standing(CONTEST[1:], higher=False)) == [None, "/somewhere/runs/old", "timm:net"]
    assert list(standing([CONTEST[4], CONTEST[0]], higher=False)) == ["timm:net", None]


def test_who_won_and_by_how_much(made_run: RunFolder) -> None:
    page = contest(told(made_run))
    assert "timm:net won, 2.8 points ahead of old after their brief trainings" in page
    assert "learned: ImageNet-1k; licence: apache-2.0; weights, SHA-256: abababababab" in page
    assert "/somewhere" not in page
    assert "3 of 5 parts" in page
    scratch = contest(told(made_run, start=None))
    assert "A network from scratch won, 23.2 points behind timm:net after" in scratch
    assert "<svg" not in scratch
    assert contest(told(made_run, contest=[])) == ""


def test_figures_that_fall(made_run: RunFolder) -> None:
    facts = told(made_run)
    decides = Score(name="mean_absolute_error", value=3.0, unit="years", higher_is_better=False)
    assert "timm:net won, 11.0 years behind a network from scratch" in contest(replace(facts, decides=decides))


def test_frames_are_filled_by_what_is_kept() -> None:
    drawn = picture(PARTS, 4)
    frames = re.findall(r'class="frame (\w+)" x="[\d.]+" y="1" width="([\d.]+)" height="(\d+)"', drawn)
    assert [how for how, *_ in frames] == ["kept", "kept", "dropped", "kept", "cut"]
    fills = re.findall(r'class="kept" x="[\d.]+" y="[\d.]+" width="([\d.]+)" height="([\d.]+)"', drawn)
    breadth, height = float(frames[0][1]), float(frames[0][2])
    assert [(float(w) / breadth, float(h) / height) for w, h in fills] == [
        pytest.approx((share["stream"], share["inside"]) if share else (0, 0), abs=0.01) for share in PARTS.values()
    ]
    assert "c&lt;d: 100 % of its channels" in drawn
    assert "a: 50 % of its channels, 25 % inside" in drawn
