"""What there is to choose from: each runtime and type built, opened, and held against its source on real samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx

from edgewright.core.errors import BadInput, EdgewrightError, one_line
from edgewright.core.progress import progress, say
from edgewright.device.compare import Ratio
from edgewright.export.choose.batch import BATCH, BatchGate, compare_again, compare_batches, rebatched, takes_batches
from edgewright.export.choose.diverge import Divergence, diverge, of_module, tapped
from edgewright.export.choose.diverge import pairs as pairs_of
from edgewright.export.choose.samples import Samples
from edgewright.export.gates import Gate, compare
from edgewright.export.int8.fallback import Quantised, quantise_within
from edgewright.export.int8.quantise import Int8Types, outputs, types_here
from edgewright.export.runtimes.base import Built, Kind, Network, Runtime
from edgewright.export.runtimes.onnxruntime_adapter import OnnxRuntime

Pair = tuple[Runtime, Kind]
REFERENCE = OnnxRuntime()


@dataclass(frozen=True)
class Candidate:
    """One runtime and type; what is None was not found out.

    batch: how its answers hold in batches.   divergence: where it parts from its source, where that was looked at.
    ratio: its time over that of the first candidate.   refused: why it must not be handed out, or None.   seconds: what
    one sample took while it was compared, roughly.   quantised: how the shared int8 network was made.
    """

    runtime: Runtime
    kind: Kind
    built: Built | None = None
    gate: Gate | None = None
    batch: BatchGate | None = None
    divergence: Divergence | None = None
    latency_ms: float | None = None
    p90_ms: float | None = None
    ratio: Ratio | None = None
    refused: str | None = None
    seconds: float = 0.0
    quantised: Quantised | None = None

    @property
    def name(self) -> str:
        return f"{self.runtime.name} {self.kind}"

    @property
    def runs(self) -> bool:
        """Whether it can be measured: it opens, and gives numbers."""
        return self.gate is not None and np.isfinite(self.gate.max_abs_difference)

    def row(self) -> dict[str, Any]:
        """What `export --json` prints of it."""
        return {
            "runtime": self.runtime.name,
            "type": self.kind,
            "latency_ms": self.latency_ms,
            "p90_ms": self.p90_ms,
            "size_bytes": self.built.size_bytes if self.built else None,
            "metric": self.gate.accuracy if self.gate else None,
            "top1_agreement": self.gate.top1_agreement if self.gate else None,
            "refused": self.refused,
        }


class Judge:
    """Holds candidates against their source: its outputs on the comparison samples, made once.

    source: one input (1, ...) to outputs (1, classes); default: ONNX Runtime on the float file.
    """

    def __init__(
        self, network: Network, samples: Samples, max_drop: float, source: Callable[[np.ndarray], np.ndarray] | None
    ) -> None:
        self.samples, self.max_drop = samples, max_drop
        if source is None:
            self.expected = outputs(network.model, samples.comparison)
        else:
            self.expected = np.concatenate([source(array) for array in samples.comparison])
        if not np.isfinite(self.expected).all():
            raise BadInput("the network itself gives outputs that are not numbers on this data; mend it first")
        self._doubt()
        self.takes_batches = takes_batches(network.model, samples.comparison, self.expected)

    def _doubt(self) -> None:
        """Say so where the network guesses: no loss of accuracy can be seen then."""
        source = compare(self.expected, self.expected, self.samples.labels)
        chance = 100 / max(1, self.expected.reshape(len(self.expected), -1).shape[1])
        if source.accuracy is not None and source.accuracy <= 1.2 * chance:
            say(
                f"the network itself is right on {source.accuracy:.1f} % of the samples, no more than by chance: are "
                "the labels in the order of its outputs, and the inputs scaled as it learned (--mean, --std)?"
            )

    def outputs(self, call: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """What a candidate says of each comparison sample, one at a time."""
        return np.concatenate([call(array) for array in self.samples.comparison])

    def gate(self, found: np.ndarray) -> Gate:
        return compare(self.expected, found, self.samples.labels)

    def batch(self, row: Candidate, network: Network, stem: Path, threads: int, found: np.ndarray) -> BatchGate | None:
        """The same runtime and type built for BATCH samples, against what the candidate said of each alone.

        A runtime whose files are of fixed batch is asked again in another order. None for a network that takes one
        sample only, in itself or in this runtime.
        """
        if not row.runtime.from_onnx:
            assert row.built is not None
            call = row.runtime.open(row.built.path, threads).call
            return compare_again(call, self.samples.comparison, found, self.expected)
        if not self.takes_batches:
            return None
        many = replace(
            network,
            model=rebatched(network.model, BATCH),
            int8=network.int8 and rebatched(network.int8, BATCH),
            shape=(BATCH, *network.shape[1:]),
        )
        try:
            built = row.runtime.build(many, row.kind, stem)
            call = row.runtime.open(built.path, threads, many.shape).call
        except EdgewrightError:
            return None
        return compare_batches(call, self.samples.comparison, found, self.expected)

    def divergence(self, row: Candidate, network: Network) -> Divergence | None:
        """Where a candidate that is made from ONNX parts from its source: int8 from the float network that was
        quantised, others from the network as it was given, in ONNX Runtime, or in PyTorch where that is its source."""
        mine, source = network.model, network.model
        if row.kind == "int8" and network.int8 and network.int8_from:
            mine, source = network.int8, network.int8_from
        found, truth = pairs_of(source, mine, network.model), None
        if row.kind == "fp32" and network.module is not None:
            modules, truth = of_module(network.module, network.model)
            found, truth = (modules, truth) if modules else (found, None)
        truth = truth or REFERENCE.tensors(tapped(source, [pair.source for pair in found]), "fp32")
        candidate = row.runtime.tensors(tapped(mine, [pair.found for pair in found]), row.kind)
        return diverge(found, truth, candidate, self.samples.comparison, row.kind)

    def drop(self, model: onnx.ModelProto) -> float:
        """Points that an ONNX network loses."""
        return compare(self.expected, outputs(model, self.samples.comparison), self.samples.labels).drop


def pairs(runtimes: Sequence[Runtime], kinds: Sequence[Kind]) -> list[Pair]:
    """Every runtime and type, a runtime that is not installed once."""
    return [(runtime, kind) for runtime in runtimes for kind in (kinds[:1] if runtime.missing() else kinds)]


def build_all(
    wanted: Sequence[Pair],
    network: Network,
    judge: Judge,
    folder: Path,
    *,
    threads: int = 1,
    types: Int8Types | None = None,
) -> list[Candidate]:
    """A candidate for each pair, its files under `folder`; one that cannot be built or fails a gate says why."""
    rows: list[Candidate] = []
    quantised: Quantised | EdgewrightError | None = None
    with progress("Building", total=len(wanted)) as bar:
        for runtime, kind in wanted:
            bar.note(f"{runtime.name} {kind}")
            row = Candidate(runtime, kind, refused=runtime.missing() or runtime.refusal(kind, network))
            if row.refused is None and kind == "int8" and runtime.from_onnx:
                if quantised is None and network.int8 is None:
                    quantised = _quantised(network, judge, types or types_here())
                    if isinstance(quantised, Quantised):
                        network = replace(network, int8=quantised.model, int8_from=quantised.made_from)
                if isinstance(quantised, EdgewrightError):
                    row = replace(row, refused=str(quantised))
            if row.refused is None:
                if kind == "int8" and runtime.from_onnx and isinstance(quantised, Quantised):
                    row = replace(row, quantised=quantised)
                row = _judged(row, network, judge, folder, threads)
            rows.append(row)
            bar.advance()
    return rows


def _quantised(network: Network, judge: Judge, types: Int8Types) -> Quantised | EdgewrightError:
    if not len(judge.samples.calibration):
        raise BadInput("the calibration data is empty; give more images")
    try:
        return quantise_within(network.model, judge.samples.calibration, types, judge.drop, judge.max_drop)
    except BadInput:
        raise
    except EdgewrightError as error:  # an operator that the quantiser cannot take is this type's fault alone
        return error


def _divergence(row: Candidate, network: Network, judge: Judge) -> Divergence | None:
    try:
        return judge.divergence(row, network)
    except Exception:  # a runtime that cannot show what lies between its layers; what it shows at the end still counts
        return None


def _judged(row: Candidate, network: Network, judge: Judge, folder: Path, threads: int) -> Candidate:
    """Built, opened and compared; whatever a runtime cannot do becomes its reason."""
    stem = folder / f"model-{row.runtime.name}-{row.kind}"
    try:
        built = row.runtime.build(network, row.kind, stem)
        program = row.runtime.open(built.path, threads)
        began = perf_counter()
        found = judge.outputs(program.call)
        seconds = (perf_counter() - began) / max(1, len(found))
        gate = judge.gate(found)
        note = built.note or (row.quantised.note() if row.quantised else "")
        row = replace(row, built=replace(built, note=note), gate=gate, seconds=seconds)
        if (refused := gate.refusal(row.kind, judge.max_drop)) is None:
            batch = judge.batch(row, network, stem.with_name(f"{stem.name}-batch{BATCH}"), threads, found)
            row, refused = replace(row, batch=batch), batch and batch.refusal()
        if row.runtime.from_onnx and (refused or row.kind != "fp32"):
            row = replace(row, divergence=_divergence(row, network, judge))
        if gate.refusal(row.kind, judge.max_drop) and row.divergence:
            refused = f"{refused}; {row.divergence.text()}"
    except EdgewrightError as error:
        return replace(row, refused=str(error).replace(f"{folder}/", ""))
    except Exception as error:  # a runtime may fail in ways of its own while it runs
        return replace(row, refused=f"fails when it runs ({one_line(error)})")
    return replace(row, refused=refused)
