"""The report of a ranking: which proxy orders real networks best, what it would pick, and what it costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.core.files import write_text
from edgewright.core.ranking import relative_improvement
from edgewright.report.html import section
from edgewright.report.page import page
from edgewright.report.pictures import AXIS, Figure, figure

FEW_POINTS = 150
MOST_POINTS = 600  # of one scatter: more make the file large and show nothing more
COLUMNS = 4
# Of a correlation, -1 to 1: most lie in the upper half, which gets most of the colours.
COLOURS = [[0, "$bad"], [0.5, "$card"], [0.75, "$soft"], [1, "$accent"]]
FONT = {"color": "$ink", "size": 12}
NAIVE = ("params", "macs", "live_macs", "log_sizes")
Row = Mapping[str, Any]


def write_standings(
    path: Path,
    tables: Sequence[str],
    result: Any,
    scores: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    beside: Sequence[tuple[str, Any]] = (),
) -> None:
    """Write the report of a `job.rank.RankResult`, whole.

    Args: scores: by proxy, one for each network.   truth: by table (as it was asked for), one for each network.
    beside: other results, each under a name, whose tables are columns of the heat map.
    """
    first = tables[0]
    ordered = in_order(result.tables[first])
    figures: dict[str, Figure] = {}
    parts = [_headline(result, first, ordered)]
    parts += [_table(name, result.tables[name], result, explained=name == first) for name in tables]

    def draw(name: str, title: str, lead: str, drawn: Figure | None) -> None:
        if drawn is not None:
            figures[name] = drawn
            parts.append(section(title, lead, f'<div class="plot" id="{name}"></div>'))

    lead = (
        "Spearman of each seed alone (dots) and of the mean over the seeds (diamond), with its 95 % bootstrap interval "
        "over networks and seeds together. Scores that no seed changes are not here."
    )
    draw("seeds", f"Over {result.weight_seeds} seeds, on {_column(first)}", lead, _over_seeds(result.tables[first]))
    lead = "Spearman correlation with each table. An empty cell says why: the proxy was not run there, or has no value."
    columns = _columns(result, beside)
    draw("tables", "On every table", lead, _by_table(columns) if len(columns) > 1 else None)
    lead = "Each dot is a network. A score that orders well climbs from the lower left to the upper right."
    scattered = _scatters(ordered, result.tables[first], scores, truth[first], _column(first))
    draw("scatter", "Score against accuracy", lead, scattered)
    lead = "Spearman correlation between scores: what is close to 1 measures the same thing."
    draw("between", "Between proxies", lead, _between(result))
    write_text(path, page(f"edgewright: proxies on {result.space}", "".join(parts), figures))


def in_order(rows: Mapping[str, Row]) -> list[str]:
    """Proxies from the highest Spearman correlation to the lowest, those without one last."""
    return sorted(rows, key=lambda name: -_order(rows[name]))


def _order(row: Row) -> float:
    value = row.get("spearman")
    return -2.0 if value is None else value


def average_words(result: Any, table: str) -> str:
    """What a random network of the sample reaches in a table, and how far one could come."""
    average, best = result.average_accuracy[table], result.best_accuracy[table]
    return (
        f"an average network reaches {average:.2f} %; best possible: {best:.2f} %, "
        f"{relative_improvement(best, average):+.2f} % over it"
    )


def _column(spelled: str) -> str:
    return spelled.rsplit(":", 1)[-1]


def _headline(result: Any, table: str, ordered: Sequence[str]) -> str:
    rows = result.tables[table]
    best = ordered[0]
    naive = max((name for name in NAIVE if name in rows), key=lambda name: _order(rows[name]))
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


def _table(spelled: str, rows: Mapping[str, Row], result: Any, *, explained: bool) -> str:
    heads = [
        "Spearman",
        "Kendall",
        "best 1 %",
        "5 %",
        "10 %",
        "its choice",
        "over average",
        "short of best",
        "at equal MACs",
        "s a net",
    ]
    if result.weight_seeds > 1:
        heads.insert(1, f"of {result.weight_seeds} seeds")
    lines = []
    for name in in_order(rows):
        row = rows[name]
        if "missing" in row:
            lines.append(f"<tr><th>{escape(name)}</th><td colspan={len(heads)}>{escape(row['missing'])}</td></tr>")
            continue
        cells = [_with_interval(row, "spearman"), _with_interval(row, "kendall")]
        if result.weight_seeds > 1:
            cells.insert(1, _seeds_alone(row))
        cells += [f"{row[f'precision_{share}']:.2f}" for share in (0.01, 0.05, 0.1)]
        cells += [f"{row['top1_accuracy']:.2f} %", f"{row['relative_improvement']:+.2f} %"]
        cells += [f"{row['top1_regret']:.2f}"]
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
    words = average_words(result, spelled)
    lead = (_explanation(result.weight_seeds) if explained else "") + f"{words[0].upper()}{words[1:]}."
    return section(f"On {_column(spelled)}", lead, body)


def _explanation(seeds: int) -> str:
    """What the columns are; the tables after the first need it no more."""
    over = (
        f", of the mean over {seeds} seeds where the score reads weights, whose interval is over networks and seeds; "
        "the least and greatest Spearman of one seed alone; "
    )
    return (
        "Rank correlation with the table's accuracies, with its 95 % bootstrap interval over networks"
        f"{over if seeds > 1 else '; '}of the best share by score, the part that is truly among the best; the true "
        "accuracy of the network with the highest score, and its relative "
        "improvement over the average network; the mean correlation within ten narrow bands of MACs; seconds "
        "for a network when asked for alone. Naive counts are green. "
    )


def _with_interval(row: Row, name: str) -> str:
    low_high = row.get("intervals", {}).get(name)
    if name == "spearman":
        low_high = row.get("seed_interval", low_high)
    return f"{row[name]:.3f}" + (f" <small>{_from_to(low_high)}</small>" if low_high else "")


def _seeds_alone(row: Row) -> str:
    """Spearman of the worst and of the best seed, for a score that depends on them."""
    each = [value for value in row.get("seed_spearman", ()) if value is not None]
    return _from_to((min(each), max(each))) if each else ""


def _from_to(pair: Sequence[float]) -> str:
    low, high = (f"{value:.2f}".replace("-", "−") for value in pair)
    return f"{low}–{high}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _scatters(
    ordered: Sequence[str], rows: Mapping[str, Row], scores: Mapping[str, np.ndarray], truth: np.ndarray, column: str
) -> dict[str, Any]:
    """Small multiples: accuracy over the rank of each score, the best proxy first."""
    shown = [name for name in ordered if name in scores and "missing" not in rows[name]]
    lines = -(-len(shown) // COLUMNS)
    margin = {"l": 46, "r": 12, "t": 4, "b": 12}
    layout: dict[str, Any] = figure(
        [], "", "", font=FONT, height=16 + 190 * lines, showlegend=False, annotations=[], margin=margin
    )["layout"]
    step = max(1, len(truth) // MOST_POINTS)
    size = 3 if len(truth) > FEW_POINTS else 5
    low = float(np.quantile(truth, 0.02))
    traces = []
    for number, name in enumerate(shown):
        row, column_index = divmod(number, COLUMNS)
        axis = "" if number == 0 else str(number + 1)
        left, bottom = column_index / COLUMNS, 1 - (row + 1) / lines
        layout[f"xaxis{axis}"] = {
            **AXIS, "domain": [left, left + 0.86 / COLUMNS], "anchor": f"y{axis}", "showticklabels": False,
        }  # fmt: skip
        layout[f"yaxis{axis}"] = {
            **AXIS, "domain": [bottom, bottom + 0.86 / lines], "anchor": f"x{axis}",
            "range": [low, float(truth.max()) + 0.5], "showticklabels": column_index == 0,
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
                "marker": {"size": size, "color": "$good" if name in NAIVE else "$accent", "opacity": 0.6},
            }
        )  # fmt: skip
    return {"data": traces, "layout": layout}


def _over_seeds(rows: Mapping[str, Row]) -> Figure | None:
    """Every score that depends on the seed: each seed alone, and their mean with its interval."""
    names = [name for name in in_order(rows) if "seed_spearman" in rows[name]]
    if not names:
        return None
    alone = [(name, value) for name in names for value in rows[name]["seed_spearman"] if value is not None]
    dots = {
        "type": "scatter", "mode": "markers", "name": "one seed", "x": [value for _, value in alone],
        "y": [name for name, _ in alone], "marker": {"color": "$good", "size": 7, "opacity": 0.75},
        "hovertemplate": "%{y}, one seed: %{x:.3f}<extra></extra>",
    }  # fmt: skip
    middle = [rows[name]["spearman"] for name in names]
    edges = [rows[name].get("seed_interval", (value, value)) for name, value in zip(names, middle, strict=True)]
    spread = {
        "type": "data", "symmetric": False, "color": "$accent", "thickness": 1.4, "width": 3,
        "array": [high - value for (_, high), value in zip(edges, middle, strict=True)],
        "arrayminus": [value - low for (low, _), value in zip(edges, middle, strict=True)],
    }  # fmt: skip
    mean = {
        "type": "scatter", "mode": "markers", "name": "mean over the seeds", "x": middle, "y": names, "error_x": spread,
        "marker": {"color": "$accent", "size": 11, "symbol": "diamond"}, "customdata": edges,
        "hovertemplate": "%{y}: %{x:.3f}, 95 % %{customdata[0]:.3f} to %{customdata[1]:.3f}<extra></extra>",
    }  # fmt: skip
    order = {"categoryorder": "array", "categoryarray": names[::-1], "dtick": 1}
    return figure([mean, dots], "Spearman", "", yaxis=order, font=FONT, height=110 + 24 * len(names))


def _heat(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]]) -> Figure:
    """A heat map of correlations, numbers in the cells."""
    words = [["" if value is None else f"{value:.2f}" for value in line] for line in values]
    trace = {
        "type": "heatmap", "x": list(columns), "y": list(rows), "z": [list(line) for line in values], "text": words,
        "texttemplate": "%{text}", "textfont": {"size": 11}, "zmin": -1, "zmax": 1, "colorscale": COLOURS,
        "xgap": 1, "ygap": 1, "hoverongaps": False,
        "hovertemplate": "%{y} and %{x}: %{z:.3f}<extra></extra>", "showscale": False,
    }  # fmt: skip
    # dtick: every name, however many there are
    bare = {"dtick": 1, "showgrid": False}
    across = {**bare, "autotickangles": [0, -45], "side": "top"}
    down = {**bare, "autorange": "reversed"}
    margin = {"l": 10, "r": 10, "t": 10, "b": 10}
    return figure([trace], "", "", xaxis=across, yaxis=down, font=FONT, height=110 + 24 * len(rows), margin=margin)


def _between(result: Any) -> Figure:
    """The scores that rank anything, by each other."""
    kept = [place for place, line in enumerate(result.between) if line[place] is not None]
    names = [result.names[place] for place in kept]
    return _heat(names, names, [[result.between[row][column] for column in kept] for row in kept])


@dataclass(frozen=True)
class Column:
    """One table of one ranking: its label, and the standing of every proxy."""

    label: str
    rows: Mapping[str, Row]


def _columns(result: Any, beside: Sequence[tuple[str, Any]]) -> list[Column]:
    """The tables of this ranking, then of those beside it. Equal labels get the ranking's name, and numbers then."""
    every = [("", result), *beside]
    found: list[Column] = []
    for name, other in every:
        for spelled, rows in other.tables.items():
            label = f"{other.space} {_column(spelled)}" if beside else _column(spelled)
            taken = {column.label for column in found}
            choices = (label, f"{label} ({name})", *(f"{label} ({name} {n})" for n in range(2, 2 + len(found))))
            found.append(Column(next(choice for choice in choices if choice not in taken), rows))
    return found


def _by_table(columns: Sequence[Column]) -> Figure:
    """Proxies by tables, in the order of the first table; proxies that only others have come after, by their best."""
    first = columns[0].rows
    best = {name: max(_order(c.rows[name]) for c in columns if name in c.rows) for c in columns for name in c.rows}
    names = [*in_order(first), *sorted(best.keys() - first.keys(), key=lambda name: (-best[name], name))]
    values = [[column.rows.get(name, {}).get("spearman") for column in columns] for name in names]
    drawn = _heat(names, [column.label for column in columns], values)
    drawn["layout"]["annotations"] = [
        {
            "x": column.label, "y": name, "showarrow": False, "font": {"size": 10, "color": "$muted"},
            "text": "no value" if name in column.rows else "not run",
            "hovertext": escape(column.rows.get(name, {}).get("missing", f"{name} was not run there")),
        }
        for name, line in zip(names, values, strict=True) for column, value in zip(columns, line, strict=True)
        if value is None
    ]  # fmt: skip
    return drawn
