"""What a runtime's profile says of a network: the time of every node, and the bytes that its allocator held."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgewright.device.measure import Latency, Model, Runs

SKIPPED_RUNS = 2  # the first ones allocate


@dataclass(frozen=True)
class Profile:
    """Some runs of one network under the profiler (`agent.profiled`).

    names: of the nodes of one run, in order.   micros: (runs, nodes), cut to whole microseconds by the runtime.
    reader: the first node that reads an array of the network's input's shape.   input_bytes: of its inputs.
    held, grown: (runs, nodes), bytes of its allocator when a node was done, and by how much that node changed them;
    None where the runtime does not say.
    """

    names: tuple[str, ...]
    micros: np.ndarray
    reader: int = 0
    input_bytes: int = 0
    held: np.ndarray | None = None
    grown: np.ndarray | None = None

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Profile":
        memory = {name: np.array(found[name]) for name in ("held", "grown") if name in found}
        micros = np.array(found["micros"], dtype=float)
        return cls(tuple(found["names"]), micros, found["reader"], found["input_bytes"], **memory)

    def node_us(self) -> np.ndarray:
        """Mean microseconds of each node over the faster half of its runs, the first ones left out."""
        ordered = np.sort(self.micros[SKIPPED_RUNS:], axis=0)[: -(-(len(self.micros) - SKIPPED_RUNS) // 2)]
        return ordered.mean(axis=0) + 0.5  # what was cut off, in the mean

    def held_bytes(self) -> int | None:
        """The most bytes of activations that the allocator held during the first run, the caller's input included
        until its reader has run; None where the runtime does not say.

        More than `onnx_peak_bytes` where channels are padded to whole vector groups, where a tensor is kept in two
        layouts at once, and where the runtime's planner lends a dead tensor's buffer to a later one and holds it in
        between.
        """
        if self.held is None or self.grown is None:
            return None
        weights = self.held[0, 0] - self.grown[0, 0]
        alive = np.where(np.arange(len(self.names)) <= self.reader, self.input_bytes, 0)
        return int((self.held[0] - weights + alive).max())

    def arena_bytes(self) -> int | None:
        """The block that ONNX Runtime takes for all activations at once, from the second run on: its real arena.

        The first run is watched; from then on its memory pattern has an offset for every tensor in one block, which is
        held from the first operator to the last. Inputs and outputs are the caller's. None where it does not say.
        """
        if self.held is None or self.grown is None:
            return None
        before = self.held[:, 0] - self.grown[:, 0]
        return int(before[1] - before[0])


class Profiler(Protocol):
    """What fills a latency table: any device that can measure (`device.base.Device`)."""

    @property
    def key(self) -> str: ...

    def identity(self) -> dict[str, Any]: ...

    def steady(self) -> AbstractContextManager[None]: ...

    def profile(self, model: Model, *, seconds: float = 0.03, runs: int = 6) -> Profile: ...

    def measure(self, models: Sequence[Model], runs: Runs | None = None) -> list[Latency]: ...
