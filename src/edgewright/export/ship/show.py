"""`edgewright show`: what a file says of itself, and whether it is still the file of which that was said."""

import json
from pathlib import Path
from typing import Any, Literal

from edgewright.core.cost import show as show_cost
from edgewright.core.data import Frozen, read_json
from edgewright.core.errors import BadInput, one_line
from edgewright.core.files import sha256
from edgewright.export.ship.provenance import KEY, RECORD, WEIGHTS_KEY, weights_sha256
from edgewright.export.ship.source import load_external, opened

Kept = Literal["as recorded", "altered", "not recorded"]


class Provenance(Frozen):
    """What a file says of itself.

    kept: whether its weights (of an ONNX file), or all of its bytes (of another), are those that were recorded.
    facts: what `export` or `compress` found out of it; None for a file that neither made.   task: what was learned.
    """

    file: str
    sha256: str
    weights_sha256: str | None
    kept: Kept
    opset: int | None
    ir_version: int | None
    edgewright: str | None
    task: str | None
    facts: dict[str, Any] | None

    def text(self) -> str:
        """For people: a line for each thing that is known."""
        rows: list[tuple[str, str | None]] = [("file", self.file), ("sha-256", self.sha256)]
        if self.opset is not None:
            rows += [("format", f"ONNX, opset {self.opset}, IR {self.ir_version}"), ("weights", self.weights_sha256)]
        doubt = ": whether it was altered cannot be said" if self.kept == "not recorded" else ""
        rows += [("", f"{self.kept}{doubt}"), ("edgewright", self.edgewright), ("task", self.task)]
        try:
            rows += _told(self.facts)
        except (AttributeError, TypeError, ValueError):
            rows.append(("", "what was recorded of its making cannot be read; the file was altered"))
        return "\n".join(f"{name:<14}{value}" for name, value in rows if value)


def _told(facts: dict[str, Any] | None) -> list[tuple[str, str | None]]:
    if facts is None:
        return [("", "not made by edgewright export or compress: nothing was recorded of what it was made from")]
    winner, gate, measured = (facts.get(name) or {} for name in ("winner", "gate", "measured"))
    made = (winner.get("runtime"), winner.get("type"), facts.get("note"))
    latency, metric, share = winner.get("latency_ms"), winner.get("metric"), winner.get("top1_agreement")
    return [
        ("made for", " ".join(str(part) for part in made if part)),
        ("source", f"{facts.get('source')}, sha-256 {facts.get('source_sha256')}"),
        ("", f"weights {facts.get('source_weights_sha256')}"),
        ("latency", None if latency is None else f"{show_cost('latency', latency)}, {_how(facts, measured)}"),
        ("", None if not measured else f"{measured.get('cpu')}, threads: {measured.get('threads')}"),
        (str(gate.get("decides") or "accuracy").replace("_", " "), None if metric is None else _figures(metric, gate)),
        ("agreement", None if share is None else f"{100 * share:.2f} % of {gate.get('samples')} samples"),
        *(("output", _output(output)) for output in gate.get("outputs") or ()),
        ("versions", ", ".join(f"{name} {number}" for name, number in (facts.get("versions") or {}).items())),
    ]  # fmt: skip


def _figures(metric: float, gate: dict[str, Any]) -> str:
    unit = gate.get("unit", "%")
    return f"{metric:.2f} {unit}, source {gate.get('source_accuracy') or 0:.2f} {unit}"


def _output(told: dict[str, Any]) -> str:
    of = str(told.get("same_of", "same")).replace("_", " ")
    return (
        f"{told.get('name')}: off by {told.get('max_relative_difference'):.2g} at most, {of} {told.get('same'):.2f} %"
    )


def _how(facts: dict[str, Any], measured: dict[str, Any]) -> str:
    if facts.get("latency_of") == "law":
        return f"by the law of {facts.get('target')}, a model's figure"
    return f"median of {measured.get('runs')} runs"


def read_provenance(path: Path) -> Provenance:
    """Errors: BadInput for a file that is missing, and for a broken ONNX file or record."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    return _of_onnx(path) if path.suffix.lower() == ".onnx" else _of_record(path)


def _of_onnx(path: Path) -> Provenance:
    model = opened(path)
    load_external(model, path)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    facts = _object(texts.get(KEY), path)
    task = _object(texts.get("task"), path)
    try:
        weights, said = weights_sha256(model), texts.get(WEIGHTS_KEY)
    except Exception as error:  # NumPy's and ONNX's errors are of many kinds
        raise BadInput(f"{path}: a broken ONNX file ({one_line(error)})") from None
    return Provenance(
        file=path.name,
        sha256=sha256(path),
        weights_sha256=weights,
        kept="not recorded" if said is None else "as recorded" if said == weights else "altered",
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None),
        ir_version=model.ir_version,
        edgewright=texts.get("edgewright"),
        task=str(task.get("name")) if task else None,
        facts=facts,
    )


def _object(text: str | None, path: Path) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadInput(f"{path}: its metadata cannot be read; the file was altered")
    return found


def _of_record(path: Path) -> Provenance:
    """A file of another kind: what the record beside it says."""
    record = path.parent / RECORD
    found = read_json(record) if record.is_file() else None
    facts: dict[str, Any] = found if isinstance(found, dict) else {}
    files, used = facts.get("files"), facts.get("versions")
    said = files.get(path.name) if isinstance(files, dict) else None
    digest = sha256(path)
    return Provenance(
        file=path.name,
        sha256=digest,
        weights_sha256=None,
        kept="not recorded" if said is None else "as recorded" if said == digest else "altered",
        opset=None,
        ir_version=None,
        edgewright=used.get("edgewright") if said and isinstance(used, dict) else None,
        task=None,
        facts=facts if said else None,
    )
