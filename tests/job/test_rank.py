"""Ranking on a table whose truth is known: what the proxies must get follows from how it was made."""

import json

import numpy as np
import pytest

from edgewright.core.errors import BadInput
from edgewright.job import rank as job
from edgewright.space.resolve import make_tabular


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    """A table over NAS-Bench-Macro in which accuracy rises with the number of parameters, and one of noise."""
    space = make_tabular("nbmacro")
    params = np.array([space.params(space.at(row)) for row in range(len(space))], dtype=float)
    path = tmp_path_factory.mktemp("tables") / "made.npz"
    accuracy = 50 + 40 * params / params.max()
    np.savez(
        path, accuracy=accuracy, noise=np.random.default_rng(0).normal(size=len(space)), constant=np.ones(len(space))
    )
    return str(path)


def plan_for(table: str, **changes) -> job.RankPlan:
    given = {
        "space": "nbmacro",
        "tables": (f"{table}:accuracy",),
        "proxies": ("capacity",),
        "sample": 40,
        "resamples": 20,
    }
    return job.RankPlan(**{**given, **changes})


def test_the_count_that_made_the_table_orders_it_perfectly(table, tmp_path) -> None:
    found = job.rank(plan_for(table, tables=(f"{table}:accuracy", f"{table}:noise")), tmp_path / "r", workers=1)
    params = found.proxies["params"]
    assert params["spearman"] == pytest.approx(1)
    assert params["kendall"] == pytest.approx(1)
    assert params["top1_accuracy"] == found.best_accuracy[f"{table}:accuracy"]
    assert params["top1_regret"] == 0
    assert abs(found.tables[f"{table}:noise"]["params"]["spearman"]) < 0.5
    assert found.sample == 40
    names = list(found.names)
    assert found.between[names.index("params")][names.index("params")] == pytest.approx(1)
    assert json.loads((tmp_path / "r" / "rank.json").read_text())["proxies"]["params"]["spearman"] == pytest.approx(1)
    page = (tmp_path / "r" / "report.html").read_text()
    assert "orders them best" in page
    assert "http://" not in page.split("<script>")[0]


def test_a_cut_ranking_goes_on_and_gives_the_same(table, tmp_path, monkeypatch) -> None:
    whole = job.rank(plan_for(table), tmp_path / "whole", workers=1)
    scored: list[str] = []
    honest = job.score_architecture

    def counting(task):
        scored.append(json.dumps(task.architecture))
        if len(scored) == 15:
            raise KeyboardInterrupt
        return honest(task)

    monkeypatch.setattr(job, "score_architecture", counting)
    with pytest.raises(KeyboardInterrupt):
        job.rank(plan_for(table), tmp_path / "cut", workers=1)
    first = scored[:14]
    scored.clear()
    scored.extend(["-"] * 15)  # past the cut
    again = job.rank(plan_for(table), tmp_path / "cut", workers=1)
    rescored = scored[15 : 15 + 26]
    assert not set(rescored) & set(first)
    strip = {"seconds"}
    assert {n: {k: v for k, v in row.items() if k not in strip} for n, row in again.proxies.items()} == {
        n: {k: v for k, v in row.items() if k not in strip} for n, row in whole.proxies.items()
    }
    with pytest.raises(BadInput, match="another ranking"):
        job.rank(plan_for(table, seed=1), tmp_path / "cut", workers=1)


def test_faults_are_one_sentence(table, tmp_path) -> None:
    for changes, words in (
        ({"space": "mobile"}, "no tables speak of"),
        ({"tables": (f"{table}:oops",)}, "no column 'oops'; it has accuracy"),
        ({"tables": (f"{table}:constant",)}, "every value is 1"),
        ({"proxies": ("zic",)}, "unknown proxy 'zic'"),
        ({"proxies": ("zico",)}, "need images"),
    ):
        with pytest.raises(BadInput, match=words):
            job.rank(plan_for(table, **changes), tmp_path / "bad", workers=1)
        assert not (tmp_path / "bad").exists()
