import pytest

from edgewright.report import pictures
from edgewright.report.answers import drawn
from edgewright.report.facts import gather, thinned


@pytest.fixture(scope="module")
def facts(made_run):
    return gather(made_run)


def named(figure, name):
    return next(trace for trace in figure["data"] if trace["name"].endswith(name))


def test_every_candidate_is_drawn_once(facts):
    figure = pictures.pareto_by_score(facts)
    drawn = [
        point
        for trace in figure["data"]
        if trace["mode"] == "markers"
        for point in zip(trace["x"], trace["y"], strict=True)
    ]
    assert sorted(drawn) == sorted((c.costs["latency"].value, c.scores["zico"]) for c in facts.candidates)
    chosen = next(c for c in facts.candidates if c.key == facts.result.key)
    assert named(figure, "chosen")["x"] == [chosen.costs["latency"].value]
    assert figure["layout"]["shapes"][0]["x0"] == 0.3


def test_front_is_beaten_by_nobody(facts):
    line = named(pictures.pareto_by_score(facts), "best for its latency")
    assert line["x"] == sorted(line["x"])
    assert line["y"] == sorted(line["y"])
    for candidate in facts.candidates:
        latency, score = candidate.costs["latency"].value, candidate.scores["zico"]
        best = max((y for x, y in zip(line["x"], line["y"], strict=True) if x <= latency), default=None)
        assert best is not None
        assert best >= score


def test_the_view_by_figure_holds_the_finalists(facts):
    figure = pictures.pareto_by_figure(facts)
    assert figure["layout"]["yaxis"]["title"]["text"] == "accuracy on val, %"
    points = [y for trace in figure["data"] if trace["mode"] == "markers" for y in trace["y"]]
    assert sorted(points) == sorted(finalist.val for finalist in facts.result.finalists)


def test_epochs_without_a_look_at_val_are_left_out(facts):
    accuracy, loss = pictures.learning_curves(facts)["data"]
    assert loss["x"] == list(range(1, 41))
    seen = [epoch for epoch in facts.epochs if epoch["val"] is not None]
    assert accuracy["x"] == [epoch["epoch"] for epoch in seen]
    assert accuracy["y"] == [epoch["val"]["value"] for epoch in seen]


def test_histogram_keeps_nearly_all_runs(facts):
    bars = pictures.latency_distribution(facts)["data"][0]
    assert 0.98 * len(facts.samples) <= len(bars["x"]) <= len(facts.samples)


def test_class_names_are_escaped_where_plotly_reads_html(facts):
    figures = {}
    drawn(facts.pictures.pictures, figures)
    figure, bars = figures["answers-0"], figures["answers-1"]
    assert not any("<" in text for text in bars["layout"]["yaxis"]["ticktext"])
    assert not any("<script" in text for row in figure["data"][0]["customdata"] for text in row)
    assert not any("<" in text for text in figure["layout"]["xaxis"]["ticktext"])
    assert [sum(int(text or 0) for text in row) for row in figure["data"][0]["text"]] == [50] * 6


def test_thinning_keeps_the_important(facts):
    many = facts.candidates * 40
    kept = thinned(many, {facts.result.key})
    assert len(kept) <= 3100
    assert sum(candidate.key == facts.result.key for candidate in kept) >= 40
    assert thinned(facts.candidates, set()) == facts.candidates
