"""report.html of an adaptation: what learned and how, what that kept, and what came of it."""

import itertools
import re
from html import escape
from pathlib import Path
from typing import Any

from edgewright.backward.plans.training_plan import LayerPlan, TrainingPlan, held_of, said
from edgewright.core.cost import figures
from edgewright.core.files import write_text
from edgewright.report.html import duration, section
from edgewright.report.page import page
from edgewright.report.pictures import Figure, figure

UNITS = ((2**20, "MB"), (2**10, "KB"), (1, "bytes"))
MOST_ROWS = 16  # layers that are shown without asking
TRADE_WORDS = (
    "The share of all measured contributions that the best plan for a memory budget holds. Contributions are of first "
    "order: they add up only roughly."
)
WORDS = {
    r"full": "all its parameters, by exact gradients",
    r"bias": "bias or shift alone",
    r"slice-(\d+)": "1/{0} of its weights",
    r"filter-(\d+)": "gradients averaged over patches of {0} x {0}",
    r"filter-(\d+)w": "its own gradient averaged over patches of {0} x {0}, the one passed on exact",
    r"wht-(\d+)": "gradients in {0} Walsh bases",
    r"wht-(\d+)w": "its own gradient in {0} Walsh bases, the one passed on exact",
}


def in_words(method: str) -> str:
    """What a method does, for those who do not know its name."""
    for pattern, words in WORDS.items():
        if found := re.fullmatch(pattern, method):
            return words.format(*found.groups())
    return method


def unit_for(most: float) -> tuple[int, str]:
    """The unit in which the largest of some byte counts is a number to read."""
    return next(((size, name) for size, name in UNITS if most >= size), UNITS[-1])


def write_adaptation(path: Path, result: Any) -> Path:
    """Write what `job.adapt` found as one HTML file that opens without a network; returns `path`."""
    plan: TrainingPlan = result.training
    figures: dict[str, Figure] = {"step": memory_over_a_step(plan), "learning": learning(result)}
    trade = trade_curve(plan)
    if trade is not None:
        figures["trade"] = trade
    plots = {name: f'<div class="plot" id="{name}"></div>' for name in figures}
    body = "".join((
        _headline(result),
        section("How it learned", _learning_words(result), plots["learning"]),
        section("The memory of a training step", _step_words(plan), plots["step"]),
        section("What another budget would buy", TRADE_WORDS, plots["trade"]) if trade else "",
        section("What learned, and how", _plan_words(plan), _methods(plan)),
        section("Layer by layer", "In running order; frozen layers are left out.", _table(plan)),
    ))  # fmt: skip
    write_text(path, page(f"edgewright: {result.task['name']}, adapted", body, figures))
    return path


def _headline(result: Any) -> str:
    plan: TrainingPlan = result.training
    share = 100 * plan.memory_bytes / max(1, plan.full_memory_bytes)
    work = 100 * plan.macs / max(1, plan.full_macs)
    old = (
        f"On the old task it went from {result.old_task.before:.1f} to {result.old_task.after:.1f} %."
        if result.old_task
        else f"The old task was not measured: {result.old_task_missing}."
    )
    before = "with a new head alone" if result.new_head else "before"
    worse = ' class="no"' if result.figure.after < result.figure.before else ""
    budget = "" if plan.budget.memory_bytes is None else f" of the {said(plan.budget.memory_bytes)} allowed"
    return (
        f"<h1>edgewright: {escape(str(result.task['name']))}, adapted from {escape(result.source)}</h1>"
        f'<p class="verdict">{result.figure.before:.1f} % {before}, '
        f"<em{worse}>{result.figure.after:.1f} %</em> after, with {said(plan.memory_bytes)}{budget}.</p>"
        f'<p class="lead">{escape(old)} A step on {plan.batch[0]} images{held_of(plan)} kept {share:.1f} % of the '
        f"memory of full fine-tuning ({said(plan.full_memory_bytes)}) and took {work:.0f} % of its multiply-adds; "
        f"{result.tuned.steps:,} steps, {result.tuned.epochs:.1f} epochs, {duration(result.seconds)} in all. "
        f"Accuracies are on {result.task['num_test']:,} held-out test images.</p>"
    )


def _learning_words(result: Any) -> str:
    ended = f" It ended early: {result.tuned.stopped}." if result.tuned.stopped else ""
    return f"Accuracy on val, images kept apart for choosing; the weights of the best look are kept.{ended}"


def _step_words(plan: TrainingPlan) -> str:
    return (
        f"Layer by layer, forward and back, what is held for the backward pass: {said(plan.stored_bytes)} at most; "
        f"gradients of what learns take {said(plan.gradient_bytes)} more, the optimizer {said(plan.state_bytes)}. "
        f"Full fine-tuning would hold {said(plan.full_stored_bytes)}. What functions between the layers keep is "
        "drawn as if they held it throughout. Point at a place to see its layer."
    )


def memory_over_a_step(plan: TrainingPlan) -> Figure:
    """What autograd holds, and the gradients that have come, along the forward and the backward pass."""
    stored = [row.stored_bytes for row in plan.layers]
    gradients = [4 * row.learns for row in plan.layers]
    forward = list(itertools.accumulate(stored))
    held = [*forward, *reversed([total - own for total, own in zip(forward, stored, strict=True)])]
    between = [plan.other_bytes] * len(held)
    arrived = [0] * len(stored) + list(itertools.accumulate(reversed(gradients)))
    names = [row.layer for row in plan.layers]
    size, unit = unit_for(plan.memory_bytes)
    hover = [*(f"forward, {name}" for name in names), *(f"backward, {name}" for name in reversed(names))]
    traces = [
        _area("kept by layers", [bytes_ / size for bytes_ in held], hover, "$k1", unit),
        _area("kept between layers", [bytes_ / size for bytes_ in between], hover, "$k4", unit),
        _area("gradients", [bytes_ / size for bytes_ in arrived], hover, "$k2", unit),
        _area("optimizer", [plan.state_bytes / size] * len(held), hover, "$k0", unit),
    ]
    traces = [trace for trace in traces if any(trace["y"])]
    middle = {"type": "line", "x0": len(stored) - 0.5, "x1": len(stored) - 0.5, "y0": 0, "y1": 1, "yref": "paper",
              "line": {"color": "$muted", "width": 1, "dash": "dot"}}  # fmt: skip
    ticks = {"tickvals": [len(stored) / 2, 1.5 * len(stored)], "ticktext": ["forward", "backward"], "showgrid": False}
    return figure(traces, "", unit, shapes=[middle], xaxis=ticks, height=340)


def _area(name: str, y: list[float], hover: list[str], colour: str, unit: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "stackgroup": "one",
        "x": list(range(len(y))),
        "y": y,
        "text": hover,
        "line": {"color": colour, "width": 1, "shape": "hv"},
        "hovertemplate": f"%{{text}}<br>{name}: %{{y:.4~g}} {unit}<extra></extra>",
    }


def trade_curve(plan: TrainingPlan) -> Figure | None:
    """Contribution over memory, the plan's own point marked."""
    if len(plan.curve) < 2:
        return None
    own = sum(row.share or 0.0 for row in plan.layers)
    size, unit = unit_for(max(point.memory_bytes for point in plan.curve))
    reads = f"%{{x:.4~g}} {unit}: %{{y:.0f}} %<extra></extra>"
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "best for a budget",
        "x": [max(point.memory_bytes, 1) / size for point in plan.curve],
        "y": [100 * point.share for point in plan.curve],
        "line": {"color": "$k1", "width": 2},
        "hovertemplate": reads,
    }
    mark = {
        "type": "scatter",
        "mode": "markers",
        "name": "this plan",
        "x": [plan.memory_bytes / size],
        "y": [100 * own],
        "marker": {"color": "$k2", "size": 12, "symbol": "diamond"},
        "hovertemplate": f"this plan, {reads}",
    }
    return figure(
        [line, mark],
        f"memory of a step, {unit}",
        "contribution, %",
        xaxis={"type": "log", "exponentformat": "none", "dtick": "D2"},
        height=340,
    )


def learning(result: Any) -> Figure:
    """Val accuracy over steps."""
    looks = result.tuned.looks
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "val",
        "x": [look.step for look in looks],
        "y": [look.val.value for look in looks],
        "line": {"color": "$k3", "width": 2},
        "hovertemplate": "step %{x}: %{y:.2f} %<extra></extra>",
    }
    return figure([trace], "steps", "val accuracy, %", height=320)


def _plan_words(plan: TrainingPlan) -> str:
    learns = sum(bool(row.learns) for row in plan.layers)
    frozen = sum(row.kind != "activation" and not row.learns for row in plan.layers)
    return (
        f"{learns} layers learn, {frozen} are frozen. Multiply-adds are of a batch of {plan.batch[0]}, bytes of "
        f"the {plan.held} held at a time; contribution is a layer's share of what all layers together would bring, by "
        "a few batches of the new data."
    )


def _methods(plan: TrainingPlan) -> str:
    """What each method that is used does, and how much it is used."""
    heads = ("layers", "numbers that learn", "stored", "contribution")
    head = "<th>method</th><th>what of a layer learns</th>" + "".join(f'<th class="num">{text}</th>' for text in heads)
    body = ""
    for method in dict.fromkeys(row.method for row in plan.layers if row.learns):
        rows = [row for row in plan.layers if row.learns and row.method == method]
        cells = (f"{len(rows)}", f"{sum(row.learns for row in rows):,}", said(sum(row.stored_bytes for row in rows)))
        share = None if plan.layers[0].share is None else sum(row.share or 0.0 for row in rows)
        body += f"<tr><th>{escape(method)}</th><td>{escape(in_words(method))}</td>" + _numbers(
            (*cells, _percent(share))
        )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _table(plan: TrainingPlan) -> str:
    heads = ("method", "numbers that learn", "stored", "M MACs forward", "M MACs backward", "contribution")
    head = "<th>layer</th>" + "".join(f'<th class="num">{text}</th>' for text in heads)
    rows = [row for row in plan.layers if row.learns]
    body = "".join(map(_row, rows))
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    if len(rows) <= MOST_ROWS:
        return table
    return f"<details><summary>layer by layer: {len(rows)} layers</summary>{table}</details>"


def _row(row: LayerPlan) -> str:
    cells = (
        row.method,
        f"{row.learns:,}",
        said(row.stored_bytes),
        figures(row.forward_macs / 1e6),
        figures(row.backward_macs / 1e6),
        _percent(row.share),
    )
    return f"<tr><th>{escape(row.layer)}</th>" + _numbers(cells)


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    return f"{100 * share:.1f} %" if share >= 5e-4 else "below 0.1 %"


def _numbers(cells: tuple[str, ...]) -> str:
    return "".join(f'<td class="num">{escape(cell)}</td>' for cell in cells) + "</tr>"
