"""What the report tells: everything read from the run folder once, as plain values."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from edgewright.core.data import read_json
from edgewright.core.plan import Plan
from edgewright.core.result import Result
from edgewright.core.run import RunFolder
from edgewright.core.study import Candidate, Study

MOST_CANDIDATES = 3000  # drawn in the picture of all candidates; beyond that, evenly thinned


@dataclass(frozen=True)
class Facts:
    """epochs: the full training's records.   trained: percent on val by key, for candidates that were trained briefly.
    measured: rows of key, predicted_ms, measured_ms.   confusion[t][p]: test images of class t called p.
    samples: latencies of single runs, ms.   refused: finalists that broke the budget or diverged."""

    result: Result
    plan: Plan
    folder: str
    environment: dict[str, Any]
    candidates: list[Candidate]
    epochs: list[dict[str, Any]]
    trained: dict[str, float]
    measured: list[dict[str, Any]]
    samples: list[float]
    labels: list[int]
    predictions: list[int]
    refused: dict[str, list[str]]

    @property
    def confusion(self) -> list[list[int]]:
        counts = Counter(zip(self.labels, self.predictions, strict=True))
        classes = range(len(self.result.classes))
        return [[counts[truth, said] for said in classes] for truth in classes]

    @property
    def mistakes(self) -> list[int]:
        """Indices of the test images that were called something else, the commonest confusions first."""
        wrong = [i for i, (t, p) in enumerate(zip(self.labels, self.predictions, strict=True)) if t != p]
        counts = Counter((self.labels[i], self.predictions[i]) for i in wrong)
        return sorted(wrong, key=lambda i: (-counts[self.labels[i], self.predictions[i]], self.labels[i], i))


def gather(run: RunFolder) -> Facts:
    """Read a finished run; what an older or partial study lacks is left empty."""
    result, plan = run.read_result(), run.read_plan()
    with Study(run.study) as study:
        test = study.read_note("test", {"labels": [], "predictions": []})
        trained: dict[str, float] = {}
        for rung in range(8):
            accuracies = study.notes(f"rung-{rung}:")
            trained |= {key: value for key, value in accuracies.items() if not math.isnan(value)}  # NaN: diverged
        return Facts(
            result=result,
            plan=plan,
            folder=run.path.resolve().name,
            environment=read_json(run.env) if run.env.exists() else {},
            candidates=study.candidates(),
            epochs=study.epochs(result.key, "final"),
            trained=trained,
            measured=study.read_note("measured", []),
            samples=study.read_note("latency_samples", []),
            labels=test["labels"],
            predictions=test["predictions"],
            refused=study.notes("refused:"),
        )


def thinned(candidates: list[Candidate], keep: set[str]) -> list[Candidate]:
    """At most about MOST_CANDIDATES, always with those in `keep`."""
    step = -(-len(candidates) // MOST_CANDIDATES)
    return [candidate for i, candidate in enumerate(candidates) if i % max(step, 1) == 0 or candidate.key in keep]
