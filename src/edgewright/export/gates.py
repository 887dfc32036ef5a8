"""Does a candidate still say what its source says? On real samples, one at a time, before it may be handed out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewright.core.errors import EdgewrightError
from edgewright.core.metric import Score
from edgewright.export.alike import TINY, aligned, is_row, same, same_class, variance_lost
from edgewright.export.meaning import Meaning, Unknown, Verdict
from edgewright.export.running import Answers

# Of the largest value, and percent of the variance: another runtime's fp32 rounds otherwise, but computes the same.
FP32_TOLERANCE, FP32_MAY_LOSE = 1e-3, 1.0


@dataclass(frozen=True)
class OutputGate:
    """How one output of a candidate compares with its source's.

    largest: of the source's values, in size, at least 1 for whole numbers.   cosine: of all values as one vector.
    same: see `alike`.   same_class: of rows, the share of samples with the same largest one, 0 to 1.   lost: percent
    of the variance, of floats.   misshapen: samples whose shape is another one.   tolerance: of fp32.   finite: whether
    all values are numbers; where not, the others are not to be read.
    """

    name: str
    max_abs_difference: float
    largest: float
    cosine: float
    same: Score
    same_class: float | None
    lost: float
    misshapen: int
    tolerance: float
    finite: bool = True

    @property
    def max_relative_difference(self) -> float:
        """The largest difference over the largest value."""
        return self.max_abs_difference / max(self.largest, TINY)

    def differs(self) -> str | None:
        """Why it is not what the same network gives in another runtime's fp32, or None."""
        if self.misshapen:
            return f"computes something else: output '{self.name}' has another shape for {self.misshapen} samples"
        if self.max_relative_difference <= self.tolerance and self.lost <= FP32_MAY_LOSE:
            return None
        return (
            f"computes something else: output '{self.name}' differs by up to {self.max_abs_difference:.3g}, "
            f"{self.max_relative_difference:.2g} of its largest value"
        )

    def record(self) -> dict[str, Any]:
        """For the evidence."""
        return {
            "name": self.name,
            "max_abs_difference": self.max_abs_difference,
            "max_relative_difference": self.max_relative_difference,
            "largest": self.largest,
            "cosine": self.cosine,
            "same": self.same.value,
            "same_of": self.same.name,
        }


@dataclass(frozen=True)
class Gate:
    """How a candidate compares with its source. verdicts: what it may lose, of outputs that can be judged.   answers:
    how many answers are the same, where the task says what they are."""

    outputs: tuple[OutputGate, ...]
    verdicts: tuple[Verdict, ...]
    samples: int
    answers: Score | None = None

    @property
    def finite(self) -> bool:
        return all(output.finite for output in self.outputs)

    @property
    def drop(self) -> float:
        """Points lost, of what loses most: see `meaning`."""
        broken = not self.finite or any(output.misshapen == self.samples for output in self.outputs)
        return math.inf if broken else max((verdict.lost for verdict in self.verdicts), default=0.0)

    @property
    def decides(self) -> Verdict | None:
        """What is told of the candidate's accuracy, where targets are known."""
        return next((verdict for verdict in self.verdicts if verdict.decides), None)

    @property
    def accuracy(self) -> float | None:
        """The metric's figure, where targets are known."""
        return self.decides.found.value if self.decides else None

    @property
    def source_accuracy(self) -> float | None:
        return self.decides.source.value if self.decides else None

    @property
    def same(self) -> float:
        """Percent of the answers that are the same; where nobody knows what they are, in the output where least is."""
        if self.answers is not None:
            return self.answers.value
        return min((output.same.value for output in self.outputs), default=100.0)

    @property
    def top1_agreement(self) -> float | None:
        """Share of the samples given the same class, 0 to 1; None where no output tells classes apart."""
        judged = self.decides.output if self.decides else None
        for output in self.outputs:
            if output.same_class is not None and (output.same.name == "same_class" or judged in ("", output.name)):
                return output.same_class
        return None

    def refusal(self, kind: str, max_drop: float) -> str | None:
        """Why it must not be handed out, or None."""
        for output in self.outputs:
            if not output.finite:
                return f"output '{output.name}' has values that are not numbers"
            if output.misshapen == self.samples:
                return f"output '{output.name}' has another shape than the source's"
        if kind == "fp32":
            found = next(filter(None, (output.differs() for output in self.outputs)), None)
            if found is not None:
                return found
        return next(filter(None, (verdict.refusal(max_drop) for verdict in self.verdicts)), None)

    def record(self) -> dict[str, Any]:
        """For the evidence."""
        return {
            "outputs": [output.record() for output in self.outputs],
            "accuracy": self.accuracy,
            "source_accuracy": self.source_accuracy,
            "decides": self.decides.source.name if self.decides else None,
            "unit": self.decides.source.unit if self.decides else "%",
            "same": self.same,
            "samples": self.samples,
        }


def compare(
    names: Sequence[str], expected: Sequence[Answers], found: Sequence[Answers], meaning: Meaning | None = None
) -> Gate:
    """Every output of a candidate beside its source's.

    Args:    names: of the outputs.   meaning: what they mean; by default nothing is known.
    Errors:  EdgewrightError where one has more outputs than the other.
    """
    if len(expected) != len(found):
        raise EdgewrightError(f"gives {len(found)} outputs where the source gives {len(expected)}")
    gates = tuple(map(_output, names, expected, found))
    count = len(expected[0]) if expected else 0
    sound = all(gate.finite and gate.misshapen < count for gate in gates)
    if not sound:
        return Gate(gates, (), count)
    meant, given = meaning or Unknown(), (names, expected, found)
    return Gate(gates, tuple(meant.verdicts(*given)), count, meant.same(*given))


def _output(name: str, expected: Answers, found: Answers) -> OutputGate:
    y, z, misshapen = aligned(expected, found)
    whole = y.dtype.kind != "f"
    tolerance = math.inf if whole else max(FP32_TOLERANCE, 8 * float(np.finfo(y.dtype).eps))
    if not np.isfinite(z).all():
        nothing = Score(name="nothing", value=0.0)
        return OutputGate(name, math.inf, 1.0, 0.0, nothing, None, 100.0, misshapen, tolerance, finite=False)
    wide = np.float64 if whole else np.promote_types(y.dtype, np.float32)
    furthest = float(np.abs(y.astype(wide) - z.astype(wide)).max(initial=0.0))
    largest = float(np.abs(y.astype(wide)).max(initial=1.0 if whole else 0.0))
    lost = 0.0 if whole else variance_lost(y, z)
    classes = same_class(y, z) if is_row(y) else None
    return OutputGate(name, furthest, largest, _cosine(y, z), same(y, z), classes, lost, misshapen, tolerance)


def _cosine(y: np.ndarray, z: np.ndarray) -> float:
    """1 where both are the same; 0 where one of them is nothing."""
    sums = np.zeros(3)
    for one, other in zip(y, z, strict=True):  # a sample at a time, for outputs may be large
        a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
        sums += (a @ b, a @ a, b @ b)
    norms = math.sqrt(sums[1] * sums[2])
    return float(sums[0] / norms) if norms else float(sums[1] == sums[2])
