"""search.html: how far every strategy is from the best network of a table, query by query."""

from html import escape
from pathlib import Path
from typing import Any

from edgewright.core.cost import figures
from edgewright.core.files import write_text
from edgewright.report.html import section
from edgewright.report.page import page
from edgewright.report.pictures import Figure, figure
from edgewright.search.regret import BASELINE, Curve, Regret, inside_words

# Colours that the page knows by name, for the best five; the others are thin and grey, as all cannot be told apart.
COLOURS = ("$k3", "$k1", "$k2", "$k4", "$bad")


def write_regret_report(result: Regret, path: Path) -> Path:
    """Write what `search.regret.regret_curves` found as one HTML file that opens without a network; returns `path`."""
    picture = '<div class="plot" id="regret"></div>'
    body = "".join((
        _headline(result),
        section("Regret over queries", "Mean over the repeats, in percentage points of accuracy; the band is the 95 % "
                 "interval of that mean, drawn for the best strategy and for random search. Click a name to hide it.",
                 picture),
        section("After the last query", "Best first.", _table(result)),
    ))  # fmt: skip
    write_text(path, page(f"edgewright: strategies on {result.space}", body, {"regret": regret_figure(result)}))
    return path


def regret_figure(result: Regret) -> Figure:
    """Every strategy's curve, random search dashed, on a logarithmic axis that ends at 0.01 points."""
    traces: list[dict[str, Any]] = []
    best = next((name for name in result.curves if name != BASELINE), BASELINE)
    colours = iter(COLOURS)
    for name, curve in result.curves.items():
        colour = "$ink" if name == BASELINE else next(colours, "$muted")
        if name in (BASELINE, best):
            traces.append(_band(name, curve, colour))
        dash = "dash" if name == BASELINE else "solid"
        traces.append({
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "legendgroup": name,
            "x": list(range(1, result.queries + 1)),
            "y": [max(value, 0.005) for value in curve.mean],
            "line": {"color": colour, "width": 2.4 if name in (BASELINE, best) else 1.4, "dash": dash},
            "customdata": curve.mean,
            "hovertemplate": f"{name}, %{{x}} queries: %{{customdata:.3f}}<extra></extra>",
        })  # fmt: skip
    ticks = {
        "type": "log",
        "tickvals": [0.005, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30],
        "ticktext": ["0", "0.01", "0.03", "0.1", "0.3", "1", "3", "10", "30"],
    }
    return figure(traces, "queries", "regret, percentage points", yaxis=ticks, height=460)


def _band(name: str, curve: Curve, colour: str) -> dict[str, Any]:
    """The interval as a closed shape: along the upper edge and back along the lower one."""
    there = list(range(1, len(curve.mean) + 1))
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*there, *reversed(there)],
        "y": [max(value, 0.005) for value in (*curve.high, *reversed(curve.low))],
        "fill": "toself",
        "fillcolor": colour,
        "opacity": 0.18,
        "line": {"width": 0, "color": colour},
        "legendgroup": name,
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _headline(result: Regret) -> str:
    name, curve = next(iter(result.curves.items()))
    held = [f"{Path(name).name} ≤ {figures(value, 6)}" for name, value in result.ceilings.items()]
    ceiling = escape(f" within {' and '.join(held)}") if held else ""
    regret = f"{curve.mean[-1]:.3f} points"
    return (
        f"<h1>edgewright: strategies on {escape(result.space)}</h1>"
        f'<p class="verdict">After {result.queries} queries <em>{escape(name)}</em> is {regret} from the best network'
        f'{ceiling}; random search is {result.curves[BASELINE].mean[-1]:.3f}.</p><p class="lead">'
        f"{inside_words(result)}. "
        f"{result.repeats} repeats, asked in "
        f"rounds of {result.round_size}, seed {result.seed}, {result.reward} budget.</p>"
    )


def _table(result: Regret) -> str:
    shown = [query for query in (10, 25, 50, 100, 200, 500) if query < result.queries] + [result.queries]
    heads = ["strategy", *(f"after {query}" for query in shown), "95 % interval", "over average", "of random's",
             "found the best", "s a search", "state corr."]  # fmt: skip
    rows = []
    for name, curve in result.curves.items():
        cells = [f"{curve.mean[query - 1]:.3f}" for query in shown]
        cells.append(f"{curve.low[-1]:.3f} to {curve.high[-1]:.3f}")
        cells.append(f"{curve.improvement:+.2f} %")
        cells.append("" if curve.over_random is None else f"{curve.over_random:.2f}")
        cells += [f"{100 * curve.best_found:.0f} %", f"{curve.seconds:.2f}"]
        cells.append("" if curve.state_correlation is None else f"{curve.state_correlation:.2f}")
        rows.append(f"<tr><th>{escape(name)}</th>" + "".join(f'<td class="num">{cell}</td>' for cell in cells))
    head = f"<th>{heads[0]}</th>" + "".join(f'<th class="num">{text}</th>' for text in heads[1:])
    body = "</tr>".join(rows) + "</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
