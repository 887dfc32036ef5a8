"""The model card: what a file is, what it takes, what it was judged on and how to run it, beside the file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgewright.core.cost import show
from edgewright.core.tensors import TensorSpec, size_text
from edgewright.export.choose.candidates import Candidate
from edgewright.export.choose.choice import UNASKED, Choice
from edgewright.export.choose.samples import Samples
from edgewright.export.gates import OutputGate
from edgewright.export.ship.source import Source
from edgewright.task.base import TaskSpec, kind_of

CARD = "MODEL_CARD.md"
MOST_CLASSES = 100  # that are written out
FITTED = {"crop": "the central part of the same shape", "whole": "the whole of each"}


@dataclass(frozen=True)
class Shipment:
    """All that a card tells of. files: digest by name, the one to open first.   facts: as in `choice.json`."""

    choice: Choice
    source: Source
    samples: Samples
    files: dict[str, str]
    facts: dict[str, Any]

    @property
    def winner(self) -> Candidate:
        assert self.choice.winner is not None
        return self.choice.winner

    @property
    def spec(self) -> TaskSpec | None:
        """How images become inputs; None for data that came as arrays."""
        return self.samples.spec


def card(given: Shipment) -> str:
    """The page, in Markdown; no names of people, hosts or folders."""
    parts = [_head(given), _input(given), _output(given), _accuracy(given), _latency(given), _run(given),
             _limits(given), _provenance(given)]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _head(given: Shipment) -> str:
    winner, task = given.winner, given.source.spec
    what = f"A network that {kind_of(task).described()} (task `{task.name}`)" if task else "A network"
    note = f" {winner.built.note}." if winner.built and winner.built.note else ""
    size = winner.built.size_bytes if winner.built else 0
    names = " and ".join(f"`{name}`" for name in given.files)
    return (
        f"# {task.name if task else given.source.path.stem}, {winner.kind} for {winner.runtime.name}\n\n"
        f"{what}, made from `{given.source.path.name}`: {names}, {show('size', size)}, {winner.kind}, for "
        f"{winner.runtime.name} {winner.runtime.version()}.{note}"
    )


def _input(given: Shipment) -> str:
    shape, spec = given.source.shape, given.spec
    several = len(given.source.inputs) > 1
    told = [f"{f'`{one.name}`: ' * several}{one.dtype}, shape {one.shape}." for one in given.source.inputs]
    lines = ["One sample at a time, one array for each input, in this order:", *told] if several else [
        f"One sample at a time: {told[0]}"
    ]  # fmt: skip
    if len(shape) == 4 and not several:
        lines.append("Layout: batch, channel, row, column (NCHW).")
    if spec is None or spec.input.white == 0 or len(shape) != 4:
        lines.append("Scaling: as the network was trained; it was judged on arrays that came scaled.")
        return "## Input\n\n" + "\n".join(f"- {line}" for line in lines)
    channels = spec.input.shape[0]
    order = {1: "gray", 3: "red, green, blue", 4: "red, green, blue, alpha"}.get(channels, f"{channels}")
    high = f"{spec.input.white:g}"
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (spec.input.mean, spec.input.std))
    lows = [(0 - m) / s for m, s in zip(spec.input.mean, spec.input.std, strict=True)]
    highs = [(spec.input.white - m) / s for m, s in zip(spec.input.mean, spec.input.std, strict=True)]
    lines += [
        f"Channels: {order}.",
        f"Normalisation: (x - mean) / std, pixels x from 0 to {high}; mean {mean}; std {std}.",
        f"Values then lie between {min(lows):.3g} and {max(highs):.3g}.",
        f"Images: {FITTED[spec.input.fit]}, resized to {size_text(spec.size)} (bilinear, antialiased)"
        + (f", then to {size_text((shape[-2], shape[-1]))}." if spec.size != tuple(shape[-2:]) else "."),
    ]
    if given.samples.assumed:
        lines.append("Mean and std were assumed: ImageNet's. The network's file does not say its own.")
    return "## Input\n\n" + "\n".join(f"- {line}" for line in lines)


def _output(given: Shipment) -> str:
    lines = [f"`{one.name}`: {one.dtype}, {_form(one)}." for one in given.source.outputs]
    spec = given.source.spec
    if spec is None:
        lines.append("The file does not say what its outputs mean.")
    else:
        names = [f"{index}: {name}" for index, name in enumerate(spec.names)]
        more = f", ... {len(names) - MOST_CLASSES} more" if len(names) > MOST_CLASSES else ""
        lines.append(f"{kind_of(spec).reading()} {', '.join(names[:MOST_CLASSES])}{more}.")
    return "## Output\n\n" + "\n".join(f"- {line}" for line in lines)


def _form(one: TensorSpec) -> str:
    """The shape in words; ? for a size that varies, or that nobody knows."""
    return f"shape ({', '.join('?' if size is None else str(size) for size in one.shape)})"


def _accuracy(given: Shipment) -> str:
    gate, batch = given.winner.gate, given.winner.batch
    assert gate is not None
    lines, decides = [], gate.decides
    if decides is not None:
        margin = f" ({_margin(decides.found.value, gate.samples)})" if decides.found.name == "accuracy" else ""
        lines.append(
            f"{decides.found.title.capitalize()}: {decides.source.value:.2f} {decides.source.unit} before, "
            f"{decides.found.value:.2f} {decides.found.unit} in this file, on {gate.samples} labelled samples{margin}."
        )
    lines += [_beside(output, gate.samples) for output in gate.outputs]
    if batch is not None and batch.size > 1:
        lines.append(
            f"The same network built for {batch.size} samples at once: the same answers (largest difference "
            f"{batch.max_abs_difference:.3g})."
        )
    elif batch is not None:
        lines.append("Asked again in another order, it gives the same answers. Larger batches were not built.")
    elif given.winner.unbatched:
        lines.append(f"It was not compared in batches: {given.winner.unbatched}.")
    elif given.winner.runtime.from_onnx:
        lines.append("The network takes one sample only; it was not compared in batches.")
    counts = given.facts["samples"]
    if counts["calibration"] and given.winner.kind == "int8":
        lines.append(f"Calibrated on {counts['calibration']} other samples.")
    lines.append(f"Data: {_data(given)}. The choice was made on them: on data never used, expect a little less.")
    return "## Accuracy\n\n" + "\n".join(f"- {line}" for line in lines)


def _beside(output: OutputGate, samples: int) -> str:
    """One output beside the source's."""
    return (
        f"`{output.name}`: {output.same} over {samples} samples; largest difference {output.max_abs_difference:.3g} "
        f"where the largest value is {output.largest:.3g}; cosine {output.cosine:.6f}."
    )


def _margin(percent: float, samples: int) -> str:
    share = min(max(percent / 100, 0.0), 1.0)
    return f"standard error {100 * math.sqrt(share * (1 - share) / samples):.2f} points"


def _data(given: Shipment) -> str:
    said = str(given.facts["data"])
    if given.source.run is not None and given.facts["data_given"] is False:
        return f"the val part of the task the network learned ({said}); its test part was not looked at"
    return said


def _latency(given: Shipment) -> str:
    choice, measured = given.choice, given.facts["measured"]
    time = "by law" if choice.latency_of == "law" else "median"
    lines = [
        f"| runtime | type | {time} | 90 % | of {choice.first or 'the first'} [95 %] | size | metric | same | |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(candidate, candidate is given.winner) for candidate in choice.candidates),
    ]
    if measured is None:
        said = f"Nothing was measured on {choice.target}: " + (
            "the latency is what its target file's law says, a model's figure." if choice.latency_of == "law"
            else "how fast the file is there is not known."
        )  # fmt: skip
        return f"## Latency\n\nWhy this one: {choice.why}.\n\n" + "\n".join(lines) + f"\n\n{said}"
    quiet = "" if measured["reference_drift"] <= 0.05 else (
        f" The machine was not quiet: a reference network drifted by {100 * measured['reference_drift']:.0f} %."
    )  # fmt: skip
    return (
        f"## Latency\n\nWhy this one: {choice.why}.\n\n" + "\n".join(lines) + "\n\n"
        f"{choice.runs} runs of each in turns, one sample, {_threads(measured['threads'])}, {measured['cpu']}."
        f"{quiet} Another processor may order them otherwise."
    )


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _row(row: Candidate, won: bool) -> str:
    def cell(value: float | None, pattern: str) -> str:
        return "" if value is None else pattern.format(value)

    gate = row.gate
    said = "**chosen**" if won else "only to compare with" if row.refused == UNASKED else row.refused or ""
    cells = [
        row.runtime.name, row.kind, cell(row.latency_ms, "{:.3f} ms"), cell(row.p90_ms, "{:.3f} ms"),
        row.ratio.text() if row.ratio else "", show("size", row.built.size_bytes) if row.built else "",
        f"{gate.decides.found.value:.2f} {gate.decides.found.unit}" if gate and gate.decides else "",
        cell(gate.same if gate else None, "{:.1f} %"), said.replace("|", "/"),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _run(given: Shipment) -> str:
    winner, extra = given.winner, given.winner.runtime.library.replace("_", "-")
    made, installs = _sample(given), f"numpy {extra}"
    if given.spec is not None and "PIL" in "".join(made):
        installs += " pillow"
    code = ["import numpy as np", *made, *winner.runtime.usage(next(iter(given.files)), winner.kind)]
    row = len(given.source.outputs) == 1 and given.winner.gate and given.winner.gate.top1_agreement is not None
    code.append("print(outputs[0].argmax())" if row else "print([y.shape for y in outputs])")
    return f"## How to run it\n\n    pip install {installs}\n\n```python\n" + "\n".join(code) + "\n```"


def _sample(given: Shipment) -> Sequence[str]:
    """Lines of Python that make `inputs`: of an image file where it is known how, else of zeros."""
    shape, spec = given.source.shape, given.spec
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(spec.input.shape[0]) if spec else None
    if spec is None or mode is None or spec.input.white == 0 or len(shape) != 4 or len(given.source.inputs) > 1:
        zeros = ", ".join(f'np.zeros({one.shape}, "{one.dtype}")' for one in given.source.inputs)
        return [f"inputs = [{zeros}]  # a sample, scaled as the network takes it"]
    mean, std = (
        "[" + ", ".join(f"{255 / spec.input.white * value:.8g}" for value in values) + "]"
        for values in (spec.input.mean, spec.input.std)
    )
    again = f".resize(({shape[-1]}, {shape[-2]}), Image.BILINEAR)" if spec.size != tuple(shape[-2:]) else ""
    size = f"({spec.size[1]}, {spec.size[0]})"
    return [
        "from PIL import Image, ImageOps",
        f'image = ImageOps.fit(Image.open("photo.jpg").convert("{mode}"), {size}, Image.BILINEAR){again}',
        f"pixels = np.asarray(image, np.float32).reshape({shape[-2]}, {shape[-1]}, {spec.input.shape[0]})",
        f"inputs = [((pixels - {mean}) / {std}).transpose(2, 0, 1)[None].astype(np.float32)]",
    ]


def _limits(given: Shipment) -> str:
    winner = given.winner
    lines = ["The batch is fixed to 1."]
    if given.choice.latency_of == "measured":
        lines.append("Latency holds for the machine it was measured on.")
    else:
        lines.append(
            f"Accuracy is that of this file on another processor; {given.choice.target}'s kernels may round otherwise."
        )
    if winner.kind == "int8":
        lines.append("Inputs far outside what it was calibrated on are clipped.")
    if winner.kind == "bf16":
        lines.append("A processor without bf16 instructions computes it more slowly, or in another type.")
    lines.append("Nothing is known of inputs unlike the data above.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _provenance(given: Shipment) -> str:
    facts = given.facts
    rows = [(f"`{name}`, SHA-256", digest) for name, digest in given.files.items()]
    rows += [
        (f"source `{given.source.path.name}`, SHA-256", facts["source_sha256"]),
        ("weights of the source", facts["source_weights_sha256"]),
        *((name, number) for name, number in facts["versions"].items()),
    ]
    lines = [f"| {name} | {value} |" for name, value in rows]
    started = _started(given)
    return f"## Where it is from\n\n{started}| | |\n|---|---|\n" + "\n".join(lines) + "\n\nAll figures: `choice.json`."


def _started(given: Shipment) -> str:
    """Of which network that had learned this one was made, and what its licence is; "" from scratch."""
    start = (given.source.run.read_result().start if given.source.run is not None else None) or {}
    if not start:
        return ""
    source = str(start.get("source", ""))
    named = ":" in source and "/" not in source.partition(":")[0]
    learned = f", which learned {start['trained_on']}" if start.get("trained_on") else ""
    licence = start.get("licence") or "not known to this file; see where they are from"
    return (
        f"Made from {f'`{source}`' if named else 'the network of an earlier run'}{learned}. Licence of these weights: "
        f"{licence}. Their SHA-256: {start.get('sha256') or 'not known'}.\n\n"
    )
