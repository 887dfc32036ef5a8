"""Does a candidate still say what its source says? On real samples, batch 1, before it may be handed out."""

import math
from dataclasses import dataclass

import numpy as np

FP32_TOLERANCE = 1e-3  # of the largest output; another runtime's fp32 rounds otherwise, but computes the same


@dataclass(frozen=True)
class Gate:
    """How a candidate compares with its source.

    max_abs_difference: of the outputs.   cosine: of all outputs as one vector, 1 where the same.   top1_agreement:
    share of the samples given the same class, 0 to 1.   accuracy, source_accuracy: top-1 in percent, where there are
    labels.   largest: of the source's outputs, in size.
    """

    max_abs_difference: float
    cosine: float
    top1_agreement: float
    accuracy: float | None
    source_accuracy: float | None
    largest: float
    samples: int

    @property
    def drop(self) -> float:
        """Points lost: of accuracy, or, without labels, of the samples that are given another class."""
        if not math.isfinite(self.max_abs_difference):
            return math.inf
        if self.accuracy is None or self.source_accuracy is None:
            return 100 * (1 - self.top1_agreement)
        return self.source_accuracy - self.accuracy

    def refusal(self, kind: str, max_drop: float) -> str | None:
        """Why it must not be handed out, or None."""
        if not math.isfinite(self.max_abs_difference):
            return "gives outputs that are not numbers"
        if kind == "fp32" and self.max_abs_difference > FP32_TOLERANCE * max(1.0, self.largest):
            return f"computes something else: outputs differ by up to {self.max_abs_difference:.3g}"
        if self.drop > max_drop:
            lost = "points of accuracy" if self.accuracy is not None else "% of the samples get another class"
            return f"loses {self.drop:.2f} {lost}, {max_drop:g} allowed"
        return None


def compare(expected: np.ndarray, found: np.ndarray, labels: np.ndarray | None = None) -> Gate:
    """Outputs (N, classes) of source and candidate, and labels (N,) where known.

        cosine = <y, y'> / (|y| |y'|)     top-1 agreement = mean(argmax y = argmax y')

    Other outputs than one row of classes a sample are compared as rows of all their values.
    Errors: ValueError where the shapes differ.
    """
    if expected.shape != found.shape:
        raise ValueError(f"outputs of shape {found.shape[1:]}, the source's are {expected.shape[1:]}")
    y, z = (values.reshape(len(values), -1).astype(np.float64) for values in (expected, found))
    finite = bool(np.isfinite(z).all())
    norms = float(np.linalg.norm(y) * np.linalg.norm(z)) if finite else 0.0
    return Gate(
        max_abs_difference=float(np.abs(y - z).max()) if finite else math.inf,
        cosine=float((y * z).sum() / norms) if norms else 0.0,
        top1_agreement=float((y.argmax(1) == z.argmax(1)).mean()) if finite else 0.0,
        accuracy=None if labels is None else 100 * float((z.argmax(1) == labels).mean()),
        source_accuracy=None if labels is None else 100 * float((y.argmax(1) == labels).mean()),
        largest=float(np.abs(y).max()),
        samples=len(y),
    )
