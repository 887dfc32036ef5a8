"""The plots of the report, as plotly figures in plain data.

Colours are names ("$accent"): the page puts in what its light or dark style says when it draws.
"""

import math
from html import escape
from typing import Any

from edgewright.core.cost import show
from edgewright.core.metric import Score
from edgewright.core.study import Candidate
from edgewright.report.facts import Facts, thinned
from edgewright.report.network import short_words
from edgewright.search.pareto import front

Figure = dict[str, Any]
AXIS = {"gridcolor": "$line", "zeroline": False, "linecolor": "$line", "automargin": True}
CHOSEN = {"color": "$good", "size": 15, "symbol": "star", "line": {"width": 1, "color": "$card"}}


def figure(traces: list[dict[str, Any]], x: str, y: str, **layout: Any) -> Figure:
    """The traces in the house's layout, titles on the axes; `layout` changes or adds to it, axis by axis."""
    base = {
        "xaxis": {**AXIS, "title": {"text": x}, **layout.pop("xaxis", {})},
        "yaxis": {**AXIS, "title": {"text": y}, **layout.pop("yaxis", {})},
        "font": {"color": "$ink", "size": 13},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
        "height": 380,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        "hoverlabel": {"align": "left", "bgcolor": "$card", "bordercolor": "$line", "font": {"color": "$ink"}},
        **layout,
    }
    return {"data": traces, "layout": base}


def scatter(name: str, x: list[float], y: list[float], hover: list[str], marker: dict[str, Any]) -> dict[str, Any]:
    """Points with a text each that shows where one is pointed at."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": x,
        "y": y,
        "text": hover,
        "hovertemplate": "%{text}<extra></extra>",
        "marker": marker,
    }


def ceiling_line(ceiling: float | None) -> dict[str, Any]:
    """The budget as a vertical line, or nothing."""
    if ceiling is None:
        return {}
    line = {"type": "line", "x0": ceiling, "x1": ceiling, "y0": 0, "y1": 1, "yref": "paper"}
    note = {"x": ceiling, "y": 1, "yref": "paper", "text": f"budget {show('latency', ceiling)}", "showarrow": False}
    return {
        "shapes": [{**line, "line": {"color": "$bad", "width": 1.5, "dash": "dash"}}],
        "annotations": [
            {**note, "xanchor": "right", "xshift": -4, "yanchor": "top", "font": {"color": "$bad"}, "bgcolor": "$card"}
        ],
    }


def _hover(candidate: Candidate, facts: Facts) -> str:
    costs = ", ".join(
        show(name, candidate.costs[name].value) for name in ("latency", "macs") if name in candidate.costs
    )
    trained = facts.trained.get(candidate.key)
    head = [f"<b>{costs}</b>"] if costs else []
    if trained is not None:
        head.append(f"trained briefly: {trained:.1f} % on val")
    return "<br>".join([*head, *(escape(words, quote=False) for words in short_words(candidate.architecture))])


def _staircase(x: list[float], y: list[float]) -> dict[str, Any]:
    """The front of (low x, high y) as a staircase line."""
    kept = front([[a, -b] for a, b in zip(x, y, strict=True)])
    best = sorted((a, b) for a, b, keep in zip(x, y, kept, strict=True) if keep)
    line = {"color": "$accent", "width": 2, "shape": "hv"}
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "best for its latency",
        "x": [a for a, _ in best],
        "y": [b for _, b in best],
        "line": line,
        "hoverinfo": "skip",
    }


def pareto_by_score(facts: Facts) -> Figure | None:
    """Every candidate: proxy score against predicted latency, the front, the finalists and the chosen one."""
    proxy = facts.plan.proxy
    known = [c for c in facts.candidates if "latency" in c.costs and math.isfinite(c.scores.get(proxy, math.nan))]
    if not known:
        return None
    finalists = {finalist.key for finalist in facts.result.finalists}
    every = [(c.costs["latency"].value, c.scores[proxy]) for c in known]
    drawn = thinned(known, finalists | {facts.result.key})
    traces = []
    rest = {c.key for c in drawn} - finalists - {facts.result.key}
    groups: tuple[tuple[str, set[str], dict[str, Any]], ...] = (
        (f"{len(known)} candidates", rest, {"color": "$muted", "size": 5, "opacity": 0.45}),
        ("finalists", finalists - {facts.result.key}, {"color": "$accent", "size": 9}),
        ("chosen", {facts.result.key}, CHOSEN),
    )
    for name, keys, marker in groups:
        part = [c for c in drawn if c.key in keys]
        if part:
            x, y = [c.costs["latency"].value for c in part], [c.scores[proxy] for c in part]
            traces.append(scatter(name, x, y, [_hover(c, facts) for c in part], marker))
    traces.insert(1, _staircase([x for x, _ in every], [y for _, y in every]))
    line = ceiling_line(facts.result.budget.ceilings().get("latency"))
    return figure(traces, "predicted latency, ms", f"{proxy} score (higher is better)", **line)


def on_val(score: Score) -> str:
    """An axis's title."""
    return f"{score.title} on val, {score.unit}".rstrip(", ")


def pareto_by_figure(facts: Facts) -> Figure | None:
    """The finalists: the figure that decides on val after their brief training, against measured latency."""
    known = {c.key: c for c in facts.candidates}
    part = [f for f in facts.result.finalists if f.val is not None and f.key in known]
    if not part:
        return None
    points = [(f.measured_ms, f.val or 0.0) for f in part]
    traces = [_staircase([x for x, _ in points], [y for _, y in points])]
    for name, chosen in (("finalists", False), ("chosen", True)):
        some = [f for f in part if (f.key == facts.result.key) == chosen]
        marker = CHOSEN if chosen else {"color": "$accent", "size": 10}
        hover = [_hover(known[f.key], facts) for f in some]
        traces.append(scatter(name, [f.measured_ms for f in some], [f.val or 0.0 for f in some], hover, marker))
    line = ceiling_line(facts.result.budget.ceilings().get("latency"))
    return figure(traces, "measured latency, ms", on_val(facts.decides), **line)


def learning_curves(facts: Facts) -> Figure | None:
    """Loss, and the figure that decides on val, over the epochs of the full training."""
    if not facts.epochs:
        return None
    seen = [e for e in facts.epochs if e.get("val") is not None]
    loss = {
        "type": "scatter",
        "mode": "lines",
        "name": "training loss",
        "x": [e["epoch"] for e in facts.epochs],
        "y": [e["train_loss"] for e in facts.epochs],
        "yaxis": "y2",
        "line": {"color": "$muted", "width": 1.8, "dash": "dot"},
        "hovertemplate": "epoch %{x}: loss %{y:.3f}<extra></extra>",
    }
    figures = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"{facts.decides.title} on val",
        "x": [e["epoch"] for e in seen],
        "y": [e["val"]["value"] for e in seen],
        "line": {"color": "$accent", "width": 2.2},
        "marker": {"size": 5},
        "hovertemplate": "epoch %{x}: %{y:.2f} %<extra></extra>",
    }
    second = {"overlaying": "y", "side": "right", "showgrid": False, "zeroline": False, "automargin": True, "nticks": 6}
    return figure(
        [figures, loss],
        "epoch",
        on_val(facts.decides),
        yaxis2={**second, "title": {"text": "training loss"}, "rangemode": "tozero", "tickmode": "auto"},
    )


def latency_distribution(facts: Facts) -> Figure | None:
    """How long single runs took; the few far slower ones are counted in the last bar's words, not drawn."""
    latency = facts.result.costs.get("latency")
    if not facts.samples or latency is None:
        return None
    ordered = sorted(facts.samples)
    edge = max((latency.p99 or ordered[-1]) * 1.15, ordered[len(ordered) // 2] * 1.3)
    inside = [sample for sample in ordered if sample <= edge]
    bars = {
        "type": "histogram",
        "x": inside,
        "nbinsx": 60,
        "marker": {"color": "$soft", "line": {"color": "$accent", "width": 0.6}},
        "hovertemplate": "%{x} ms: %{y} runs<extra></extra>",
        "showlegend": False,
    }
    shapes, notes = [], []
    marks = (("median", latency.p50, "$good"), ("p90", latency.p90, "$accent"), ("p99", latency.p99, "$muted"))
    for index, (name, value, colour) in enumerate(marks):
        if value is None:
            continue
        line = {"type": "line", "x0": value, "x1": value, "y0": 0, "y1": 1, "yref": "paper"}
        shapes.append({**line, "line": {"color": colour, "width": 2}})
        note = {"x": value, "y": 1 - 0.09 * index, "yref": "paper", "text": f"{name} {show('latency', value)}"}
        notes.append(
            {
                **note,
                "showarrow": False,
                "xanchor": "left",
                "xshift": 4,
                "yanchor": "top",
                "font": {"color": colour},
                "bgcolor": "$card",
            }
        )
    ceiling = facts.result.budget.ceilings().get("latency")
    budget = ceiling_line(ceiling)
    if budget and (ceiling or 0) <= edge * 1.25:
        shapes += budget["shapes"]
        notes += [{**budget["annotations"][0], "y": 0.6, "xanchor": "left", "xshift": 4}]
    return figure([bars], "latency of one run, ms", "runs", shapes=shapes, annotations=notes, bargap=0.02, height=320)


def predicted_and_measured(facts: Facts) -> Figure | None:
    """Predicted against measured latency of whole networks; on the line the prediction was exact."""
    if not facts.measured:
        return None
    x, y = [row["measured_ms"] for row in facts.measured], [row["predicted_ms"] for row in facts.measured]
    low, high = 0.95 * min(*x, *y), 1.05 * max(*x, *y)
    exact = {
        "type": "scatter",
        "mode": "lines",
        "name": "exact",
        "x": [low, high],
        "y": [low, high],
        "line": {"color": "$muted", "width": 1.2, "dash": "dash"},
        "hoverinfo": "skip",
    }
    hover = [f"measured {show('latency', a)}, predicted {show('latency', b)}" for a, b in zip(x, y, strict=True)]
    traces = [exact]
    for name, chosen in (("networks", False), ("chosen", True)):
        some = [i for i, row in enumerate(facts.measured) if (row.get("key") == facts.result.key) == chosen]
        marker = CHOSEN if chosen else {"color": "$accent", "size": 9}
        traces.append(scatter(name, [x[i] for i in some], [y[i] for i in some], [hover[i] for i in some], marker))
    return figure(traces, "measured, ms", "predicted, ms", height=320)
