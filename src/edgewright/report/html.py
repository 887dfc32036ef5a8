"""What the parts of all reports are written with: sections, plots, intervals and words for figures."""

import math
import re
from html import escape

from edgewright.core.result import Export
from edgewright.report.pictures import Figure

Figures = dict[str, Figure]


def differences(export: Export) -> str:
    """How far a file's outputs are from the network's, in words."""
    told = [f"{output.name} differs by at most {output.max_abs_difference:.1g}" for output in export.outputs]
    return ", ".join(told)


def section(title: str, lead: str, body: str) -> str:
    """`title` and `lead` are plain text, `body` is HTML."""
    words = f"<p>{escape(lead)}</p>" if lead else ""
    return f"<section><h2>{escape(title)}</h2>{words}{body}</section>"


def plot(figures: Figures, name: str, figure: Figure | None, title: str, lead: str) -> str:
    if figure is None:
        return ""
    figures[name] = figure
    return section(title, lead, f'<div class="plot" id="{name}"></div>')


def interval(percent: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` images, percent: how far the test accuracy may be chance."""
    z, p = 1.96, percent / 100
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return 100 * (middle - half), 100 * (middle + half)


def unbroken(text: str) -> str:
    """HTML in which a number and its unit stay on one line."""
    return re.sub(r"(?<=\d) (?=\S)", "&nbsp;", escape(text))


def duration(seconds: float) -> str:
    """Seconds for people: '0.4 s', '42 s', '3 min 05 s', '1 h 02 min'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
