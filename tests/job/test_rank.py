"""Ranking on a table whose truth is known: what the proxies must get follows from how it was made."""

import json

import numpy as np
import pytest

from edgewright.core.errors import BadInput
from edgewright.core.study import Study
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


def test_cheap_scores_twins_once_and_counts_every_network(tmp_path, monkeypatch) -> None:
    space = make_tabular("nb201")
    params = np.array([space.params(space.at(row)) for row in range(len(space))], dtype=float)
    rows = [row for row in range(500) if space.canonical(row) == row]
    np.savez(tmp_path / "t.npz", arch_idx=np.array(rows), accuracy=params[rows])
    pictures = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3)).astype(np.uint8)
    labels = np.arange(60) % 10
    np.savez(tmp_path / "d.npz", x_train=pictures, y_train=labels, x_test=pictures, y_test=labels)
    asked: list = []
    monkeypatch.setattr(
        job, "score_architecture", lambda task: asked.append(task) or dict.fromkeys(task.proxies, float(len(asked)))
    )
    plan = plan_for(
        f"{tmp_path / 't.npz'}", space="nb201", proxies=("zico",), sample=None, data=f"arrays:{tmp_path / 'd.npz'}",
        cheap=True, resamples=0,
    )  # fmt: skip
    first = job.first_twins(space, rows)
    assert len(set(first.values())) == len({space.twin(row) for row in rows}) < len(rows)
    assert all(first[row] <= row and space.twin(first[row]) == space.twin(row) for row in rows)
    monkeypatch.setattr(job, "_seconds_alone", lambda *_: {})
    job.rank(plan, tmp_path / "r", workers=1)
    assert all(task.cheap for task in asked)
    assert len(asked) == len(rows)
    assert sum("zico" in task.proxies for task in asked) == len(set(first.values()))
    with Study(tmp_path / "r" / "study.db") as study:
        found = {candidate.key: candidate.scores for candidate in study.candidates()}
    of = {row: found[space.at(row).key()] for row in rows}
    assert all(of[row]["zico"] == of[first[row]]["zico"] for row in rows)
    assert [of[row]["params"] for row in rows] == list(range(1, len(rows) + 1))


def test_a_proxy_without_a_value_says_why(table, tmp_path) -> None:
    found = job.rank(plan_for(table, proxies=("nn_degree",)), tmp_path / "r", workers=1)
    assert "cells" in found.proxies["nn_degree"]["missing"]


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
