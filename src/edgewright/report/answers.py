"""A network's answers, as its kind of task shows them: pictures that are data, drawn."""

from collections.abc import Sequence
from html import escape

from edgewright.report.html import Figures, plot, section
from edgewright.report.pictures import Figure, figure
from edgewright.task.pictures import Bars, Gallery, Matrix, Picture


def drawn(shown: Sequence[Picture], figures: Figures) -> str:
    """HTML of all pictures, two beside each other; plots go into `figures`."""
    parts = [_PAINTERS[picture.picture](picture, f"answers-{number}", figures) for number, picture in enumerate(shown)]
    pairs = [parts[start : start + 2] for start in range(0, len(parts), 2)]
    return "".join(f'<div class="two">{"".join(pair)}</div>' if len(pair) > 1 else pair[0] for pair in pairs)


def _draw_matrix(shown: Matrix, name: str, figures: Figures) -> str:
    return plot(figures, name, _matrix(shown), shown.title, shown.lead)


def _draw_bars(shown: Bars, name: str, figures: Figures) -> str:
    return plot(figures, name, _bars(shown), shown.title, shown.lead)


def _draw_gallery(shown: Gallery, name: str, figures: Figures) -> str:
    faces = [
        f'<figure class="{"wide" if one.wide else ""}">'
        f'<img class="example{" small" if one.small else ""}" alt="{escape(one.truth or one.said)}" '
        f'src="{escape(one.image)}"><span class="said">{escape(one.said)}</span><br>'
        f'<span class="truth">{escape(one.truth)}</span></figure>'
        for one in shown.items
    ]
    return section(shown.title, shown.lead, f'<div class="faces">{"".join(faces)}</div>')


_PAINTERS = {"matrix": _draw_matrix, "bars": _draw_bars, "gallery": _draw_gallery}


def _bars(shown: Bars) -> Figure:
    names = [_short(name, 24) for name in shown.names]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": list(shown.values),
        "y": list(range(len(names))),
        "text": [f"{value:.4g} {shown.unit}" for value in shown.values],
        "textposition": "auto",
        "marker": {"color": "$soft", "line": {"color": "$accent", "width": 0.6}},
        "hovertemplate": "%{text}<extra></extra>",
        "showlegend": False,
    }
    axis = {"tickvals": list(range(len(names))), "ticktext": names, "autorange": "reversed", "showgrid": False}
    return figure([bars], shown.unit, "", yaxis=axis, height=max(220, 22 * len(names) + 90), bargap=0.25)


def _matrix(shown: Matrix) -> Figure:
    """By the truth (rows) and by what was said (columns); mistakes stand out."""
    names = [escape(name, quote=False) for name in shown.names]  # plotly reads a little HTML in its texts
    counts = shown.counts
    totals = [max(1, sum(row)) for row in counts]
    shares = [[100 * n / total for n in row] for row, total in zip(counts, totals, strict=True)]
    few = len(names) <= 20
    # The square root makes single mistakes visible beside the diagonal.
    colour = [[share**0.5 for share in row] for row in shares]
    heat = {
        "type": "heatmap",
        "x": list(range(len(names))),
        "y": list(range(len(names))),
        "z": colour,
        "text": [[str(n) if n else "" for n in row] for row in counts],
        "customdata": [
            [f"{names[t]} called {names[p]}: {n} of {totals[t]}" for p, n in enumerate(row)]
            for t, row in enumerate(counts)
        ],
        "texttemplate": "%{text}" if few else "",
        "hovertemplate": "%{customdata}<extra></extra>",
        "colorscale": [[0, "$card"], [0.25, "$soft"], [1, "$accent"]],
        "zmin": 0,
        "zmax": 10,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
    }
    ticks = {
        "tickvals": list(range(len(names))),
        "ticktext": [_short(name) for name in shown.names],
        "showgrid": False,
    }
    if not few:
        ticks = {"showgrid": False, "showticklabels": False}
    return figure(
        [heat],
        "called",
        "truth",
        xaxis={**ticks, "constrain": "domain", "tickangle": -40 if few else 0},
        yaxis={**ticks, "autorange": "reversed"},
        height=460,
    )


def _short(name: str, longest: int = 14) -> str:
    return escape(name if len(name) <= longest else name[: longest - 1] + "…", quote=False)
