"""Which file is really fastest? All candidates measured in turns; the fastest that loses little enough wins.

Nothing is believed: a smaller type counts as faster only where the 95 % interval of its time over that of the fastest
fp32 file, from the same interleaved run, lies below 1. So a slower int8 is never handed out.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from edgewright.core.cost import show
from edgewright.core.errors import BadInput, BudgetInfeasible
from edgewright.device.agent import BURST, Call
from edgewright.device.base import Device
from edgewright.device.compare import compared
from edgewright.device.here.cpu import Cpu
from edgewright.device.measure import NOISY_DRIFT, Artifact, Latency, Runs
from edgewright.export.choose.candidates import ANY, Candidate, Judge, Wanted, build_all
from edgewright.export.choose.samples import Samples
from edgewright.export.gates import Gate
from edgewright.export.running import Sample, Says
from edgewright.export.runtimes.base import KINDS, Kind, Network, Runtime
from edgewright.export.runtimes.resolve import make_runtimes

RUNS, FEWEST_RUNS = 300, 4 * BURST
SECONDS = 60.0  # about what the measurement may take, unless FEWEST_RUNS take longer
UNASKED = "not asked for; measured to compare with"


@dataclass(frozen=True)
class Choice:
    """All candidates, the one that won (None where none may be handed out), and why, in a sentence.

    first: name of the candidate that ratios are against.   drift: of the fixed reference network during the
    measurement; above 0.05 the machine was busy.   runs: timed runs of each candidate.   target: the board that it is
    for, "cpu" for this machine.   latency_of: "measured"; for a board "law", a model's figures, or "unknown".
    """

    candidates: tuple[Candidate, ...]
    winner: Candidate | None
    why: str
    first: str
    drift: float
    runs: int
    target: str = "cpu"
    latency_of: Literal["measured", "law", "unknown"] = "measured"

    def table(self) -> str:
        """For people: a line for each candidate, and what is to be known of the measurement."""
        time = "by law" if self.latency_of == "law" else "median"
        first = f"of {self.first}" if self.first else ""
        lines = [f"{'':<18}{time:>10}{'p90':>10}  {first:<22}{'size':>10}{'metric':>9}{'same':>9}"]
        lines += [_line(candidate) for candidate in self.candidates]
        if self.drift > NOISY_DRIFT:
            lines.append(f"the machine was not quiet: the reference network drifted by {100 * self.drift:.0f} %")
        if self.latency_of != "measured":
            lines.append(f"nothing was measured on {self.target}; accuracy is that of the same file on this machine")
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """Everything, for the file beside the winner."""
        return {
            "why": self.why,
            "target": self.target,
            "latency_of": self.latency_of,
            "first": self.first,
            "runs": self.runs,
            "reference_drift": self.drift,
            "candidates": [_record(candidate) for candidate in self.candidates],
        }


class NothingFits(BudgetInfeasible):
    """No candidate keeps the accuracy; `choice` holds what was tried."""

    def __init__(self, choice: Choice) -> None:
        super().__init__(choice.why)
        self.choice = choice


def choose(
    network: Network,
    samples: Samples,
    folder: Path,
    *,
    wanted: Wanted = ANY,
    source: Says | None = None,
    max_drop: float = 1.0,
    device: Device | None = None,
    runs: Runs | None = None,
) -> Choice:
    """Build every candidate under `folder`, hold it against its source here, measure what runs on the device, and pick.

    ONNX Runtime's fp32 file is always built and measured first: it is what the others are compared with.

    Args:
        wanted: what may win.
        source: one sample to outputs, of the network itself; default: ONNX Runtime on the float file.
        max_drop: points that may be lost: of what decides, and where nothing does, of what each output says.
        device: where it must run, with so many threads of every runtime; this machine by default.
        runs: timed runs of each; default: 300, fewer where that takes over a minute.
    Errors: NothingFits where nothing keeps the drop.
    """
    if not 0 <= max_drop <= 100:
        raise BadInput(f"the drop is points of accuracy, from 0 to 100 (got {max_drop:g})")
    asked, where = wanted.pairs(), device or Cpu()
    (first,) = make_runtimes(["onnxruntime"])
    every = [(first, KINDS[0]), *(pair for pair in asked if (pair[0].name, pair[1]) != (first.name, KINDS[0]))]
    judge = Judge(network, samples, max_drop, source)
    there = [(runtime, kind) for runtime, kind in every if where.opens(runtime.name)]
    rows = build_all(there, network, judge, folder, threads=where.threads)
    rows += [_not_there(runtime, kind, where) for runtime, kind in every if not where.opens(runtime.name)]
    rows, latencies = measured(rows, samples, where, runs)
    rows = _compared(rows, latencies)
    names = {f"{runtime.name} {kind}" for runtime, kind in asked}
    rows = [row if row.name in names else replace(row, refused=row.refused or UNASKED) for row in rows]
    return _picked(rows, latencies, max_drop, where.name)


def measured(
    rows: Sequence[Candidate], samples: Samples, device: Device, runs: Runs | None = None
) -> tuple[list[Candidate], dict[str, Latency]]:
    """The latency of every candidate that runs there, all in turns; here on the first comparison sample."""
    able = [row for row in rows if row.runs and row.built]
    artifacts = [_artifact(row, samples.comparison[0]) for row in able]
    found = device.measure(artifacts, runs or Runs(most=RUNS, fewest=FEWEST_RUNS, seconds=SECONDS))
    latencies = {row.name: latency for row, latency in zip(able, found, strict=True)}
    timed = [
        replace(row, latency_ms=latencies[row.name].median_ms, p90_ms=latencies[row.name].p90_ms)
        if row.name in latencies
        else row
        for row in rows
    ]
    return timed, latencies


def _not_there(runtime: Runtime, kind: Kind, device: Device) -> Candidate:
    return Candidate(runtime, kind, refused=f"files of {runtime.name} cannot be measured on {device.name}")


def _artifact(row: Candidate, sample: Sample) -> Artifact:
    """The candidate's file, which is called with `sample` where it is opened here."""
    assert row.built is not None
    path = row.built.path

    def opened(threads: int) -> Call:
        call = row.runtime.open(path, threads).call
        return lambda: call(sample)

    return Artifact(path, row.runtime.name, opened)


def _compared(rows: Sequence[Candidate], latencies: dict[str, Latency]) -> list[Candidate]:
    """With ratios to the first; a smaller type that is not surely faster than the fastest fp32 is refused."""
    floats = [row for row in rows if row.kind == "fp32" and row.latency_ms is not None and row.refused is None]
    if rows[0].name not in latencies:
        return list(rows)
    best = min(floats, key=lambda row: row.latency_ms or 0, default=None)
    found = []
    for row in rows:
        if row.name in latencies:
            latency = latencies[row.name]
            row = replace(row, ratio=compared(latency, latencies[rows[0].name]))
            if row.kind != "fp32" and best is not None and row.refused is None:
                against = compared(latency, latencies[best.name])
                if not against.surely_faster:
                    row = replace(row, refused=f"not surely faster than {best.name}: {against.text()} of its time")
        found.append(row)
    return found


def _picked(rows: Sequence[Candidate], latencies: dict[str, Latency], max_drop: float, target: str) -> Choice:
    fit = sorted((row for row in rows if row.refused is None and row.latency_ms), key=lambda row: row.latency_ms or 0)
    drift = max((latency.reference_drift for latency in latencies.values()), default=0.0)
    runs = max((latency.runs for latency in latencies.values()), default=0)
    choice = Choice(tuple(rows), fit[0] if fit else None, "", rows[0].name, drift, runs, target)
    if not fit:
        reasons = "; ".join(f"{row.name}: {row.refused}" for row in rows if row.refused and row.refused != UNASKED)
        raise NothingFits(replace(choice, why=f"nothing can be handed out with a drop of {max_drop:g} ({reasons})"))
    return replace(choice, why=_reason(fit, rows[0]))


def _reason(fit: Sequence[Candidate], first: Candidate) -> str:
    """Why the first of `fit`, which are sorted by time, won."""
    winner, gate = fit[0], fit[0].gate
    assert gate is not None and winner.ratio is not None
    if winner.name == first.name:
        others = f"the next, {fit[1].name}, takes {fit[1].ratio.text()} of its time" if len(fit) > 1 and fit[1].ratio \
            else "nothing else both runs and keeps the accuracy"  # fmt: skip
        return f"{winner.name} is the fastest that may be handed out, at {_took(winner)}: {others}"
    runner = f"; next is {fit[1].name} at {_took(fit[1])}" if len(fit) > 1 else ""
    return (
        f"{winner.name} is the fastest that may be handed out: {_took(winner)}, {winner.ratio.text()} of "
        f"{first.name}'s time, {lost(gate)}{runner}"
    )


def _took(row: Candidate) -> str:
    return "-" if row.latency_ms is None else show("latency", row.latency_ms)


def lost(gate: Gate) -> str:
    """What the winner costs, in words: the figure that decides, else of each output how much of it is the same."""
    if gate.decides is not None:
        return f"{gate.decides.found} where the source has {gate.decides.source.value:.2f} {gate.decides.source.unit}"
    several = len(gate.outputs) > 1
    told = (f"{output.same}{f' of {output.name!r}' * several}" for output in gate.outputs)
    return f"{', '.join(told)} over {gate.samples} samples"


def _line(row: Candidate) -> str:
    def cell(value: float | None, pattern: str) -> str:
        return pattern.format(value) if value is not None else "-"

    gate = row.gate
    cells = [
        cell(row.latency_ms, "{:.3f} ms"),
        cell(row.p90_ms, "{:.3f} ms"),
        row.ratio.text() if row.ratio else "-",
        show("size", row.built.size_bytes) if row.built else "-",
        f"{gate.decides.found.value:.2f} {gate.decides.found.unit}" if gate and gate.decides else "-",
        cell(gate.same if gate else None, "{:.1f} %"),
    ]
    text = f"{row.name:<18}{cells[0]:>10}{cells[1]:>10}  {cells[2]:<22}{cells[3]:>10}{cells[4]:>9}{cells[5]:>9}"
    said = "; ".join(
        filter(None, [row.built.note if row.built else "", *remarks(row), row.refused and f"refused: {row.refused}"])
    )
    return f"{text}  {said}".rstrip()


def remarks(row: Candidate) -> list[str]:
    """What should have been looked at and could not be; why is in the record."""
    batch = "not compared in batches" if row.unbatched else ""
    return [batch, "where it parts from its source cannot be shown" if row.unshown else ""]


def _record(row: Candidate) -> dict[str, Any]:
    return {
        **row.row(),
        "ratio": row.ratio.model_dump() if row.ratio else None,
        **(row.gate.record() if row.gate else {}),
        "batch": asdict(row.batch) if row.batch else None,
        "unbatched": row.unbatched,
        "divergence": asdict(row.divergence) if row.divergence else None,
        "unshown": row.unshown,
        "int8": row.quantised.record() if row.quantised else None,
        "note": row.built.note if row.built else "",
    }
