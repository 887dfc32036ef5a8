"""Score candidates until the count or the time is up, keeping every one in the study.

The strategy is asked and told in rounds of a fixed size, so that the candidates do not depend on how many processes
score them. A resumed run asks the same strategy again from its seed and answers from the study, which brings it back to
where it was: no candidate is scored twice, and none is lost.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgewright.core.architecture import Architecture
from edgewright.core.cost import Cost
from edgewright.core.pool import Pool
from edgewright.core.progress import Bar, progress
from edgewright.core.study import Candidate, Study
from edgewright.search.scoring import ScoringJob, score_architecture

ROUND = 16


@dataclass(frozen=True)
class Scorer:
    """What scoring a candidate takes: its costs, the job for a worker, and which score steers the search."""

    costs: Callable[[Architecture], dict[str, Cost]]
    job: Callable[[Architecture], ScoringJob]
    steer: str


class Asked(Protocol):
    """What proposes candidates: a strategy, or a list."""

    def ask(self, count: int) -> list[Architecture]: ...

    def tell(self, scored: Iterable[tuple[Architecture, float]]) -> None: ...


class Listed:
    """Given architectures, once each."""

    def __init__(self, architectures: Sequence[Architecture]) -> None:
        self._left = list(architectures)

    def ask(self, count: int) -> list[Architecture]:
        asked, self._left = self._left[:count], self._left[count:]
        return asked

    def tell(self, scored: Iterable[tuple[Architecture, float]]) -> None:
        """Nothing follows from it."""


def explore(
    study: Study,
    strategy: Asked,
    scorer: Scorer,
    workers: Pool,
    *,
    count: int | None,
    enough: Callable[[int], bool],
) -> list[Candidate]:
    """Run the search and return all candidates of the study.

    Args:
        count: stop at this many candidates; None leaves it to `enough`.
        enough: called after each round with the number of candidates; true ends the search.
    """
    known = {candidate.key: candidate for candidate in study.candidates()}
    seen = 0
    with progress("Scoring candidates", total=count) as bar:
        while not (count is not None and seen >= count):
            asked = strategy.ask(ROUND if count is None else min(ROUND, count - seen))
            if not asked:
                break
            fresh = [architecture for architecture in asked if architecture.key() not in known]
            _score(study, scorer, workers, fresh, known, bar)
            strategy.tell([(a, known[a.key()].scores[scorer.steer]) for a in asked])
            seen += len(asked)
            bar.advance(len(asked))
            told = [c.scores[scorer.steer] for c in known.values() if scorer.steer in c.scores]
            bar.note(f"best {max(told):.4g}")
            if fresh and enough(seen):
                break
    return study.candidates()


def _score(
    study: Study, scorer: Scorer, workers: Pool, fresh: Sequence[Architecture], known: dict[str, Candidate], bar: Bar
) -> None:
    results = workers.imap(score_architecture, [scorer.job(architecture) for architecture in fresh])
    for architecture, scores in zip(fresh, results, strict=True):
        candidate = Candidate(
            key=architecture.key(),
            architecture=architecture.model_dump(mode="json"),
            costs=scorer.costs(architecture),
            scores=scores,
        )
        study.record(candidate)
        known[candidate.key] = candidate
