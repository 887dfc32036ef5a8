"""What there is to choose from: each runtime and type built, opened, and held against its source on real samples."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx

from edgewright.core.errors import BadInput, DiskFull, EdgewrightError, one_line
from edgewright.core.files import refuse_full
from edgewright.core.progress import Bar, progress, say
from edgewright.device.compare import Ratio
from edgewright.export.choose.batch import BATCH, BatchGate, compare_again, compare_batches, rebatched, takes_batches
from edgewright.export.choose.diverge import Divergence, diverge, of_module, tapped
from edgewright.export.choose.diverge import pairs as pairs_of
from edgewright.export.choose.samples import Samples
from edgewright.export.gates import Gate, OutputGate, compare
from edgewright.export.graph import outputs_of
from edgewright.export.int8.fallback import Quantised, quantise_within
from edgewright.export.int8.quantise import Int8Types, types_here
from edgewright.export.running import Answers, Sample, Says, call_of, gathered
from edgewright.export.runtimes.base import KINDS, Built, Kind, Network, Runtime
from edgewright.export.runtimes.onnxruntime_adapter import OnnxRuntime
from edgewright.export.runtimes.resolve import make_runtimes
from edgewright.task.kind import beats

Pair = tuple[Runtime, Kind]
REFERENCE = OnnxRuntime()
PASSES, LONG_MINUTES = 8, 1.0  # over the samples: of the source, of each file, of what int8 is tried with
MOST_BYTES, FEWEST = 2**28, 8  # of outputs that are kept to compare with; samples that are compared whatever they take


@dataclass(frozen=True)
class Candidate:
    """One runtime and type; what is None was not found out.

    batch: how its answers hold in batches.   unbatched: why that was not looked at.   divergence: where it parts from
    its source, where that was looked at.   unshown: why it was not, though it should have been.
    ratio: its time over that of the first candidate.   refused: why it must not be handed out, or None.   seconds: what
    one sample took while it was compared, roughly.   quantised: how the shared int8 network was made.
    """

    runtime: Runtime
    kind: Kind
    built: Built | None = None
    gate: Gate | None = None
    batch: BatchGate | None = None
    unbatched: str | None = None
    divergence: Divergence | None = None
    unshown: str | None = None
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
        return self.gate is not None and self.gate.finite

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
            "outputs": [_told(output) for output in self.gate.outputs] if self.gate else [],
        }


@dataclass(frozen=True)
class Wanted:
    """What may win: files of these runtimes (None: of every one, installed or not) in these types."""

    runtimes: Sequence[Runtime] | None = None
    kinds: Sequence[Kind] = KINDS

    def pairs(self) -> list[Pair]:
        """Every runtime and type, a runtime that is not installed once."""
        named = make_runtimes(None) if self.runtimes is None else self.runtimes
        return [(runtime, kind) for runtime in named for kind in (self.kinds[:1] if runtime.missing() else self.kinds)]

    def inside(self, runtimes: Sequence[str], kinds: Sequence[str]) -> "Wanted":
        """What is left of it where only runtimes of these names, and these types, will do."""
        named = make_runtimes(None) if self.runtimes is None else self.runtimes
        return Wanted(
            [runtime for runtime in named if runtime.name in runtimes], [kind for kind in self.kinds if kind in kinds]
        )


ANY = Wanted()


class Judge:
    """Holds candidates against their source: all its outputs on the comparison samples, made once.

    source: one sample to outputs; default: ONNX Runtime on the float file.
    """

    def __init__(self, network: Network, samples: Samples, max_drop: float, source: Says | None) -> None:
        self.max_drop, self.names = max_drop, [spec.name for spec in outputs_of(network.model)]
        self.samples, self.expected = _asked(source or call_of(network.model), samples)
        self.meaning = self.samples.meaning
        for name, values in zip(self.names, self.expected, strict=True):
            if not all(np.isfinite(rows).all() for rows in values):
                raise BadInput(
                    f"the network itself gives values that are not numbers on this data, in its output '{name}'; mend "
                    "it first"
                )
        self._doubt()
        self.takes_batches = takes_batches(network.model, self.samples.comparison, self.expected)

    def _doubt(self) -> None:
        """Say so where the network guesses: no loss can be seen then."""
        own = self.gate(self.expected).decides
        if own is not None and own.chance is not None and not beats(own.source, own.chance):
            say(
                f"the network itself has {own.source} on these samples, no more than by chance: are the labels in the "
                "order of its outputs, and the inputs scaled as it learned (--mean, --std)?"
            )

    def outputs(self, call: Says) -> list[Answers]:
        """What a candidate says of each comparison sample, one at a time."""
        return gathered(map(call, self.samples.comparison))

    def gate(self, found: Sequence[Answers]) -> Gate:
        return compare(self.names, self.expected, found, self.meaning)

    def batch(
        self, row: Candidate, network: Network, stem: Path, threads: int, found: list[Answers]
    ) -> BatchGate | None:
        """The same runtime and type built for BATCH samples, against what the candidate said of each alone.

        A runtime whose files are of fixed batch is asked again in another order. None for a network that takes one
        sample only.
        Errors: EdgewrightError that says why it cannot be looked at: what is built here is not what is handed out.
        """
        given = self.samples.comparison, found, self.expected
        if not row.runtime.from_onnx:
            assert row.built is not None
            return compare_again(self.names, row.runtime.open(row.built.path, threads).call, *given)
        if not self.takes_batches:
            return None
        int8 = network.int8 and rebatched(network.int8, BATCH)
        built = row.runtime.build(replace(network, model=rebatched(network.model, BATCH), int8=int8), row.kind, stem)
        return compare_batches(self.names, row.runtime.open(built.path, threads).call, *given)

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
        return self.gate(self.outputs(call_of(model))).drop


def _asked(call: Says, samples: Samples) -> tuple[Samples, list[Answers]]:
    """What the network itself says of the samples, or of as many as there is memory for.

    Errors: BadInput where it fails on them.
    """
    try:
        call(samples.comparison[0])  # the first takes longer than the others will
        began = perf_counter()
        first = call(samples.comparison[0])
        seconds = perf_counter() - began
        samples = _enough(samples, sum(values.nbytes for values in first))
        _warn(seconds, len(samples.comparison))
        with progress("Asking the network", total=len(samples.comparison)) as bar:
            return samples, gathered(_each(call, samples.comparison, bar))
    except EdgewrightError as error:
        raise BadInput(f"the network itself fails on this data: {error}") from None


def _each(call: Says, samples: Sequence[Sample], bar: Bar) -> Iterator[list[np.ndarray]]:
    for sample in samples:
        yield call(sample)
        bar.advance()


def _enough(samples: Samples, size: int) -> Samples:
    """As many samples as there is memory for, where the answer to one takes `size` bytes."""
    most = max(FEWEST, MOST_BYTES // max(1, size))
    if most >= len(samples.comparison):
        return samples
    say(f"an answer of the network takes {size / 2**20:.1f} MB: {most} samples are compared")
    return samples.first(most)


def _warn(seconds: float, count: int) -> None:
    """A word of how long it will take, where that is long."""
    minutes = PASSES * count * seconds / 60
    if minutes >= LONG_MINUTES:
        say(
            f"one answer of the network takes {seconds:.2g} s: with {count} samples this may take {minutes:.0f} minutes"
        )


def _told(output: OutputGate) -> dict[str, Any]:
    """Of one output, what is printed: how far it is off, and percent of its answers that are the same."""
    furthest = output.max_relative_difference if output.finite else None
    return {"name": output.name, "max_relative_difference": furthest, "same": output.same.value}


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
        raise BadInput("the calibration data is empty; give more samples")
    try:
        return quantise_within(network.model, judge.samples.calibration, types, judge.drop, judge.max_drop)
    except DiskFull:
        raise
    except EdgewrightError as error:  # what the quantiser cannot take is this type's fault alone
        return error


def _judged(row: Candidate, network: Network, judge: Judge, folder: Path, threads: int) -> Candidate:
    """Built, opened and compared; whatever a runtime cannot do becomes its reason."""
    stem = folder / f"model-{row.runtime.name}-{row.kind}"
    try:
        with _reasons(folder):
            built, found, seconds = _built(row, network, judge, stem, threads)
            gate = judge.gate(found)
    except DiskFull:
        raise
    except EdgewrightError as error:
        return replace(row, refused=str(error))
    note = built.note or (row.quantised.note() if row.quantised else "")
    row = replace(row, built=replace(built, note=note), gate=gate, seconds=seconds)
    refused = gate.refusal(row.kind, judge.max_drop)
    if refused is None:
        row = _batched(row, network, judge, stem.with_name(f"{stem.name}-batch{BATCH}"), threads, found)
        return _shown(row, network, judge, folder, row.batch.refusal() if row.batch else None)
    row = _shown(row, network, judge, folder, refused)
    return replace(row, refused=f"{refused}; {row.divergence.text()}") if row.divergence else row


@contextlib.contextmanager
def _reasons(folder: Path) -> Iterator[None]:
    """Whatever a runtime does while it builds below `folder`, opens or runs becomes one sentence.

    Errors: EdgewrightError; DiskFull where there is no room, which is nobody's fault but the disk's.
    """
    try:
        yield
    except EdgewrightError as error:
        refuse_full(folder, error)
        raise EdgewrightError(str(error).replace(f"{folder}/", "")) from error
    except Exception as error:  # a library may fail in ways of its own
        refuse_full(folder, error)
        raise EdgewrightError(f"fails when it runs ({one_line(error)})") from error


def _built(
    row: Candidate, network: Network, judge: Judge, stem: Path, threads: int
) -> tuple[Built, list[Answers], float]:
    """The files, what they answer, and the seconds of one answer."""
    built = row.runtime.build(network, row.kind, stem)
    program = row.runtime.open(built.path, threads)
    began = perf_counter()
    found = judge.outputs(program.call)
    return built, found, (perf_counter() - began) / len(judge.samples.comparison)


def _batched(
    row: Candidate, network: Network, judge: Judge, stem: Path, threads: int, found: list[Answers]
) -> Candidate:
    """With its answers in batches, or why there are none: the file that is handed out takes one sample."""
    try:
        with _reasons(stem.parent):
            return replace(row, batch=judge.batch(row, network, stem, threads, found))
    except DiskFull:
        raise
    except EdgewrightError as error:
        return replace(row, unbatched=str(error))


def _shown(row: Candidate, network: Network, judge: Judge, folder: Path, refused: str | None) -> Candidate:
    """With where it parts from its source, which is looked at of what is refused or not float."""
    row = replace(row, refused=refused)
    if not row.runtime.from_onnx or (refused is None and row.kind == "fp32"):
        return row
    try:
        with _reasons(folder):
            return replace(row, divergence=judge.divergence(row, network))
    except DiskFull:
        raise
    except EdgewrightError as error:  # a runtime that cannot show what lies between its layers
        return replace(row, unshown=str(error))
