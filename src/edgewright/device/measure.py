"""What times say: a latency with its spread, how long to measure, and the fixed reference network beside it.

A latency alone says little: another process may have had the core. So every measurement interleaves the networks with
the same small reference network (`agent.in_turns`); when the reference's own time moves, the machine was not quiet: the
result says so.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from edgewright.core.cost import Cost, How, cost
from edgewright.core.data import Frozen
from edgewright.device.agent import Call
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.ir.to_onnx import to_onnx

NOISY_DRIFT = 0.05
TRIES = 3  # of what is claimed
TRIES_SECONDS = 10.0  # all of them together, the first excepted: a slow network's averages over much noise


class Latency(Frozen):
    """What a network took, in ms: one `session.run` from a NumPy array to a NumPy array, batch 1.

    reference_ms: median of the fixed reference network in the same minutes. reference_drift: slowest over fastest
    quarter of its runs (medians), minus 1; more than 0.05 makes the measurement `noisy`. how: "law" where nothing
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
    def of(cls, times: Sequence[float], reference: Sequence[float]) -> "Latency":
        """From the times of one network and of the reference network beside it, ms, in the order they were taken."""
        median, p90, p99 = (float(value) for value in np.quantile(times, (0.5, 0.9, 0.99)))
        return cls(
            median_ms=median,
            p90_ms=p90,
            p99_ms=p99,
            minimum_ms=min(times),
            runs=len(times),
            reference_ms=float(np.median(reference)),
            reference_drift=drift(reference),
            samples=tuple(times),
        )

    @classmethod
    def by_law(cls, milliseconds: float) -> "Latency":
        """What a law says of a device that is not here."""
        figures = dict.fromkeys(("median_ms", "p90_ms", "p99_ms", "minimum_ms"), milliseconds)
        return cls(**figures, runs=0, reference_ms=0.0, reference_drift=0.0, samples=(milliseconds,), how="law")

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


class Runs(Frozen):
    """How long to measure.

    most: timed runs of each network, where they fit into `seconds`.   fewest: timed runs of each, however long they
    take.   tries: measurements while the machine is not quiet, the quietest counts; none that would make all tries
    longer than TRIES_SECONDS. Repeating until the answer pleases would be choosing the luckiest: only the reference
    network decides.
    """

    most: int = Field(default=200, ge=1)
    fewest: int = Field(default=0, ge=0)
    seconds: float = Field(default=math.inf, gt=0)
    tries: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class Artifact:
    """A file and what opens it.

    runtime: by its name in `export.runtimes`.   opened: on this machine and so many threads, as a function that runs it
    once; ONNX Runtime's own by default.
    """

    file: bytes | Path
    runtime: str = "onnxruntime"
    opened: Callable[[int], Call] | None = None


Model = Artifact | bytes | Path


def as_artifact(model: Model) -> Artifact:
    """An ONNX file, or its bytes, as what ONNX Runtime opens; an artifact as it is."""
    return model if isinstance(model, Artifact) else Artifact(model)


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


@functools.cache
def reference_model() -> bytes:
    """The same as an ONNX file."""
    return to_onnx(reference_graph())
