"""Building a `LatencyModel`: profile networks into the table, time a few whole, fit, and check by leaving out."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import lsq_linear

from edgewright.core.progress import progress
from edgewright.core.ranking import spearman
from edgewright.device.measure import Runs
from edgewright.device.profile import Profiler
from edgewright.device.table.interpolate import fit_families
from edgewright.device.table.pieces import cut
from edgewright.device.table.profiled import profile_pieces
from edgewright.device.table.table import Calibration, Check, LatencyModel, LatencyTable, piece_us
from edgewright.ir.graph import Graph
from edgewright.ir.to_onnx import to_onnx

WHOLE_NETWORKS = 16
ROUNDS = 3
MOST_RUNS, LEAST_RUNS = 100, 10  # of a network in each round
TELLING = 0.2  # share of a network that is interpolated, from which it says something of that
FEW = 4  # networks that must
Entries = dict[str, tuple[float, float]]


def build_latency_model(graphs: Sequence[Graph], table: LatencyTable, device: Profiler, seconds: float) -> LatencyModel:
    """Measure on `device`, and fit, within about `seconds`.

    The first 16 networks are profiled and timed whole, in rounds so that a disturbance does not hit one network only;
    what time is left profiles the other networks that have pieces the table lacks.
    """
    start = time.perf_counter()
    whole, others = graphs[:WHOLE_NETWORKS], graphs[WHOLE_NETWORKS:]
    with device.steady(), progress("Latency table", total=len(graphs)) as bar:
        known = set(table.read())
        for graph in whole:
            known |= _profile_new(graph, table, known, device)
            bar.advance(0.5)
        left = seconds - (time.perf_counter() - start)
        measured_us = _time_whole(whole, device, max(0.3 * left, 0.2 * seconds))
        bar.advance(0.5 * len(whole))
        for graph in others:
            if time.perf_counter() - start > 0.9 * seconds:
                break
            known |= _profile_new(graph, table, known, device)
            bar.advance(1)
    pieces = table.read()
    left_out = _leave_out(whole, measured_us, pieces)
    calibration = fit_calibration([_sums(graph, pieces) for graph in whole], measured_us)
    calibration = calibration.model_copy(update={"interpolated": interpolated(left_out)})
    return LatencyModel(
        device=device.identity(),
        calibration=calibration,
        pieces=pieces,
        families=fit_families({key: calibration.net_us(*entry) for key, entry in pieces.items()}),
        check=_check(left_out),
        seconds=time.perf_counter() - start,
    )


def _profile_new(graph: Graph, table: LatencyTable, known: set[str], device: Profiler) -> set[str]:
    """Profile `graph` into the table if it has a piece that is not in `known`; the keys it has."""
    keys = {piece.key for piece in cut(graph)[0]}
    if not keys <= known:
        table.add(profile_pieces(graph, device))
    return keys


def _time_whole(graphs: Sequence[Graph], device: Profiler, seconds: float) -> np.ndarray:
    """Microseconds of each network within about `seconds` for all, as medians, which is what is claimed of a network.

    On a busy machine medians of few runs tell networks apart badly, and the faster half of the runs well, but that half
    is faster than what is claimed, on some processors by a tenth. So each network's is the mean of its faster half,
    times what medians are of that, in the median over all.
    """
    models = [to_onnx(graph) for graph in graphs]
    runs = Runs(most=MOST_RUNS, fewest=LEAST_RUNS, seconds=seconds / ROUNDS / max(1, len(models)))
    found = [[device.measure([model], runs)[0] for model in models] for _ in range(ROUNDS)]
    quiet = np.array([[latency.quiet_ms for latency in one] for one in found])
    medians = np.array([[latency.median_ms for latency in one] for one in found])
    return np.median(quiet, axis=0) * np.median(medians / quiet) * 1e3


def _sums(graph: Graph, pieces: Entries) -> tuple[float, float]:
    """Profiled microseconds and runtime nodes of a whole network."""
    entries = [pieces[piece.key] for piece in cut(graph)[0]]
    return sum(raw for raw, _ in entries), sum(nodes for _, nodes in entries)


def fit_calibration(sums: Sequence[tuple[float, float]], measured_us: np.ndarray) -> Calibration:
    """Least squares on relative errors, drawn slightly to (0, 1, the median profiler cost per node).

    The pull only matters where the networks are too alike to tell the three numbers apart.
    """
    raw, nodes = np.array(sums, dtype=float).T
    per_node = float(np.median((raw - measured_us) / nodes))
    typical = float(np.median(measured_us))
    rows = np.stack([np.ones_like(raw), raw, -nodes], axis=1) / measured_us[:, None]
    pull = np.diag([0.1 / typical, 0.1, 0.1 * float(np.median(nodes)) / typical])
    goal = np.concatenate([np.ones(len(raw)), pull @ np.array([0.0, 1.0, per_node])])
    low, high = (0.0, 0.3, -20.0), (np.inf, 3.0, 20.0)
    scaling = np.array([typical, 1.0, 1.0])  # unknowns of one order of magnitude
    fit = lsq_linear(np.vstack([rows, pull]) * scaling, goal, (np.array(low) / scaling, np.array(high) / scaling))
    base_us, scale, node_us = (float(value) for value in fit.x * scaling)
    return Calibration(base_us=base_us, scale=scale, node_us=node_us)


class LeftOut(NamedTuple):
    """A network as the others alone predict it: their calibration, and a table without its own pieces. Microseconds."""

    measured: float
    known: float
    interpolated: float


def _leave_out(graphs: Sequence[Graph], measured_us: np.ndarray, pieces: Entries) -> list[LeftOut]:
    keys = [[piece.key for piece in cut(graph)[0]] for graph in graphs]
    found = []
    for index, own in enumerate(keys):
        rest = [other for other in range(len(graphs)) if other != index]
        if not rest:
            break
        shared = {key for other in rest for key in keys[other]}
        table = {key: entry for key, entry in pieces.items() if key in shared or key not in own}
        calibration = fit_calibration([_sums(graphs[other], pieces) for other in rest], measured_us[rest])
        families = fit_families({key: calibration.net_us(*entry) for key, entry in table.items()})
        parts = [(key in table, piece_us(key, table, families, calibration)) for key in own]
        known = calibration.base_us + sum(us for there, us in parts if there)
        found.append(LeftOut(float(measured_us[index]), known, sum(us for there, us in parts if not there)))
    return found


def interpolated(left_out: Sequence[LeftOut]) -> float:
    """By how much interpolated pieces must be multiplied, in the median over networks that have enough of them."""
    telling = [one for one in left_out if one.interpolated > TELLING * one.measured]
    factors = [(one.measured - one.known) / one.interpolated for one in telling]
    return float(np.clip(np.median(factors), 0.5, 2.0)) if len(factors) >= FEW else 1.0


def _check(left_out: Sequence[LeftOut]) -> Check:
    """How each would be predicted, its factor of what is interpolated from the others, too."""
    predicted = [
        one.known + one.interpolated * interpolated([other for other in left_out if other is not one])
        for one in left_out
    ]
    measured = [one.measured for one in left_out]
    errors = np.abs(np.array(predicted) / np.array(measured) - 1)
    return Check(
        networks=len(predicted),
        median_error=float(np.median(errors)) if len(errors) else 0.0,
        rank_correlation=spearman(predicted, measured) if len(predicted) > 2 else None,
        predicted_ms=tuple(value / 1e3 for value in predicted),
        measured_ms=tuple(value / 1e3 for value in measured),
    )
