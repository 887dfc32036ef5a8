"""`edgewright measure`: files of any runtime against each other, in turns, with confidence intervals."""

from collections.abc import Sequence
from pathlib import Path

from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput
from edgewright.core.run import RunFolder
from edgewright.device.agent import BURST, Call
from edgewright.device.compare import Ratio, compared
from edgewright.device.here.cpu import Cpu
from edgewright.device.measure import NOISY_DRIFT, Artifact, Runs
from edgewright.export.runtimes.base import Asked, made_up
from edgewright.export.runtimes.resolve import runtime_for
from edgewright.export.ship.source import check_onnx


class Timed(Frozen):
    """One file's times in ms, and the ratio of its median to the first file's with the 95 % interval."""

    file: str
    runtime: str
    median_ms: float
    p90_ms: float
    minimum_ms: float
    ratio: Ratio


class Versus(Frozen):
    """What was measured. reference_drift: of the fixed reference network meanwhile; above 0.05 it is `noisy`."""

    rows: list[Timed]
    runs: int
    threads: int
    reference_ms: float
    reference_drift: float
    noisy: bool

    def text(self) -> str:
        """For people: a line for each file."""
        wide = max(len(row.file) for row in self.rows) + 2
        lines = [f"{'':<{wide}}{'runtime':<13}{'median':>11}{'p90':>11}  ratio to the first [95 %]"]
        for row in self.rows:
            times = f"{row.median_ms:>8.3f} ms{row.p90_ms:>8.3f} ms"
            lines.append(f"{row.file:<{wide}}{row.runtime:<13}{times}  {row.ratio.text()}")
        lines.append(f"{self.runs} runs of each in turns, batch 1, {self.threads} thread{'s' * (self.threads > 1)}")
        if self.noisy:
            lines.append(f"the machine was not quiet: the reference drifted by {100 * self.reference_drift:.0f} %")
        return "\n".join(lines)


def versus(
    places: Sequence[str | Path],
    *,
    threads: int = 1,
    runs: int = 300,
    shape: Asked = None,
    seed: int = 0,
) -> Versus:
    """Measure files in turns with each other and with the fixed reference network, on one pinned core.

    Args:
        places: FILE, whose ending names the runtime; RUNTIME:FILE; or a finished run's folder, for its model.onnx.
        runs: timed runs of each, in bursts of 10.
        shape: of the input, or of several by name, for files that leave it open.
        seed: of the inputs' normal values; whole numbers are zeros.
    Errors: BadInput for no file, one that is missing or broken, an unknown ending, a runtime that is not installed.
    """
    if not places:
        raise BadInput("give at least one file to measure")
    if threads < 1 or runs < 2 * BURST:
        raise BadInput(f"at least 1 thread and {2 * BURST} runs are needed (got {threads} and {runs})")
    artifacts = [artifact(place, shape, seed) for place in places]
    found = Cpu(threads).measure(artifacts, Runs(most=-(-runs // BURST) * BURST))
    rows = [
        Timed(
            file=str(place),
            runtime=opened.runtime,
            median_ms=latency.median_ms,
            p90_ms=latency.p90_ms,
            minimum_ms=latency.minimum_ms,
            ratio=compared(latency, found[0], seed),
        )
        for place, opened, latency in zip(places, artifacts, found, strict=True)
    ]
    drift = found[0].reference_drift
    return Versus(
        rows=rows,
        runs=found[0].runs,
        threads=threads,
        reference_ms=found[0].reference_ms,
        reference_drift=drift,
        noisy=drift > NOISY_DRIFT,
    )


def artifact(place: str | Path, shape: Asked = None, seed: int = 0) -> Artifact:
    """A file of any runtime as what can be measured; the arguments and errors are those of `versus`."""
    runtime, path = runtime_for(_file(place))
    if runtime.from_onnx and path.suffix.lower() == ".onnx":
        check_onnx(path)

    def opened(threads: int) -> Call:
        program = runtime.open(path, threads, shape)
        sample = made_up(program.inputs, seed)
        return lambda: program.call(sample)

    return Artifact(path, runtime.name, opened)


def _file(place: str | Path) -> str:
    """The file of a run's folder; a file as it is."""
    if not Path(place).is_dir():
        return str(place)
    run = RunFolder(Path(place))
    run.check_file(run.onnx)
    return str(run.onnx)
