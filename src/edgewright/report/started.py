"""Where networks that had learned competed: who won, by how much, and what of the start is kept, part by part."""

from html import escape
from typing import Any

from edgewright.core.result import Contestant
from edgewright.report.facts import Facts
from edgewright.report.html import section

HEIGHT, GAP = 74, 4  # of the picture, units of the SVG


def contest(facts: Facts) -> str:
    """The section, where there was a contest."""
    result = facts.result
    if not result.contest:
        return ""
    best = standing(result.contest, higher=facts.decides.higher_is_better)
    winner = None if result.start is None else str(result.start["source"])
    body = _table(best, winner, facts)
    if result.start is not None:
        body += _start(result.start, result.architecture)
    return section("Who won", verdict(best, winner, facts), body)


def standing(contest: list[Contestant], *, higher: bool) -> dict[str | None, tuple[int, float | None]]:
    """Of each start, and of networks from scratch, how many finalists there were and the best figure on val; the best
    first, those without a figure last."""
    figures: dict[str | None, list[float | None]] = {}
    for one in contest:
        figures.setdefault(one.start, []).append(one.val)
    found: dict[str | None, tuple[int, float | None]] = {}
    for start, own in figures.items():
        known = [figure for figure in own if figure is not None]
        found[start] = (len(own), (max if higher else min)(known) if known else None)
    sign = -1 if higher else 1
    return dict(sorted(found.items(), key=lambda item: (item[1][1] is None, sign * (item[1][1] or 0.0))))


def verdict(best: dict[str | None, tuple[int, float | None]], winner: str | None, facts: Facts) -> str:
    """Who won, and by how much, in a sentence or two."""
    own = best.get(winner, (0, None))[1]
    others = {start: figure for start, (_, figure) in best.items() if start != winner and figure is not None}
    words = f"{'A network from scratch' if winner is None else _called(winner)} won"
    if own is not None and others:
        second, figure = next(iter(others.items()))
        unit = "points" if facts.decides.unit == "%" else facts.decides.unit
        sign = 1 if facts.decides.higher_is_better else -1
        ahead = sign * (own - figure)
        word = "ahead of" if ahead >= 0 else "behind"
        words += f", {abs(ahead):.1f} {unit} {word} {_called(second)} after their brief trainings"
    return (
        f"{words}. Figures are {facts.decides.title} on val, the best of each, after the last "
        "training that it had among the finalists."
    )


def _called(start: str | None) -> str:
    """A start in words, without the folders of this machine."""
    return "a network from scratch" if start is None else start.rstrip("/").rsplit("/", 1)[-1]


def _table(best: dict[str | None, tuple[int, float | None]], winner: str | None, facts: Facts) -> str:
    known = [figure for _, figure in best.values() if figure is not None]
    most = max(known, default=0.0) or 1.0
    rows = ""
    for start, (count, figure) in best.items():
        told = "-" if figure is None else f"{figure:.1f} {facts.decides.unit}"
        bar = 0.0 if figure is None else 100 * figure / most
        won = "won" if start == winner else ""
        rows += (
            f'<tr><th scope="row">{escape("from scratch" if start is None else _called(start))}</th>'
            f'<td class="num">{count}</td><td class="num">{escape(told)}</td>'
            f'<td class="bar"><span class="track"><b style="width:{bar:.1f}%"></b></span></td>'
            f'<td class="met">{won}</td></tr>'
        )
    head = (
        '<th>Start</th><th class="num">Finalists</th><th class="num">Best on val</th>'
        '<th class="bar"></th><th></th>'
    )  # fmt: skip
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _start(start: dict[str, Any], architecture: dict[str, Any]) -> str:
    """What is known of the winner's start, and a picture of what is kept."""
    facts = (
        ("learned", start.get("trained_on")),
        ("licence", start.get("licence")),
        ("weights, SHA-256", str(start.get("sha256", ""))[:12]),
    )
    told = "; ".join(f"{name}: {value}" for name, value in facts if value)
    parts = dict((start.get("kept") or {}).get("parts") or {})
    if not parts:
        return f"<p>{escape(told)}</p>"
    whole = sum(kept is not None for kept in parts.values())
    words = (
        f"What of it is kept: {whole} of {len(parts)} parts, from the input at the left. A frame is a part of the "
        "start; it is filled as broad as the share of channels that is handed on, and as high as that inside."
    )
    return (
        f"<p>{escape(told)}</p><p>{escape(words)}</p>{picture(parts, int(architecture.get('parts', len(parts))))}"
        '<div class="key"><span><i class="dot kept"></i>kept</span><span><i class="dot dropped"></i>left out</span>'
        '<span><i class="dot cut"></i>cut off at the end</span></div>'
    )


def picture(parts: dict[str, dict[str, float] | None], kept: int) -> str:
    """An SVG strip: a frame for each part of the start, filled by what is kept. kept: how many parts there are before
    the end that was cut off."""
    breadth = max(8.0, min(34.0, 860 / max(len(parts), 1) - GAP))
    x, drawn = 1.0, []
    for index, (name, share) in enumerate(parts.items()):
        outer, inner = (share or {}).get("stream", 0.0), (share or {}).get("inside", 0.0)
        how = "kept" if share else "dropped" if index < kept else "cut"
        said = {"kept": f"{100 * outer:.0f} % of its channels, {100 * inner:.0f} % inside", "dropped": "left out",
                "cut": "cut off at the end"}[how]  # fmt: skip
        height, width = HEIGHT * inner, breadth * outer
        drawn.append(
            f"<g><title>{escape(f'{name}: {said}')}</title>"
            f'<rect class="frame {how}" x="{x:.1f}" y="1" width="{breadth:.1f}" height="{HEIGHT}" rx="2"/>'
            f'<rect class="kept" x="{x + (breadth - width) / 2:.1f}" y="{1 + HEIGHT - height:.1f}" '
            f'width="{width:.1f}" height="{height:.1f}" rx="2"/></g>'
        )
        x += breadth + GAP
    return (
        f'<svg class="strip" viewBox="0 0 {x:.0f} {HEIGHT + 2}" style="max-width:{1.2 * x:.0f}px" role="img" '
        f'aria-label="The parts of the start, and what of each is kept">{"".join(drawn)}</svg>'
    )
