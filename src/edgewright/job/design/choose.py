"""Which candidates become finalists: the best by proxy whose whole network, measured, keeps the latency ceiling."""

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from edgewright.core.cost import show
from edgewright.core.errors import GateFailed
from edgewright.core.plan import Plan
from edgewright.core.pool import Pool
from edgewright.core.study import Candidate
from edgewright.device.measure import Runs
from edgewright.ir.to_onnx import to_onnx
from edgewright.job.design.ground import DesignGround
from edgewright.job.design.record import Work, allotted, candidates
from edgewright.job.design.tiers import known_pace, place, tiers, worth_training

MOST_FAMILIES = 64
LEAST_RUNS = 30
FITS = 0.98  # of the ceiling
SLOW, PAUSE = 1.25, 2.0  # times what the table says, of most networks; seconds until they are measured again
TO_ONE = 3  # finalists from starts to one from scratch
BUILT = 2  # finalists as people build them, where there is one tier


class Entrants(NamedTuple):
    """Who enters the halving, and the processes that train them."""

    workers: Pool
    keys: tuple[str, ...]


def choose(run: Work, workers: Pool) -> Entrants:
    """The finalists: the best candidates by proxy whose whole network, measured, keeps the latency ceiling.

    After its seconds of a time-boxed run there may be fewer of them: large networks take seconds each to measure.

    Notes predicted against measured latency for all that were measured.
    """
    noted = run.study.read_note("finalists")
    if noted is None:
        noted = _measured(run, allotted(run)["search"])
    return Entrants(workers, tuple(row["key"] for row in noted))


def _measured(run: Work, seconds: float) -> list[dict[str, Any]]:
    plan, ground = run.ground.plan, run.ground
    ceiling = plan.budget.ceilings().get("latency", float("inf"))
    most = worth_training(run, plan.finalists)
    finalists: list[dict[str, Any]] = []
    measured: list[dict[str, Any]] = []
    for candidate in _in_turns(run, run.study.candidates()):
        predicted = candidate.costs["latency"].value
        if predicted * _bias(measured) > ceiling:
            continue
        graph = ground.space.graph(ground.space.read(candidate.architecture))
        (latency,) = ground.device.measure([to_onnx(graph)], Runs(most=_runs(plan, predicted, seconds)))
        row = {
            "key": candidate.key,
            "predicted_ms": predicted,
            "measured_ms": latency.median_ms,
            "score": candidate.scores[ground.steer(ground.space.read(candidate.architecture))],
        }
        measured.append(row)
        if latency.median_ms <= FITS * ceiling:
            finalists.append(row)
        if len(finalists) == most or len(measured) == 6 * plan.finalists:
            break
        if plan.minutes is not None and run.watch.spent("measure") > (seconds if finalists else 2 * seconds):
            break
    _second_look(run, measured, ceiling)
    finalists = [row for row in measured if row["measured_ms"] <= FITS * ceiling][:most]
    if not finalists:
        raise GateFailed(
            f"none of the {len(measured)} best candidates keeps the latency ceiling of {show('latency', ceiling)} when "
            "measured as a whole (the table predicted that they would); is the machine busy? otherwise raise the "
            "ceiling a little"
        )
    run.study.note("measured", measured)
    run.study.note("finalists", finalists)
    return finalists


def _second_look(run: Work, measured: Sequence[dict[str, Any]], ceiling: float) -> None:
    """Measure those that were refused again, where most networks came out far above the table; the lower figure stays.

    A machine that is slow for some seconds refuses every network that uses its ceiling, and only waiting helps. What
    the table flatters is refused again."""
    refused = [row for row in measured if row["measured_ms"] > FITS * ceiling]
    if not refused or statistics.median(row["measured_ms"] / row["predicted_ms"] for row in measured) < SLOW:
        return
    ground, known = run.ground, candidates(run)
    time.sleep(PAUSE)
    for row in refused:
        graph = ground.space.graph(ground.space.read(known[row["key"]].architecture))
        (again,) = ground.device.measure([to_onnx(graph)], Runs(most=LEAST_RUNS))
        row["measured_ms"] = min(row["measured_ms"], again.median_ms)


def _runs(plan: Plan, latency_ms: float, seconds: float) -> int:
    """Runs of a candidate's measurement: in a time-boxed run, fewer of a slow network, so that every finalist has one.

    What is claimed of the exported file is measured in full; this only chooses.
    """
    if plan.minutes is None:
        return 200
    return int(min(200, max(LEAST_RUNS, 1e3 * seconds / plan.finalists / latency_ms)))


def _bias(measured: Sequence[dict[str, Any]]) -> float:
    """Measured over predicted latency so far. A search finds the networks that the table flatters; 1 until it shows."""
    if len(measured) < 4:
        return 1.0
    return max(1.0, statistics.median(row["measured_ms"] / row["predicted_ms"] for row in measured))


def _in_turns(run: Work, scored: Sequence[Candidate]) -> list[Candidate]:
    """Best first: of every tier in turn, with a network as people build them; those of starts, whose scores are of one
    kind, with every fourth a fresh one."""
    ground, law = run.ground, known_pace(run)
    found = tiers(run, law)
    placed: dict[tuple[bool, int], list[Candidate]] = {}
    for candidate in scored:
        architecture = ground.space.read(candidate.architecture)
        where = place(run, law, found, architecture)
        placed.setdefault((ground.start(architecture) is not None, where), []).append(candidate)
    started, fresh = (
        [_best_and_different(ground, placed.get((which, number), [])) for number in range(len(found))]
        for which in (True, False)
    )
    classics = {one.key() for member in ground.members for one in member.classics()}
    fresh.reverse()  # the tier that this clock suits comes first
    built = [[one for one in of_tier if one.key in classics][: BUILT if len(found) == 1 else 1] for of_tier in fresh]
    searched = [[one for one in of_tier if one.key not in classics] for of_tier in fresh]
    fresh = _by_turns([*built, *searched] if len(found) > 1 else [*searched, *built])
    started = _by_turns(started)
    if not started:
        return fresh
    chosen: list[Candidate] = []
    together = min(TO_ONE, max(1, ground.plan.finalists - 1))
    for index in range(0, len(started), together):
        chosen += [*started[index : index + together], *fresh[index // together : index // together + 1]]
    return [*chosen, *fresh[-(-len(started) // together) :]]


def _by_turns(lists: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    return [one for row in itertools.zip_longest(*lists) for one in row if one is not None]


def _best_and_different(ground: DesignGround, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Best by proxy first, but those that share most blocks with a better one after all others.

    Evolution ends among near relatives; training eight of one family would be choosing among one.
    """
    chosen: list[Candidate] = []
    relatives: list[Candidate] = []
    families: list[Counter[str]] = []
    if not candidates:
        return []
    steer = ground.steer(ground.space.read(candidates[0].architecture))
    for candidate in sorted(candidates, key=lambda c: -c.scores[steer]):
        blocks = ground.space.blocks(ground.space.read(candidate.architecture))
        family = Counter(graph.signature for _, graph in blocks[1:-1])
        alike = len(families) == MOST_FAMILIES or any(
            2 * (family & other).total() > max(family.total(), other.total()) for other in families
        )
        (relatives if alike else chosen).append(candidate)
        if not alike:
            families.append(family)
    return [*chosen, *relatives]
