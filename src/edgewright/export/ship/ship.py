"""`edgewright export`: from a run or an ONNX file to the file that is really fastest, written with its evidence."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

from edgewright.core.data import to_json
from edgewright.core.environment import versions
from edgewright.core.errors import BadInput
from edgewright.core.files import scratch, sha256, write_bytes, write_text
from edgewright.device.base import Device
from edgewright.device.resolve import make_device
from edgewright.export.choose.candidates import Candidate, Wanted
from edgewright.export.choose.choice import Choice, choose
from edgewright.export.choose.elsewhere import choose_elsewhere
from edgewright.export.choose.samples import Samples, read_samples
from edgewright.export.parity import torch_call
from edgewright.export.running import Says
from edgewright.export.runtimes.base import KINDS, Kind, Network
from edgewright.export.runtimes.resolve import make_runtimes, require_onnx
from edgewright.export.runtimes.resolve import runtimes as all_runtimes
from edgewright.export.ship.card import CARD, Shipment, card
from edgewright.export.ship.plan import ShipOptions, ShipPlan
from edgewright.export.ship.provenance import RECORD, signed, weights_sha256
from edgewright.export.ship.source import Source, read_source


@dataclass(frozen=True)
class Shipped:
    """What was chosen and where it was written. record: choice.json, the whole evidence."""

    choice: Choice
    file: Path
    record: Path

    def summary(self) -> dict[str, Any]:
        """What `export --choose --json` prints; for a board, which, and whether its law says the latencies."""
        winner = self.choice.winner
        assert winner is not None
        elsewhere = {"target": self.choice.target, "latency_of": self.choice.latency_of}
        return {
            **(elsewhere if self.choice.latency_of != "measured" else {}),
            "winner": {
                "runtime": winner.runtime.name,
                "type": winner.kind,
                "latency_ms": winner.latency_ms,
                "file": str(self.file),
            },
            "candidates": [candidate.row() for candidate in self.choice.candidates],
        }


def ship(place: str | Path, *, out: Path | None = None, **options: Unpack[ShipOptions]) -> Shipped:
    """Choose among all runtimes and types on this machine; write the winner's file, choice.json and MODEL_CARD.md.

    Args:
        place: a finished run's folder, or an ONNX file.
        out: folder for the files; default: export/ inside the run, or beside the ONNX file.
        options: any field of `ShipPlan`: data, device, max_drop, runtimes, kinds, threads, shape, mean, std, seed.
    Errors: BadInput for a source or data that cannot be used and a named runtime that is not installed; NothingFits
        where nothing keeps the drop. Nothing is written then.
    """
    asked = ShipPlan.parse(options, "export")
    where = make_device(asked.device, asked.threads)  # an unknown name lists the choices
    if asked.runtimes and Path(place).is_file():
        known = all_runtimes()
        require_onnx([known[name] for name in asked.runtimes if name in known], str(place))
    wanted = Wanted(make_runtimes(asked.runtimes), _kinds(asked.kinds))
    source = read_source(place, asked.shape)
    samples = read_samples(source, asked.data, mean=asked.mean, std=asked.std, seed=asked.seed)
    network = Network(source.model, source.module, None, samples.calibration)
    with scratch() as folder:
        chooses = choose if "measure" in where.can else choose_elsewhere
        choice = chooses(
            network,
            samples,
            folder,
            device=where,
            wanted=wanted,
            source=_torch(source),
            max_drop=asked.max_drop,
        )
        folder_out = out or (source.run.path if source.run else source.path.parent) / "export"
        facts = {"device": where, "max_drop": asked.max_drop, "data": asked.data}
        return _written(choice, source, samples, folder_out, facts)


def _kinds(names: Sequence[str] | None) -> list[Kind]:
    for name in names or ():
        if name not in KINDS:
            raise BadInput(f"unknown type '{name}'; choose from {', '.join(KINDS)}")
    return [kind for kind in KINDS if names is None or kind in names]


def _torch(source: Source) -> Says | None:
    """The run's network in PyTorch, as a function of one sample."""
    return None if source.module is None else torch_call(source.module, [spec.name for spec in source.inputs])


def _written(choice: Choice, source: Source, samples: Samples, out: Path, asked: dict[str, Any]) -> Shipped:
    """The winner's files, the one to open last, so that what is there can be opened; then the evidence."""
    winner = choice.winner
    assert winner is not None and winner.built is not None
    facts = _facts(choice, winner, source, samples, asked)
    texts = {entry.key: entry.value for entry in source.model.metadata_props}  # what quantises a model drops it
    for path in reversed(winner.built.files):
        write_bytes(out / path.name, signed(path, texts, facts))
    files = {path.name: sha256(out / path.name) for path in winner.built.files}
    file, record = out / winner.built.path.name, out / RECORD
    write_text(record, to_json({**facts, "file": file.name, "files": files, **choice.record()}) + "\n")
    write_text(out / CARD, card(Shipment(choice, source, samples, files, facts)))
    return Shipped(choice, file, record)


def _facts(
    choice: Choice, winner: Candidate, source: Source, samples: Samples, asked: dict[str, Any]
) -> dict[str, Any]:
    """What stands behind the winner: what it was made from and by, on what it was judged, how it was measured."""
    gate = winner.gate
    where: Device = asked["device"]
    assert gate is not None
    return {
        "source": source.path.name,
        "source_sha256": source.digest,
        "source_weights_sha256": weights_sha256(source.model),
        "winner": winner.row(),
        "why": choice.why,
        "gate": gate.record(),
        "batch": asdict(winner.batch) if winner.batch else None,
        "max_drop": asked["max_drop"],
        "data": samples.told,
        "data_given": asked["data"] is not None,
        "samples": {"calibration": len(samples.calibration), "comparison": len(samples.comparison)},
        "target": choice.target,
        "latency_of": choice.latency_of,
        "measured": {
            "runs": choice.runs,
            "threads": where.threads,
            "cpu": where.identity().get("cpu", where.name),
            "reference_drift": choice.drift,
        }
        if choice.latency_of == "measured"
        else None,
        "versions": versions() | {winner.runtime.name: winner.runtime.version()},
    }
