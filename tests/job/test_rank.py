"""Ranking on a table whose truth is known: what the proxies must get follows from how it was made."""

import json
import re

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from edgewright.core.errors import BadInput, BudgetInfeasible
from edgewright.core.study import Study
from edgewright.job.rank import run as job
from edgewright.space.resolve import make_tabular
from edgewright.space.table import read_table
from edgewright.task.stored import read_splits


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


def test_a_ceiling_leaves_networks_out_and_the_improvement_is_over_those_inside(table, tmp_path) -> None:
    """Accuracy rises with parameters, so of the networks inside the largest is picked, and nothing beats it."""
    space, spelled = make_tabular("nbmacro"), f"{table}:accuracy"
    truth = read_table(spelled, space).at(range(len(space)))
    low = float(np.quantile(truth, 0.02))
    found = job.rank(plan_for(table, sample=None, ceilings=(f"{spelled}<={low}",)), tmp_path / "r", workers=1)
    inside = truth[truth <= low]
    assert found.sample == len(inside) < len(truth)
    best = 100 * (inside.max() - inside.mean()) / inside.mean()
    assert found.best_improvement[spelled] == pytest.approx(best)
    assert found.proxies["params"]["relative_improvement"] == pytest.approx(best)
    assert found.average_accuracy[spelled] == pytest.approx(inside.mean())
    with pytest.raises(BudgetInfeasible, match="no network of the table keeps"):
        job.rank(plan_for(table, ceilings=(f"{spelled}<=1",)), tmp_path / "none", workers=1)
    with pytest.raises(BadInput, match=r"only .* networks that every table has and that keep the ceilings"):
        job.rank(plan_for(table, ceilings=(f"{spelled}<={np.sort(truth)[2]}",)), tmp_path / "few", workers=1)
    assert not (tmp_path / "none").exists()


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


SMALL = ("snip", "naswot", "ntk_condition")  # gradients, activations, and one where lower is better


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> str:
    """A tiny task of noise, as arrays."""
    path = tmp_path_factory.mktemp("pictures") / "d.npz"
    x = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3)).astype(np.uint8)
    y = np.arange(60) % 3
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    return f"arrays:{path}"


def seeded(table: str, pictures: str, **changes) -> job.RankPlan:
    given = {"proxies": SMALL, "sample": 12, "data": pictures, "images": 4, "batches": 1, "weight_seeds": 3}
    return plan_for(table, **{**given, **changes})


def without_clock(result: job.RankResult) -> dict:
    return {name: {k: v for k, v in row.items() if k != "seconds"} for name, row in result.proxies.items()}


def kept(folder) -> dict[str, dict[str, float]]:
    with Study(folder / "study.db") as study:
        return {candidate.key: candidate.scores for candidate in study.candidates()}


def test_a_score_is_the_mean_over_seeds_with_intervals_over_both(table, pictures, tmp_path) -> None:
    plan, folder = seeded(table, pictures), tmp_path / "r"
    found = job.rank(plan, folder, workers=1)
    space = make_tabular("nbmacro", 3, 3, 16)
    truths = read_table(plan.tables[0], space)
    rows = job.sample_rows(space, [truths], plan.sample, plan.seed)
    scores, truth = kept(folder), truths.at(rows)
    keys = [space.at(row).key() for row in rows]
    assert len(scores) == 3 * len(rows)
    assert set(scores[f"{keys[0]}#2"]) == set(SMALL), "what follows from structure is computed once"
    for name, sign in zip(SMALL, (1, 1, -1), strict=True):
        each = sign * np.array([[scores[key + end][name] for key in keys] for end in ("", "#1", "#2")])
        assert len(np.unique(each[:, 0])) == 3, "every seed has weights of its own"
        row = found.proxies[name]
        assert row["seed_spearman"] == pytest.approx([spearmanr(line, truth)[0] for line in each])
        assert row["spearman"] == pytest.approx(spearmanr(each.mean(axis=0), truth)[0])
        low, high = row["seed_interval"]
        assert -1 <= low <= high <= 1
    assert "seed_spearman" not in found.proxies["params"] and "seed_spearman" not in found.proxies["combined"]
    batches = [read_splits(folder / "checkpoints" / f"batches{end}.safetensors") for end in ("", "-1", "-2")]
    assert not torch.equal(batches[0]["0"].inputs, batches[1]["0"].inputs)
    page = (folder / "report.html").read_text()
    assert "Over 3 seeds, on accuracy" in page and ">of 3 seeds<" in page


def test_a_finished_ranking_goes_on_to_more_seeds(table, pictures, tmp_path, monkeypatch) -> None:
    changes = {"cheap": True, "proxies": ("snip",)}
    monkeypatch.setattr(job, "_seconds_alone", lambda *_: {})
    whole = job.rank(seeded(table, pictures, **changes), tmp_path / "whole", workers=1)
    one = job.rank(seeded(table, pictures, weight_seeds=1, **changes), tmp_path / "grown", workers=1)
    assert "seed_spearman" not in one.proxies["snip"]
    plan = json.loads((tmp_path / "grown" / "rank_plan.json").read_text())
    del plan["weight_seeds"]  # as it was written before there were several
    (tmp_path / "grown" / "rank_plan.json").write_text(json.dumps(plan))
    honest, scored = job.score_architecture, []

    def counting(task):
        if len(scored) == 17:
            raise KeyboardInterrupt
        scored.append((task.seed, json.dumps(task.architecture)))
        return honest(task)

    monkeypatch.setattr(job, "score_architecture", counting)
    with pytest.raises(KeyboardInterrupt):
        job.rank(seeded(table, pictures, **changes), tmp_path / "grown", workers=1)
    first = list(scored)
    scored.clear()
    grown = job.rank(seeded(table, pictures, **changes), tmp_path / "grown", workers=1)
    assert len(first) == 17 and not set(first) & set(scored)
    assert without_clock(grown) == without_clock(whole)
    assert json.loads((tmp_path / "grown" / "rank_plan.json").read_text())["weight_seeds"] == 3


def test_proxies_that_are_newer_than_a_ranking_stay_out_of_it(table, tmp_path, monkeypatch) -> None:
    plan, now = plan_for(table, proxies=("all",), sample=10), job._names
    monkeypatch.setattr(job, "_names", lambda _: ("params", "macs", "nn_degree"))
    job.rank(plan, tmp_path / "r", workers=1)
    monkeypatch.setattr(job, "_names", now)
    again = job.rank(plan, tmp_path / "r", workers=1)
    assert set(again.proxies) == {"params", "macs", "nn_degree", "nn_mass", "combined"}
    assert "cells" in again.proxies["nn_mass"]["missing"], "one that has no value here needs no scores"


def test_other_rankings_stand_beside_this_one(table, pictures, tmp_path) -> None:
    job.rank(seeded(table, pictures, weight_seeds=1), tmp_path / "with-data", workers=1)
    before = json.loads((tmp_path / "with-data" / "rank.json").read_text())
    del before["weight_seeds"]  # as it was written before there were several
    (tmp_path / "with-data" / "rank.json").write_text(json.dumps(before))
    plan = plan_for(table, tables=(f"{table}:accuracy", f"{table}:noise"), sample=15, proxies=("nn_degree",))
    job.rank(plan, tmp_path / "this", workers=1, beside=[tmp_path / "with-data"])
    page = (tmp_path / "this" / "report.html").read_text()
    figures = json.loads(re.findall(r'id="figures">(.*?)</script>', page, flags=re.DOTALL)[0])
    heat = figures["tables"]["data"][0]
    assert heat["x"] == ["nbmacro accuracy", "nbmacro noise", "nbmacro accuracy (with-data)"]
    place = heat["y"].index("snip")
    assert heat["z"][place] == [None, None, before["proxies"]["snip"]["spearman"]]
    assert heat["z"][heat["y"].index("params")][0] == pytest.approx(1)
    words = {(note["x"], note["y"]): note["text"] for note in figures["tables"]["layout"]["annotations"]}
    assert words["nbmacro noise", "snip"] == "not run" and words["nbmacro noise", "nn_degree"] == "no value"
    with pytest.raises(BadInput, match=r"nothing: holds no rank.json"):
        job.rank(plan, tmp_path / "new", workers=1, beside=[tmp_path / "nothing"])
    assert not (tmp_path / "new").exists()


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
