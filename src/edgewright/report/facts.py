"""What the report tells: everything read from the run folder once, as plain values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgewright.core.data import read_json
from edgewright.core.metric import Score
from edgewright.core.plan import Plan
from edgewright.core.result import Result
from edgewright.core.run import RunFolder
from edgewright.core.study import Candidate, Study
from edgewright.task.base import TaskSpec, kind_of
from edgewright.task.pictures import Pictures

MOST_CANDIDATES = 3000  # drawn in the picture of all candidates; beyond that, evenly thinned


@dataclass(frozen=True)
class Facts:
    """epochs: the full training's records.   trained: percent on val by key, for candidates that were trained briefly.
    measured: rows of key, predicted_ms, measured_ms.   decides: the figure that decides, on test.   pictures: of the
    answers on test.   samples: latencies of single runs, ms.   refused: finalists that broke the budget or diverged."""

    result: Result
    plan: Plan
    folder: str
    environment: dict[str, Any]
    candidates: list[Candidate]
    epochs: list[dict[str, Any]]
    trained: dict[str, float]
    measured: list[dict[str, Any]]
    samples: list[float]
    decides: Score
    pictures: Pictures
    refused: dict[str, list[str]]


def gather(run: RunFolder) -> Facts:
    """Read a finished run; what an older or partial study lacks is left empty."""
    result, plan = run.read_result(), run.read_plan()
    task = TaskSpec.parse(result.task, str(run.result))
    with Study(run.study) as study:
        trained: dict[str, float] = {}
        for rung in range(8):
            notes = study.notes(f"rung-{rung}:")
            figures = {key: one["val"] if isinstance(one, Mapping) else one for key, one in notes.items()}  # 0.1: alone
            trained |= {key: one for key, one in figures.items() if not math.isnan(one)}  # NaN: diverged
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
            decides=kind_of(task).metric(result.metrics.decides).of(result.metrics.on_test),
            pictures=Pictures.parse(study.read_note("pictures", {}), str(run.study)),
            refused=study.notes("refused:"),
        )


def thinned(candidates: list[Candidate], keep: set[str]) -> list[Candidate]:
    """At most about MOST_CANDIDATES, always with those in `keep`."""
    step = -(-len(candidates) // MOST_CANDIDATES)
    return [candidate for i, candidate in enumerate(candidates) if i % max(step, 1) == 0 or candidate.key in keep]
