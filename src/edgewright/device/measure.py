"""The measuring protocol: one network or several against a fixed reference network, on one core, run by run.

A latency alone says little: another process may have had the core. So every measurement interleaves the networks with
the same small reference network; when the reference's own time moves, the machine was not quiet: the result says so.
"""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from edgewright.core.cost import Cost, How, cost
from edgewright.core.data import Frozen
from edgewright.device.here.runtime import input_for, open_session
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.ir.to_onnx import to_onnx

NOISY_DRIFT = 0.05
BURST = 10  # runs of one network before the next one's turn: a steady caller's caches, not a stranger's
REFERENCE_BURST = 5
Call = Callable[[], object]
Clock = Callable[[], int]


class Latency(Frozen):
    """What a network took, in ms: one `session.run` from a NumPy array to a NumPy array, batch 1.

    reference_ms: median of the fixed reference network in the same minutes. reference_drift: slowest over fastest
    quarter of its runs (medians), minus 1; more than 0.05 makes the measurement `noisy`. how: "analytic" where nothing
    was run and a law said it (runs: 0).
    """

    median_ms: float
    p90_ms: float
    p99_ms: float
    minimum_ms: float
    runs: int
    reference_ms: float
    reference_drift: float
    samples: tuple[float, ...]
    how: How = "measured"

    @classmethod
    def by_law(cls, milliseconds: float) -> "Latency":
        """What a law says of a device that is not here."""
        figures = dict.fromkeys(("median_ms", "p90_ms", "p99_ms", "minimum_ms"), milliseconds)
        return cls(**figures, runs=0, reference_ms=0.0, reference_drift=0.0, samples=(milliseconds,), how="analytic")

    @property
    def noisy(self) -> bool:
        return self.reference_drift > NOISY_DRIFT

    def cost(self) -> Cost:
        """The median as a cost, with its spread where it was measured."""
        if self.how != "measured":
            return cost("latency", self.median_ms, self.how)
        return cost(
            "latency",
            self.median_ms,
            "measured",
            p50=self.median_ms,
            p90=self.p90_ms,
            p99=self.p99_ms,
            minimum=self.minimum_ms,
        )

    @property
    def quiet_ms(self) -> float:
        """Mean of the faster half of the runs, ms: steadier than the median where others use the machine."""
        return quiet_mean(self.samples)


def measure(
    model: bytes | Path, *, threads: int = 1, runs: int = 200, seconds: float | None = None, clock: Clock | None = None
) -> Latency:
    """Measure one ONNX model; see `measure_many`."""
    return measure_many([model], threads=threads, runs=runs, seconds=seconds, clock=clock)[0]


def measure_many(
    models: Sequence[bytes | Path],
    *,
    threads: int = 1,
    runs: int = 200,
    seconds: float | None = None,
    clock: Clock | None = None,
) -> list[Latency]:
    """Measure several ONNX models in turns with each other and with the reference network.

    Compare networks by one call: ratios from one interleaved run hold on a machine whose speed wanders.

    Args:
        threads: threads inside one operator. With one thread the process is pinned to the idlest core meanwhile.
        runs: timed runs of each model, at least.
        seconds: go on for at least this long.
        clock: nanoseconds, for tests.

    Each timed run is `session.run` with a NumPy array, as a user would call it; an IO binding would save about 5 us.
    """
    sessions = [open_session(model, threads) for model in models]
    with pinned(threads):
        calls = [_call(session) for session in sessions]
        return time_calls(calls, reference_call(threads), runs=runs, seconds=seconds, clock=clock)


def reference_call(threads: int = 1) -> Call:
    """One run of the fixed reference network, for `time_calls`."""
    return _call(open_session(to_onnx(reference_graph()), threads))


def time_calls(
    calls: Sequence[Call], reference: Call, *, runs: int, seconds: float | None = None, clock: Clock | None = None
) -> list[Latency]:
    """The protocol itself on plain functions: warm up, then bursts of each call with the reference after each."""
    clock = clock or time.perf_counter_ns
    for call in (*calls, reference):
        _warm_up(call, clock)
    samples: list[list[float]] = [[] for _ in calls]
    reference_samples: list[float] = []
    start = clock()
    while len(samples[0]) < runs or (seconds is not None and clock() - start < seconds * 1e9):
        for call, times in zip(calls, samples, strict=True):
            times.extend(_times(call, min(BURST, max(1, runs)), clock))
            reference_samples.extend(_times(reference, REFERENCE_BURST, clock))
    return [_latency(times, reference_samples) for times in samples]


def time_plain(
    models: Sequence[bytes | Path], *, threads: int = 1, seconds: float = 5, rounds: int = 3, runs: int = 60
) -> list[list[float]]:
    """Plain times (ms each) of many models within about `seconds`, each in `rounds` bursts spread over the time.

    For the calibration: no reference network, at most `runs` runs of a model, and at least two in each round.
    """
    calls = [_call(open_session(model, threads)) for model in models]
    samples: list[list[float]] = [[] for _ in calls]
    share_ms = seconds * 1e3 / max(1, len(calls)) / rounds
    for _ in range(rounds):
        for call, times in zip(calls, samples, strict=True):
            _warm_up(call, time.perf_counter_ns, least_ms=min(10, share_ms / 4), most_ms=max(20, share_ms / 2))
            (once,) = _times(call, 1, time.perf_counter_ns)
            count = min(-(-runs // rounds), max(2, int(share_ms / 2 / once)))
            times.extend(_times(call, count, time.perf_counter_ns))
    return samples


def _call(session) -> Call:
    feed = {session.get_inputs()[0].name: input_for(session)}
    return functools.partial(session.run, None, feed)


def _times(call: Call, count: int, clock: Clock) -> list[float]:
    """`count` timed runs, ms each."""
    times = []
    for _ in range(count):
        before = clock()
        call()
        times.append((clock() - before) / 1e6)
    return times


def _warm_up(call: Call, clock: Clock, least_ms: float = 30, most_ms: float = 1000) -> None:
    """Run until three runs in a row bring no new best by more than 2 % and `least_ms` have passed."""
    start, best, stale = clock(), float("inf"), 0
    for _ in range(10_000):
        (took,) = _times(call, 1, clock)
        stale = 0 if took < 0.98 * best else stale + 1
        best = min(best, took)
        passed_ms = (clock() - start) / 1e6
        if (stale >= 3 and passed_ms >= least_ms) or passed_ms >= most_ms:
            return


def _latency(times: Sequence[float], reference: Sequence[float]) -> Latency:
    median, p90, p99 = (float(value) for value in np.quantile(times, (0.5, 0.9, 0.99)))
    return Latency(
        median_ms=median,
        p90_ms=p90,
        p99_ms=p99,
        minimum_ms=min(times),
        runs=len(times),
        reference_ms=float(np.median(reference)),
        reference_drift=drift(reference),
        samples=tuple(times),
    )


def drift(samples: Sequence[float]) -> float:
    """How far a time wandered: the medians of its four quarters, slowest over fastest, minus 1."""
    quarters = [np.median(part) for part in np.array_split(np.asarray(samples), 4) if len(part)]
    return float(max(quarters) / min(quarters) - 1)


def quiet_mean(samples: Sequence[float]) -> float:
    """The mean of the faster half."""
    ordered = np.sort(np.asarray(samples, dtype=float))
    return float(ordered[: -(-len(ordered) // 2)].mean())


@functools.cache
def reference_graph() -> Graph:
    """The fixed reference network: 32 px, a stem and three residual depthwise-separable blocks. Never change it."""
    builder = GraphBuilder((3, 32, 32))
    x = builder.relu(builder.conv(0, 16, 3, 2))
    for _ in range(3):
        y = builder.relu(builder.conv(x, 48))
        y = builder.relu(builder.conv(y, 48, 3, 1, 48))
        x = builder.add(builder.conv(y, 16), x)
    builder.linear(builder.flatten(builder.global_pool(x)), 10)
    return builder.graph()


@contextlib.contextmanager
def pinned(threads: int = 1) -> Iterator[None]:
    """Keep this process on the idlest core it may use meanwhile; nothing for several threads or where not possible."""
    if threads != 1 or not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {_idlest(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _idlest(cores: set[int], seconds: float = 0.02) -> int:
    """The core with the least work during a short look at /proc/stat; any where there is none."""
    try:
        before = _busy_ticks()
        time.sleep(seconds)
        after = _busy_ticks()
    except (OSError, ValueError):
        return max(cores)
    # On a tie the core is drawn by process, so that two measuring processes do not always meet.
    return min(cores, key=lambda core: (after.get(core, 0) - before.get(core, 0), (core + os.getpid()) % len(cores)))


def _busy_ticks() -> dict[int, int]:
    ticks = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks[int(name[3:])] = sum(map(int, fields[:3]))  # user, nice, system
    return ticks
