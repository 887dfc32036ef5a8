"""The chosen network, drawn block by block, with each block's share of the latency."""

from dataclasses import dataclass
from html import escape
from typing import Any

from edgewright.core.cost import amount, show
from edgewright.core.result import BlockShare
from edgewright.core.tensors import sides, size_text

KINDS = {
    "inverted": "inverted residual",
    "fused": "fused residual",
    "separable": "depthwise-separable",
    "basic": "basic residual",
}
HEIGHT = 132  # of the picture, units of the SVG
LONGEST = 5  # letters of a block's name below its bar; of a longer one, its number


@dataclass(frozen=True)
class Row:
    """One block, in words. kind: which colour it has."""

    name: str
    kind: str
    words: str
    share: BlockShare


def short_words(architecture: dict[str, Any]) -> list[str]:
    """An architecture in a few lines: what hovering over a candidate shows. Unknown spaces show their plain fields."""
    lines = [f"{size_text(sides(architecture['resolution']))} input"] if "resolution" in architecture else []
    for stage in architecture.get("stages", ()):
        lines.append(f"{stage.get('depth', 1)} × {_stage_words(stage)}, {stage.get('width', '?')} wide")
    if not lines:
        lines = [f"{name} {value}" for name, value in architecture.items() if isinstance(value, int | float | str)][:8]
    return lines


def _stage_words(stage: dict[str, Any], stride: int | None = None) -> str:
    kind = str(stage.get("kind", "block"))
    parts = [KINDS.get(kind, kind)]
    if "kernel" in stage:
        parts.append(f"{stage['kernel']} × {stage['kernel']}")
    if stage.get("expansion", 1) != 1:
        parts.append(f"expands × {stage['expansion']}")
    if stage.get("squeeze"):
        parts.append("squeeze-excite")
    if (stage.get("stride", 1) if stride is None else stride) != 1:
        parts.append("halves the resolution")
    return ", ".join(parts)


def rows(architecture: dict[str, Any], blocks: list[BlockShare]) -> list[Row]:
    """The blocks with their words; a block named stageN.i is the i-th of the architecture's N-th stage."""
    return [_row(architecture, block) for block in blocks]


def _row(architecture: dict[str, Any], block: BlockShare) -> Row:
    stage, _, index = block.name.removeprefix("stage").partition(".")
    stages = architecture.get("stages", ())
    if block.name.startswith("stage") and stage.isdigit() and 1 <= int(stage) <= len(stages):
        found = stages[int(stage) - 1]
        words = _stage_words(found, None if index == "0" else 1)
        return Row(f"{stage}.{int(index) + 1 if index.isdigit() else index}", str(found.get("kind")), words, block)
    if block.name == "stem":
        stride = architecture.get("stem_stride")  # a start's stem may be anything
        return Row("Stem", "end", "" if stride is None else f"3 × 3 convolution, stride {stride}", block)
    if block.name == "head":
        width = architecture.get("head_width")
        words = f"{width} wide, mean over the image, classifier" if width else "mean over the image, classifier"
        return Row("Head", "end", words, block)
    return Row(block.name, "other", "", block)


def _leaves(share: BlockShare) -> str:
    return " and ".join(map(shape_words, (share.output_shape, *share.more_outputs)))


def shape_words(shape: tuple[int, ...]) -> str:
    """(24, 14, 14) as '14 × 14 px, 24 wide'; (10,) as '10 classes'."""
    if len(shape) == 3:
        return f"{shape[1]} × {shape[2]} px, {shape[0]} wide"
    return f"{shape[0]} classes" if len(shape) == 1 else " × ".join(map(str, shape))


def picture(drawn: list[Row]) -> str:
    """An SVG strip: one bar per block, as high as its image is large (by root) and as broad as it is wide."""
    largest = max((_side(row.share.output_shape) for row in drawn), default=1.0)
    x, bars = 14.0, []
    for number, row in enumerate(drawn):
        shape = row.share.output_shape
        label = row.name if len(row.name) <= LONGEST else str(number)
        height = max(12.0, 100 * (_side(shape) / largest) ** 0.5)
        breadth = 6 + 1.6 * shape[0] ** 0.5
        top = (HEIGHT - 20 - height) / 2 + 2
        title = f"{row.name}: {row.words}; {_leaves(row.share)}; {show('latency', row.share.latency_ms)}"
        bars.append(
            f'<g><title>{escape(title)}</title><rect class="kind-{escape(row.kind)}" x="{x:.1f}" y="{top:.1f}" '
            f'width="{breadth:.1f}" height="{height:.1f}" rx="2.5"/>'
            f'<text x="{x + breadth / 2:.1f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(label)}</text></g>'
        )
        x += max(breadth, 22.0) + 7
    return (
        f'<svg class="strip" viewBox="0 0 {x:.0f} {HEIGHT}" style="max-width:{1.5 * x:.0f}px" role="img" '
        f'aria-label="The network, block by block, from the input at the left">{"".join(bars)}</svg>'
    )


def _side(shape: tuple[int, ...]) -> float:
    """Of the square that is as large as a map; 1 of what is no map."""
    return (shape[1] * shape[2]) ** 0.5 if len(shape) == 3 else 1.0


def table(drawn: list[Row]) -> str:
    """One row per block: what it is, what leaves it, its parameters, and a bar for its share of the latency."""
    total = sum(row.share.latency_ms for row in drawn) or 1.0
    most = max((row.share.latency_ms for row in drawn), default=1.0) or 1.0
    cells = [
        f'<tr><th scope="row"><i class="dot kind-{escape(row.kind)}"></i>{escape(row.name)}</th>'
        f'<td class="words">{escape(row.words)}</td>'
        f'<td class="whole">{_leaves(row.share)}<small>{_kept(row.words)}</small></td>'
        f'<td class="num wide">{amount("params", row.share.params)}</td>'
        f'<td class="bar"><span class="track"><b class="kind-{escape(row.kind)}" '
        f'style="width:{100 * row.share.latency_ms / most:.1f}%"></b></span></td>'
        f'<td class="num">{_percent(row.share.latency_ms / total)}</td></tr>'
        for row in drawn
    ]
    return (
        '<table class="blocks"><thead><tr><th>Block</th><th class="words">What it is</th><th>What leaves it</th>'
        '<th class="num wide">Parameters</th><th class="bar">Share of the latency</th><th></th></tr></thead>'
        f"<tbody>{''.join(cells)}</tbody></table>"
    )


def _kept(words: str) -> str:
    """HTML in which 5 × 5 stays on one line."""
    return escape(words).replace(" × ", "&nbsp;×&nbsp;")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.1f} %"


def legend(drawn: list[Row]) -> str:
    names = {**KINDS, "end": "stem and head", "other": "other"}
    kinds = dict.fromkeys(row.kind for row in drawn)
    return "".join(
        f'<span><i class="dot kind-{escape(kind)}"></i>{escape(names.get(kind, kind))}</span>' for kind in kinds
    )
