"""report.html of a compression: before and after, everything that was tried, what went, and how it learned again."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from edgewright.core.cost import KINDS, amount, show
from edgewright.core.files import write_text
from edgewright.report.html import duration, section
from edgewright.report.page import page
from edgewright.report.pictures import CHOSEN, Figure, ceiling_line, figure, scatter

WORDS: dict[str, str] = {"fp32": "float32", "int8": "int8", "bf16": "bfloat16"}
UNTRAINED = {"color": "$k4", "symbol": "x-thin-open"}
MOST_ROWS = 16  # rewrites that are shown without asking
TRIED = (
    "Every file that was made and measured, by latency and accuracy on val. Below the line are networks that were "
    "measured before they learned, to find how much must go; they have no accuracy yet."
)


def write_compression(path: Path, result: Any) -> Path:
    """Write what `job.compress` found as one HTML file that opens without a network; returns `path`."""
    figures: dict[str, Figure] = {"trade": trade(result)}
    if result.learned:
        figures["learning"] = learning(result)
    plots = {name: f'<div class="plot" id="{name}"></div>' for name in figures}
    body = "".join((
        _headline(result),
        section("Before and after", _measured_words(result), _table(result)),
        section("What was tried", TRIED, plots["trade"] + _trials(result)),
        section("How it learned again", _learning_words(result), plots["learning"]) if result.learned else "",
        section("What went", _width_words(result), _widths(result)) if result.widths or result.dropped else "",
        section("What was done", _rewrite_words(result), _rewrites(result)),
    ))  # fmt: skip
    write_text(path, page(f"edgewright: {result.task['name']}, compressed", body, figures))
    return path


def in_words(kind: str) -> str:
    """A type of numbers, for people."""
    return WORDS.get(kind, kind)


def _headline(result: Any) -> str:
    old, new = result.before, result.after
    lost = old.test - new.test
    told = f"{lost:.2f} points lost" if lost > 0 else f"{-lost:.2f} points gained" if lost < 0 else "no accuracy lost"
    latency = [show("latency", each.costs["latency"].value) for each in (old, new)]
    how = "" if new.costs["latency"].how == "measured" else " (by the target's law; nothing was measured)"
    by = result.way if result.learned else "nothing had to be trained"
    return (
        f"<h1>edgewright: {escape(str(result.task['name']))}, compressed from {escape(result.source)}</h1>"
        f'<p class="verdict">{latency[0]} before, <em>{latency[1]}</em> after{how}, {told}.</p>'
        f'<p class="lead">{escape(_asked(result))} It ships in {in_words(new.type)}'
        f"{escape(f' ({new.note})' if new.note else '')}; {escape(by)}; {duration(result.seconds)} in all. Accuracies "
        f"are on {result.task['num_test']:,} held-out test images, of the files themselves.</p>"
    )


def _asked(result: Any) -> str:
    ceilings = " and ".join(
        f"{KINDS[name].title} up to {show(name, value)}" for name, value in result.budget.ceilings().items()
    )
    points = f"{result.max_drop:g} percentage point{'' if result.max_drop == 1 else 's'}"
    return f"Asked for: {ceilings}, losing at most {points} of accuracy."


def _measured_words(result: Any) -> str:
    if result.ratio is None:
        return "By the target's law and by counting: nothing was measured there."
    share = f"{100 * result.ratio.value:.0f} %"
    low, high = (f"{100 * value:.0f}" for value in (result.ratio.low, result.ratio.high))
    return f"Measured in turns: the file takes {share} of the time ({low} to {high} %, 95 %)."


def _table(result: Any) -> str:
    old, new = result.before, result.after
    rows = [
        ("accuracy on test", f"{old.test:.2f} %", f"{new.test:.2f} %", "",
         f"{new.test - old.test:+.2f}"),
        ("accuracy on val", f"{old.val:.2f} %", f"{new.val:.2f} %", "",
         f"{new.val - old.val:+.2f}"),
    ]  # fmt: skip
    ceilings = result.budget.ceilings()
    for name, kind in KINDS.items():
        if name in old.costs and name in new.costs:
            was, is_ = old.costs[name].value, new.costs[name].value
            first, then = (amount(name, value) for value in (was, is_))
            ceiling = amount(name, ceilings[name]) if name in ceilings else ""
            rows.append((kind.title, first, then, ceiling, f"{100 * is_ / max(was, 1e-30):.0f} %"))
    rows.append(("numbers", in_words(old.type), in_words(new.type), "", ""))
    return table(("", "before", "after", "ceiling", "change"), rows)


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Rows with a name first and numbers after."""
    head = "".join(f'<th class="num">{escape(text)}</th>' if number else f"<th>{escape(text)}</th>"
                   for number, text in enumerate(heads))  # fmt: skip
    body = "".join(
        f"<tr><th>{escape(name)}</th>" + "".join(f'<td class="num">{escape(cell)}</td>' for cell in cells) + "</tr>"
        for name, *cells in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def trade(result: Any) -> Figure:
    """Accuracy on val against latency, of all that has learned; the rest along the bottom."""
    known = [trial for trial in result.trials if trial.figure is not None]
    floor = result.before.val - result.max_drop
    low = min([floor, *(trial.figure for trial in known)])
    span = max(1.0, max(trial.figure for trial in known) - low)
    groups = (
        ("tried", [t for t in known if t.verdict not in ("handed out", known[0].verdict)], {"color": "$muted"}),
        (
            "not trained yet",
            [t for t in result.trials if t.figure is None],
            UNTRAINED,
        ),
        ("as it was", known[:1], {"color": "$accent"}),
        ("handed out", [t for t in known if t.verdict == "handed out"], CHOSEN),
    )
    traces = []
    for name, some, marker in groups:
        if some:
            y = [low - 0.15 * span if trial.figure is None else trial.figure for trial in some]
            x = [trial.latency_ms for trial in some]
            traces.append(scatter(name, x, y, [_hover(trial) for trial in some], {"size": 10, **marker}))
    drawn = ceiling_line(result.budget.ceilings().get("latency"))
    allowed = {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": floor, "y1": floor,
               "line": {"color": "$bad", "width": 1.5, "dash": "dot"}}  # fmt: skip
    note = {"x": 0, "xref": "paper", "y": floor, "text": "allowed", "showarrow": False, "xanchor": "left",
            "yanchor": "top", "font": {"color": "$bad"}}  # fmt: skip
    shapes, notes = [*drawn.pop("shapes", []), allowed], [*drawn.pop("annotations", []), note]
    axis = {"rangemode": "tozero"}
    return figure(traces, "latency, ms", "accuracy on val, %", shapes=shapes, annotations=notes, xaxis=axis)


def _hover(trial: Any) -> str:
    figure = "not trained" if trial.figure is None else f"{trial.figure:.2f} %"
    took, size = show("latency", trial.latency_ms), show("size", trial.costs["size"].value)
    return f"<b>{escape(trial.name, quote=False)}</b><br>{took}, {figure}, {size}, {trial.type}"


def _trials(result: Any) -> str:
    rows = [
        (trial.name, in_words(trial.type), show("latency", trial.latency_ms),
         show("size", trial.costs["size"].value), amount("macs", trial.costs["macs"].value),
         "-" if trial.figure is None else f"{trial.figure:.2f} %", trial.verdict)
        for trial in result.trials
    ]  # fmt: skip
    inner = table(("", "numbers", "latency", "size", "MACs", "val", ""), rows)
    remarks = "".join(f"<p>{escape(remark)}.</p>" for remark in result.remarks)
    return f"<details><summary>all {len(rows)}, with why</summary>{inner}{remarks}</details>"


def _learning_words(result: Any) -> str:
    last = result.learned[-1].trained
    short = " in bfloat16" if last.history and last.history[-1].precision == "bfloat16" else ""
    several = " Ways were tried briefly first, and the best on val went on." if len(result.learned) > 1 else ""
    return (
        f"The network as it was taught what was left of it: {last.steps:,} steps{short}, {last.epochs:.1f} epochs, "
        f"{duration(last.seconds)}. Accuracy is on val, of the running average of the weights.{several}"
    )


def learning(result: Any) -> Figure:
    """Val accuracy over epochs of every training, and what there was before."""
    traces = []
    for number, one in enumerate(result.learned):
        looks = one.trained.looks
        traces.append({
            "type": "scatter",
            "mode": "lines+markers",
            "name": f"{one.name}, brief" if one.trial else one.name,
            "x": [record.epoch for record in looks],
            "y": [record.val.value for record in looks if record.val],
            "line": {"color": "$k3" if not one.trial else f"$k{(1, 2, 4)[number % 3]}", "width": 1 if one.trial else 2},
            "hovertemplate": "epoch %{x}: %{y:.2f} %<extra></extra>",
        })  # fmt: skip
    before = result.before.val
    line = {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": before, "y1": before,
            "line": {"color": "$muted", "width": 1, "dash": "dot"}}  # fmt: skip
    note = {"x": 0, "xref": "paper", "y": before, "text": "before", "showarrow": False, "xanchor": "left",
            "yanchor": "bottom", "font": {"color": "$muted"}}  # fmt: skip
    return figure(traces, "epochs", "val accuracy, %", shapes=[line], annotations=[note], height=320)


def _width_words(result: Any) -> str:
    was, is_ = (sum(getattr(row, name) for row in result.widths) for name in ("before", "after"))
    who = f"{len(result.widths)} layers, and what reads them, have" if len(result.widths) > 1 else \
        "1 layer, and what reads it, has"  # fmt: skip
    layers = f"{who} {is_:,} of {was:,} channels left."
    blocks = f"Whole blocks that went: {', '.join(result.dropped)}."
    return " ".join(filter(None, [layers * bool(result.widths), blocks * bool(result.dropped)]))


def _widths(result: Any) -> str:
    if not result.widths:
        return ""
    most = max(row.before for row in result.widths)
    rows = "".join(
        f'<tr><th>{escape(row.layer)}</th><td class="num">{row.before}</td><td class="num">{row.after}</td>'
        f'<td class="bar"><span class="track" style="width:{max(4.0, 100 * row.before / most):.1f}%" '
        f'title="{100 * row.after / row.before:.0f} %"><b style="width:{100 * row.after / row.before:.1f}%"></b></span>'
        "</td></tr>"
        for row in result.widths
    )
    head = '<th>layer</th><th class="num">before</th><th class="num">after</th><th class="bar">what is left</th>'
    return folded(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>", len(result.widths), "layers")


def folded(inner: str, count: int, what: str) -> str:
    """A table to scroll in, behind a word to click where it is long."""
    inner = f'<div class="scroll">{inner}</div>'
    return inner if count <= MOST_ROWS else f"<details><summary>all {count} {what}</summary>{inner}</details>"


def _rewrite_words(result: Any) -> str:
    parity = result.export
    return (
        f"{len(result.rewrites)} rewrites, in this order; exact ones were checked as they were made. The file gives "
        f"the network's own answer on {parity.same:.4g} % of {parity.samples} images."
    )


def _rewrites(result: Any) -> str:
    text = escape("\n".join(" ".join(line.split()) for line in result.rewrites))
    return f"<details><summary>all {len(result.rewrites)}</summary><pre>{text}</pre></details>"
