"""What the study of a design knows, as its stages ask for it."""

from edgewright.core.architecture import Architecture
from edgewright.core.study import Candidate
from edgewright.job.base import Run
from edgewright.job.design.ground import DesignGround

Work = Run[DesignGround]


def candidates(run: Work) -> dict[str, Candidate]:
    """All that were scored, by key."""
    return {candidate.key: candidate for candidate in run.study.candidates()}


def architecture_of(run: Work, key: str) -> Architecture:
    return run.ground.space.read(candidates(run)[key].architecture)


def allotted(run: Work) -> dict[str, float]:
    """Seconds for the stages of a time-boxed run, noted: a resumed run keeps to them."""
    noted = run.study.read_note("allotted")
    if noted is None:
        noted = allot(run.watch.left())
        if run.ground.plan.minutes is not None:
            run.study.note("allotted", noted)
    return noted


def allot(left: float) -> dict[str, float]:
    """Seconds for the stages of `left`; what they do not take is for the full training."""
    reserve = min(8 + 0.04 * left, 90.0)
    working = max(0.0, left - reserve)
    return {"search": 0.12 * working, "finalists": 0.25 * working, "deploy": reserve}
