"""report.html: what was asked, what came out, and why; one file that opens without a network."""

import shlex
import time
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from edgewright.core.cost import KINDS, Cost, amount, show
from edgewright.core.files import write_text
from edgewright.core.metric import Score
from edgewright.core.run import RunFolder
from edgewright.core.tensors import sides
from edgewright.report import network, pictures
from edgewright.report.answers import drawn
from edgewright.report.facts import Facts, gather
from edgewright.report.html import Figures, differences, duration, interval, plot, section, unbroken
from edgewright.report.page import page
from edgewright.report.started import contest
from edgewright.task.assemble import without_folders

STAGES = {
    "prepare": ("preparing: data and latency table", "--k0"),
    "search": ("scoring candidates", "--k1"),
    "measure": ("measuring the best", "--k4"),
    "finalists": ("training finalists briefly", "--k3"),
    "train": ("training the chosen network", "--k2"),
    "deploy": ("exporting and measuring", "--bad"),
    "report": ("writing this report", "--muted"),
}
HOW = {
    "measured": "measured",
    "table": "predicted from a table",
    "law": "by the device's law",
    "analytic": "counted",
    "given": "as the device's file says",
}


def write_report(run: RunFolder) -> Path:
    """Write report.html of a finished run, whole, and return its path.

    Errors: BadInput where the folder holds no finished run.
    """
    began = time.monotonic()
    facts = gather(run)
    figures: Figures = {}
    parts = [
        headline(facts),
        budget_table(facts),
        contest(facts),
        pareto(facts, figures),
        beside_random(facts),
        chosen_network(facts),
        plot(figures, "curves", pictures.learning_curves(facts), "How it learned", learning_words(facts)),
        drawn(facts.pictures.pictures, figures),
        '<div class="two">' + latency(facts, figures) + prediction(facts, figures) + "</div>",
        stage_times(facts, time.monotonic() - began),
        environment(facts),
        repeat(facts),
    ]  # fmt: skip
    write_text(
        run.report, page(f"edgewright: {facts.result.task.get('name', facts.plan.task)}", "".join(parts), figures)
    )
    return run.report


def _figure(score: Score) -> str:
    """The figure in the verdict: accuracy is what everybody expects, others are named."""
    named = "" if score.name == "accuracy" else f" {score.title}"
    return f"{score.value:.1f} {score.unit}{named}"


def learning_words(facts: Facts) -> str:
    short = any(epoch.get("precision") == "bfloat16" for epoch in facts.epochs)
    name = facts.decides.title.capitalize()
    words = f"{name} is of the running average of the weights, on samples kept apart for choosing (val)."
    return words + " While it learned, its layers computed in bfloat16, which is quicker here." * short


def headline(facts: Facts) -> str:
    """The verdict in one sentence, and what was asked in another."""
    result = facts.result
    ceilings = result.budget.ceilings()
    broken = result.budget.broken(result.costs)
    limits = " and ".join(f"{show(name, ceiling)}{KINDS[name].of}" for name, ceiling in ceilings.items())
    came = f"{_figure(facts.decides)} on held-out test samples"
    if latency := result.costs.get("latency"):
        came += f" in {show('latency', latency.value)}{_latency_of(result.device, latency)[0]}"
    verdict = f"<em class='no'>missed</em> ({escape('; '.join(broken))})" if broken else "<em>met</em>"
    count = int(result.task.get("num_test", 0))
    sure = ""
    if count and facts.decides.name == "accuracy":
        low, high = interval(facts.decides.value, count)
        sure = f"; with {count:,} test samples the true figure is between {low:.1f} and {high:.1f} % (95 %)"
    beside = [name for name in result.metrics.test if name != facts.decides.name]
    others = "".join(f" {name.replace('_', ' ').capitalize()}: {result.metrics.test[name]:.1f}." for name in beside)
    device = result.device.get("cpu", result.device.get("name", "the device"))
    threads = result.device.get("threads", 1)
    there = f"on {device}, {threads} thread{'s' if threads != 1 else ''}"
    if number := result.device.get("type"):  # a board: nothing ran there
        there = f"for {result.device.get('name', device)} in {number}"
    lead = (
        f"{result.search.evaluated:,} networks were considered for {result.task.get('name', facts.plan.task)}, "
        f"{there}, batch 1{sure}.{others}"
    )
    return (
        f"<h1>edgewright: {escape(str(result.task.get('name', facts.plan.task)))}</h1>"
        f'<p class="verdict">{unbroken(came)}; budget {unbroken(limits)}: {verdict}.</p>'
        f'<p class="lead">{escape(lead)}</p>'
    )


def _latency_of(device: Mapping[str, Any], latency: Cost) -> tuple[str, str]:
    """Whose latency it is, where it is not the device's own measured one: in the verdict, and in the table."""
    if latency.how not in ("measured", "table"):  # version 0.1 called what its law said analytic
        return " by the device's law", "; nothing was measured there"
    if device.get("latency_of") == "this machine":
        return " on this machine", f" on this machine; how fast {device.get('name', 'the device')} is, nobody has said"
    return "", ""


def budget_table(facts: Facts) -> str:
    """One row per cost; those with a ceiling first."""
    costs = facts.result.costs
    ceilings: dict[str, float] = {**facts.result.budget.ceilings()}
    order = [*ceilings, *(name for name in costs if name not in ceilings)]
    remarks = {"peak_memory": _held(facts.result.runtime_peak_bytes)}
    if "latency" in costs:
        remarks["latency"] = _latency_of(facts.result.device, costs["latency"])[1]
    if number := facts.result.device.get("type"):  # a board, which gets a file of its own type
        remarks["size"] = remarks["peak_memory"] = f" in {number}, as it will be shipped"
    converted = ""
    if number not in (None, "fp32"):
        name = facts.result.device.get("name", "the board")
        converted = (
            f" It is float32; `edgewright export --for {name} --choose` makes it {number} and says what that loses."
        )
    rows = "".join(
        _budget_row(name, costs[name], ceilings.get(name), remarks.get(name, "")) for name in order if name in costs
    )
    head = (
        '<th>Cost</th><th class="num">Value</th><th class="num">Ceiling</th>'
        '<th class="bar">Share used</th><th></th><th class="wide">How it was obtained</th>'
    )
    export = facts.result.export
    lead = (
        f"Checked on the exported file itself, whose answers are the trained network's on {export.same:.4g} % of "
        f"{export.samples} samples ({differences(export)}).{converted}"
    )
    refused = "".join(
        f'<p class="warn">Finalist {escape(key[:8])} was refused: {escape("; ".join(why))}.</p>'
        for key, why in facts.refused.items()
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{refused}"
    return section("Does it fit?", lead, table)


def _held(runtime_peak: int | None) -> str:
    """What the runtime took where the plan says what is needed: it keeps some tensors longer, and in two layouts."""
    return "" if runtime_peak is None else f"; the runtime held {show('peak_memory', runtime_peak)}"


def _budget_row(name: str, cost: Cost, ceiling: float | None, remark: str = "") -> str:
    value, how = amount(name, cost.value), HOW[cost.how]
    cells = f'<th scope="row">{KINDS[name].title.capitalize()}</th><td class="num">{value}</td>'
    if ceiling is None:
        cells += '<td class="num">-</td><td class="bar"></td><td></td>'
    else:
        share = cost.value / ceiling
        style = f'class="{"over" if share > 1 else ""}" style="width:{min(100, 100 * share):.1f}%"'
        verdict = '<td class="broken">broken</td>' if share > 1 else '<td class="met">met</td>'
        cells += (
            f'<td class="num">{amount(name, ceiling)}</td>'
            f'<td class="bar"><span class="track" title="{100 * share:.0f} %"><b {style}></b></span></td>{verdict}'
        )
    return f'<tr>{cells}<td class="wide">{escape(how + remark)}</td></tr>'


def pareto(facts: Facts, figures: Figures) -> str:
    score, figure = pictures.pareto_by_score(facts), pictures.pareto_by_figure(facts)
    views = [
        (name, title, figure)
        for name, title, figure in (
            ("by-score", "all, by score", score),
            ("by-figure", f"finalists, by {facts.decides.title}", figure),
        )
        if figure is not None
    ]
    if not views:
        return ""
    figures.update({name: figure for name, _, figure in views})
    buttons = "".join(
        f'<button type="button" data-plot="{name}" aria-pressed="{"false" if index else "true"}">{title}</button>'
        for index, (name, title, _) in enumerate(views)
    )
    tabs = f'<div class="tabs" role="group" aria-label="What is shown">{buttons}</div>' if len(views) > 1 else ""
    plots = "".join(
        f'<div class="plot" id="{name}"{" hidden" if index else ""}></div>' for index, (name, _, _) in enumerate(views)
    )
    search = facts.result.search
    lead = (
        f"{search.evaluated:,} candidates, scored untrained at {search.networks_per_second:.1f} a second; point at one "
        "to see the network. Up and to the left is better. Figures of finalists are those of their brief training."
    )
    return section("What could have been", lead, tabs + plots)


def beside_random(facts: Facts) -> str:
    """What the search was worth, where random networks were trained beside its choice."""
    found = facts.result.random
    if found is None:
        return ""
    lead = (
        f"The search's first choice, trained as briefly as each of them: {found.text(facts.decides.unit)}. Figures are "
        f"{facts.decides.title} on val, which had no part in that choice."
    )
    return section("Was the search worth it?", lead, "")


def chosen_network(facts: Facts) -> str:
    drawn = network.rows(facts.result.architecture, facts.result.blocks)
    if not drawn:
        return ""
    resolution = facts.result.architecture.get("resolution")
    source = "The image enters at {} × {} px. ".format(*sides(resolution)) if resolution else ""
    lead = source + "Each bar is as high as its image is large and as broad as it has channels (by their roots)."
    body = (
        f'{network.picture(drawn)}<div class="key">{network.legend(drawn)}</div>'
        f'<div class="scroll">{network.table(drawn)}</div>'
    )
    return section("The chosen network", lead, body)


def latency(facts: Facts, figures: Figures) -> str:
    noise = facts.result.latency_noise
    lead = (
        f"{noise.runs:,} runs of the exported file, in turn with a fixed reference network "
        f"({show('latency', noise.reference_ms)}, which drifted by {100 * noise.reference_drift:.1f} %)."
    )
    if noise.noisy:
        lead += " More than 5 %: the machine was not quiet, so measure again with edgewright bench."
    return plot(figures, "latency", pictures.latency_distribution(facts), "How long one image takes", lead)


WELL = 0.1  # median error up to which a latency is well predicted


def prediction(facts: Facts, figures: Figures) -> str:
    check = facts.result.latency_check
    lead = ""
    if check is not None:
        rank = "" if check.rank_correlation is None else f", rank correlation {check.rank_correlation:.2f}"
        number = f"{check.networks} network{'s' if check.networks != 1 else ''}"
        lead = f"{number}: median error {100 * check.median_error:.1f} %{rank}."
        if check.median_error > WELL:
            lead += (
                f" That is more than {100 * WELL:.0f} %: finalists were chosen by what the measured ones took, and "
                "what ships was measured itself."
            )
    figure = pictures.predicted_and_measured(facts)
    return plot(figures, "predicted", figure, "Was the latency predicted well?", lead)


def stage_times(facts: Facts, report_seconds: float = 0.0) -> str:
    """`report_seconds`: what this report took so far; only writing it to the disk is not in it."""
    every = {**facts.result.seconds, "report": facts.result.seconds.get("report", 0.0) + report_seconds}
    seconds = {name: value for name, value in every.items() if value > 0}
    total = sum(seconds.values())
    if not total:
        return ""
    names = [name for name in STAGES if name in seconds] + [name for name in seconds if name not in STAGES]
    bars, items = "", ""
    for name in names:
        words, colour = STAGES.get(name, (name, "--k0"))
        words, took = escape(words), duration(seconds[name])
        bars += f'<span title="{words}: {took}" style="flex:{seconds[name]:.4g};background:var({colour})"></span>'
        items += f'<li><i class="dot" style="background:var({colour})"></i>{words}<b>{took}</b></li>'
    asked = f" of the {facts.plan.minutes:g} min allowed" if facts.plan.minutes else ""
    body = f'<div class="stack" role="img" aria-label="Time by stage">{bars}</div><ul class="stages">{items}</ul>'
    return section("Where the time went", f"{duration(total)} in all{asked}.", body)


def environment(facts: Facts) -> str:
    given = {**facts.result.device, **{k: v for k, v in facts.environment.items() if k != "versions"}}
    versions = ", ".join(f"{name} {number}" for name, number in facts.result.versions.items())
    rows = {**given, "versions": versions, "seed": facts.result.seed}
    body = "".join(
        f"<dt>{escape(str(name).replace('_', ' '))}</dt><dd>{escape(str(value))}</dd>" for name, value in rows.items()
    )
    return section("What it ran on", "", f"<dl>{body}</dl>")


def repeat(facts: Facts) -> str:
    """The command that does it all again, from the plan beside this file."""
    folder = shlex.quote(facts.folder)
    plan_file, again = shlex.quote(f"{facts.folder}/plan.yaml"), shlex.quote(f"{facts.folder}-again")
    command = f"edgewright design --config {plan_file} --out {again}"
    if facts.plan.task == "dataset":
        command = f"edgewright.design(your_dataset, budget=edgewright.Budget({_budget_words(facts)}), out='again')"
    measure = f"edgewright bench {folder}\nedgewright predict {folder} IMAGE_OR_FOLDER"
    plan = escape(facts.plan.model_copy(update={"task": without_folders(facts.plan.task)}).to_json())
    lead = (
        "The same plan and seed give the same candidates and scores; times differ with the machine. From the folder "
        f"that holds {facts.folder}:"
    )
    return section(
        "To repeat it",
        lead,
        f"<pre>{escape(command)}</pre><p>To measure the model again on another machine, or to use it:</p>"
        f"<pre>{escape(measure)}</pre><details><summary>The plan in full</summary><pre>{plan}</pre></details>",
    )


def _budget_words(facts: Facts) -> str:
    asked = facts.result.budget.model_dump(exclude_none=True)
    return ", ".join(f"{name}={int(value) if value == int(value) else value}" for name, value in asked.items())
