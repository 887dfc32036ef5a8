"""report.html of an adaptation: what learned and how, what that kept, and what came of it."""

import itertools
from html import escape
from pathlib import Path
from typing import Any

from edgewright.backward.training_plan import LayerPlan, TrainingPlan, said
from edgewright.core.files import write_text
from edgewright.report.html import duration, section
from edgewright.report.page import page
from edgewright.report.pictures import Figure, figure

MB = 2**20
TRADE_WORDS = (
    "The share of all measured contributions that the best plan for a memory budget holds. Contributions are of first "
    "order: they add up only roughly."
)
NAMES = {
    "full": "in full",
    "bias": "shift or bias alone",
    "frozen": "frozen",
    "mask": "one bit an element",
    "plain": "as PyTorch keeps it",
}


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
        section("What learned, and how", _plan_words(plan), _table(plan)),
    ))  # fmt: skip
    write_text(path, page(f"edgewright: {result.task['name']}, adapted", body, figures))
    return path


def _headline(result: Any) -> str:
    plan: TrainingPlan = result.training
    share = 100 * plan.memory_bytes / max(1, plan.full_memory_bytes)
    old = (
        f"On the old task it went from {result.old_task.before:.1f} to {result.old_task.after:.1f} %."
        if result.old_task
        else f"The old task was not measured: {result.old_task_missing}."
    )
    before = "with a new head alone" if result.new_head else "before"
    budget = "" if plan.budget.memory_bytes is None else f" of the {said(plan.budget.memory_bytes)} allowed"
    return (
        f"<h1>edgewright: {escape(str(result.task['name']))}, adapted from {escape(result.source)}</h1>"
        f'<p class="verdict">{result.accuracy.before:.1f} % {before}, <em>{result.accuracy.after:.1f} %</em> after, '
        f"with {said(plan.memory_bytes)}{budget}.</p>"
        f'<p class="lead">{escape(old)} A step of {plan.batch[0]} images kept {share:.1f} % of the memory of full '
        f"fine-tuning ({said(plan.full_memory_bytes)}) and took {100 * plan.macs / max(1, plan.full_macs):.0f} % of "
        f"its multiply-adds; {result.tuned.steps:,} steps, {result.tuned.epochs:.1f} epochs, "
        f"{duration(result.seconds)} in all. Accuracies are on {result.task['num_test']:,} held-out test images.</p>"
    )


def _learning_words(result: Any) -> str:
    ended = f" It ended early: {result.tuned.stopped}." if result.tuned.stopped else ""
    return f"Accuracy on val, images kept apart for choosing; the weights of the best look are kept.{ended}"


def _step_words(plan: TrainingPlan) -> str:
    return (
        f"Layer by layer, forward and back, what is held for the backward pass: {said(plan.stored_bytes)} at most; "
        f"gradients of what learns take {said(plan.gradient_bytes)} more, the optimizer {said(plan.state_bytes)}. "
        f"Full fine-tuning would hold {said(plan.full_stored_bytes)}."
    )


def memory_over_a_step(plan: TrainingPlan) -> Figure:
    """What autograd holds, and the gradients that have come, along the forward and the backward pass."""
    stored = [row.stored_bytes for row in plan.layers]
    gradients = [4 * row.learns for row in plan.layers]
    forward = list(itertools.accumulate(stored))
    held = [*forward, *reversed([total - own for total, own in zip(forward, stored, strict=True)])]
    arrived = [0] * len(stored) + list(itertools.accumulate(reversed(gradients)))
    names = [row.layer for row in plan.layers]
    hover = [*(f"forward, {name}" for name in names), *(f"backward, {name}" for name in reversed(names))]
    traces = [
        _area("stored", [bytes_ / MB for bytes_ in held], hover, "$k1"),
        _area("gradients", [bytes_ / MB for bytes_ in arrived], hover, "$k2"),
        _area("optimizer", [plan.state_bytes / MB] * len(held), hover, "$k0"),
    ]
    middle = {"type": "line", "x0": len(stored) - 0.5, "x1": len(stored) - 0.5, "y0": 0, "y1": 1, "yref": "paper",
              "line": {"color": "$muted", "width": 1, "dash": "dot"}}  # fmt: skip
    ticks = {"tickvals": [len(stored) / 2, 1.5 * len(stored)], "ticktext": ["forward", "backward"]}
    return figure(traces, "", "MB", shapes=[middle], xaxis=ticks, height=340)


def _area(name: str, y: list[float], hover: list[str], colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "stackgroup": "one",
        "x": list(range(len(y))),
        "y": y,
        "text": hover,
        "line": {"color": colour, "width": 1, "shape": "hv"},
        "hovertemplate": f"%{{text}}<br>{name}: %{{y:.3f}} MB<extra></extra>",
    }


def trade_curve(plan: TrainingPlan) -> Figure | None:
    """Contribution over memory, the plan's own point marked."""
    if len(plan.curve) < 2:
        return None
    own = sum(row.share or 0.0 for row in plan.layers)
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "best for a budget",
        "x": [max(point.memory_bytes, 1) / MB for point in plan.curve],
        "y": [100 * point.share for point in plan.curve],
        "line": {"color": "$k1", "width": 2},
        "hovertemplate": "%{x:.3f} MB: %{y:.0f} %<extra></extra>",
    }
    mark = {
        "type": "scatter",
        "mode": "markers",
        "name": "this plan",
        "x": [plan.memory_bytes / MB],
        "y": [100 * own],
        "marker": {"color": "$k2", "size": 12, "symbol": "diamond"},
        "hovertemplate": "this plan, %{x:.3f} MB: %{y:.0f} %<extra></extra>",
    }
    return figure(
        [line, mark],
        "memory of a step, MB",
        "contribution, %",
        xaxis={"type": "log", "exponentformat": "none"},
        height=340,
    )


def learning(result: Any) -> Figure:
    """Val accuracy over steps."""
    looks = result.tuned.history
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "val",
        "x": [look.step for look in looks],
        "y": [look.val_accuracy for look in looks],
        "line": {"color": "$k3", "width": 2},
        "hovertemplate": "step %{x}: %{y:.2f} %<extra></extra>",
    }
    return figure([trace], "steps", "val accuracy, %", height=320)


def _plan_words(plan: TrainingPlan) -> str:
    learns = sum(bool(row.learns) for row in plan.layers)
    frozen = sum(row.kind != "activation" and not row.learns for row in plan.layers)
    return f"{learns} layers learn, {frozen} are frozen. Bytes and multiply-adds are of a batch of {plan.batch[0]}."


def _table(plan: TrainingPlan) -> str:
    heads = ("method", "numbers that learn", "stored", "M MACs forward", "M MACs backward", "contribution")
    head = "<th>layer</th>" + "".join(f'<th class="num">{text}</th>' for text in heads)
    body = "".join(_row(row) for row in plan.layers if row.learns)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(row: LayerPlan) -> str:
    cells = (
        NAMES.get(row.method, row.method),
        f"{row.learns:,}",
        said(row.stored_bytes),
        f"{row.forward_macs / 1e6:.2f}",
        f"{row.backward_macs / 1e6:.2f}",
        "" if row.share is None else f"{100 * row.share:.1f} %",
    )
    return (
        f"<tr><th>{escape(row.layer)}</th>"
        + "".join(f'<td class="num">{escape(cell)}</td>' for cell in cells)
        + "</tr>"
    )
