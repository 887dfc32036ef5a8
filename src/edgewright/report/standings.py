"""The report of a ranking: which proxy orders real networks best, what it would pick, and what it costs."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.core.files import write_text
from edgewright.report.html import section
from edgewright.report.page import page

MOST_POINTS = 600  # of one scatter: more make the file large and show nothing more
COLUMNS = 4
AXIS = {"gridcolor": "$line", "zeroline": False, "linecolor": "$line", "automargin": True}
PAPER = {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": {"color": "$ink", "size": 12}}
NAIVE = ("params", "macs", "live_macs", "log_sizes")
Row = Mapping[str, Any]


def write_standings(
    path: Path,
    tables: Sequence[str],
    result: Any,
    scores: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
) -> None:
    """Write the report of a `job.rank.RankResult`, whole.

    Args: scores: by proxy, one for each network.   truth: by table (as it was asked for), one for each network.
    """
    first = tables[0]
    ordered = in_order(result.tables[first])
    figures: dict[str, Any] = {
        "scatter": _scatters(ordered, result.tables[first], scores, truth[first], _column(first))
    }
    parts = [_headline(result, first, ordered)]
    parts += [_table(name, result.tables[name], result) for name in tables]
    lead = "Each dot is a network. A score that orders well climbs from the lower left to the upper right."
    parts.append(section("Score against accuracy", lead, '<div class="plot" id="scatter"></div>'))
    if len(tables) > 1:
        figures["tables"] = _by_table(tables, result, ordered)
        lead = "Spearman correlation with the accuracies of each table."
        parts.append(section("On every table", lead, '<div class="plot" id="tables"></div>'))
    figures["between"] = _between(result)
    lead = "Spearman correlation between scores: what is close to 1 measures the same thing."
    parts.append(section("Between proxies", lead, '<div class="plot" id="between"></div>'))
    write_text(path, page(f"edgewright: proxies on {result.space}", "".join(parts), figures))


def in_order(rows: Mapping[str, Row]) -> list[str]:
    """Proxies from the highest Spearman correlation to the lowest, those without one last."""
    return sorted(rows, key=lambda name: -(rows[name].get("spearman") or -2.0))


def _column(spelled: str) -> str:
    return spelled.rsplit(":", 1)[-1]


def _headline(result: Any, table: str, ordered: Sequence[str]) -> str:
    rows = result.tables[table]
    best = ordered[0]
    naive = max((name for name in NAIVE if name in rows), key=lambda name: rows[name].get("spearman") or -2.0)
    picked = rows[best]["top1_accuracy"]
    words = (
        f"Spearman {rows[best]['spearman']:.3f} on {_column(table)}; the network that it would pick reaches "
        f"{picked:.2f} %, {result.best_accuracy[table] - picked:.2f} points under the best of the sample, where a "
        f"random network reaches {result.average_accuracy[table]:.2f} %. The best naive count, {naive}, has "
        f"{rows[naive]['spearman']:.3f}."
    )
    return (
        f"<h1>{len(rows)} training-free scores on {result.sample} networks of {escape(result.space)}, "
        f'seed {result.seed}</h1><p class="verdict"><em>{escape(best)}</em> orders them best.</p>'
        f'<p class="lead">{escape(words)}</p>'
    )


def _table(spelled: str, rows: Mapping[str, Row], result: Any) -> str:
    heads = (
        "Spearman",
        "Kendall",
        "best 1 %",
        "5 %",
        "10 %",
        "its choice",
        "short of best",
        "at equal MACs",
        "s a net",
    )
    lines = []
    for name in in_order(rows):
        row = rows[name]
        if "missing" in row:
            lines.append(f"<tr><th>{escape(name)}</th><td colspan={len(heads)}>{escape(row['missing'])}</td></tr>")
            continue
        cells = [_with_interval(row, "spearman"), _with_interval(row, "kendall")]
        cells += [f"{row[f'precision_{share}']:.2f}" for share in (0.01, 0.05, 0.1)]
        cells += [f"{row['top1_accuracy']:.2f} %", f"{row['top1_regret']:.2f}"]
        cells += [_number(row.get("band_spearman")), _number(row.get("seconds"))]
        marked = " class=met" if name in NAIVE else ""
        lines.append(
            f"<tr><th{marked}>{escape(name)}</th>" + "".join(f"<td class=num>{c}</td>" for c in cells) + "</tr>"
        )
    body = "<div class=scroll><table><thead><tr><th>proxy</th>"
    body += (
        "".join(f"<th class=num>{head}</th>" for head in heads)
        + f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
    lead = (
        "Rank correlation with the table's accuracies (95 % bootstrap interval over networks); of the best share by "
        "score, the part that is truly among the best; the true accuracy of the network with the highest score; the "
        "mean correlation within ten narrow bands of MACs; seconds for a network when asked for alone. "
        f"Naive counts are green. Average network {result.average_accuracy[spelled]:.2f} %, best "
        f"{result.best_accuracy[spelled]:.2f} %."
    )
    return section(f"On {_column(spelled)}", lead, body)


def _with_interval(row: Row, name: str) -> str:
    low_high = row.get("intervals", {}).get(name)
    spread = f" <small>{low_high[0]:.2f} to {low_high[1]:.2f}</small>" if low_high else ""
    return f"{row[name]:.3f}{spread}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _scatters(
    ordered: Sequence[str], rows: Mapping[str, Row], scores: Mapping[str, np.ndarray], truth: np.ndarray, column: str
) -> dict[str, Any]:
    """Small multiples: accuracy over the rank of each score, the best proxy first."""
    shown = [name for name in ordered if name in scores and "missing" not in rows[name]]
    lines = -(-len(shown) // COLUMNS)
    layout: dict[str, Any] = {**PAPER, "height": 60 + 190 * lines, "showlegend": False, "annotations": []}
    layout["margin"] = {"l": 46, "r": 12, "t": 26, "b": 40}
    step = max(1, len(truth) // MOST_POINTS)
    low = float(np.quantile(truth, 0.02))
    traces = []
    for number, name in enumerate(shown):
        row, column_index = divmod(number, COLUMNS)
        axis = "" if number == 0 else str(number + 1)
        left, top = column_index / COLUMNS, 1 - row / lines
        layout[f"xaxis{axis}"] = {
            **AXIS, "domain": [left, left + 0.86 / COLUMNS], "anchor": f"y{axis}", "showticklabels": False,
        }  # fmt: skip
        layout[f"yaxis{axis}"] = {
            **AXIS, "domain": [top - 0.78 / lines, top], "anchor": f"x{axis}", "range": [low, float(truth.max()) + 0.5],
            "showticklabels": column_index == 0,
        }  # fmt: skip
        place = {"xref": f"x{axis} domain", "yref": f"y{axis} domain", "x": 0, "y": 1.0, "yanchor": "bottom"}
        label = f"{escape(name)}  {rows[name]['spearman']:.2f}"
        layout["annotations"].append({**place, "text": label, "showarrow": False, "xanchor": "left"})
        order = np.argsort(np.argsort(scores[name]))
        traces.append(
            {
                "type": "scattergl" if len(shown) == 1 else "scatter", "mode": "markers", "xaxis": f"x{axis}",
                "yaxis": f"y{axis}", "x": order[::step].tolist(), "y": truth[::step].round(2).tolist(),
                "hovertemplate": f"{escape(name)}: rank %{{x}}<br>{escape(column)} %{{y}}<extra></extra>",
                "marker": {"size": 3, "color": "$good" if name in NAIVE else "$accent", "opacity": 0.6},
            }
        )  # fmt: skip
    return {"data": traces, "layout": layout}


def _heat(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    """A heat map of correlations, numbers in the cells."""
    words = [["" if value is None else f"{value:.2f}" for value in line] for line in values]
    trace = {
        "type": "heatmap", "x": list(columns), "y": list(rows), "z": [list(line) for line in values], "text": words,
        "texttemplate": "%{text}", "textfont": {"size": 10}, "zmin": -1, "zmax": 1, "zmid": 0, "colorscale": "RdBu",
        "reversescale": True,
        "hovertemplate": "%{y} and %{x}: %{z:.3f}<extra></extra>", "showscale": False,
    }  # fmt: skip
    layout = {
        **PAPER, "height": 90 + 26 * len(rows), "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "xaxis": {**AXIS, "tickangle": -45}, "yaxis": {**AXIS, "autorange": "reversed"},
    }  # fmt: skip
    return {"data": [trace], "layout": layout}


def _by_table(tables: Sequence[str], result: Any, ordered: Sequence[str]) -> dict[str, Any]:
    values = [[result.tables[table][name].get("spearman") for table in tables] for name in ordered]
    return _heat(ordered, [_column(table) for table in tables], values)


def _between(result: Any) -> dict[str, Any]:
    return _heat(result.names, result.names, result.between)
