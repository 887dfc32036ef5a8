"""What a device is: it names itself, costs a graph by arithmetic, and measures and predicts latency."""

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, ClassVar

from edgewright.core.cost import Cost, CostName, cost
from edgewright.device.measure import Latency
from edgewright.device.table.table import Blocks, LatencyModel
from edgewright.ir.graph import Graph, count_macs, count_params
from edgewright.ir.memory import graph_peak_bytes, onnx_peak_bytes

# An exported file holds, beside 4 bytes per parameter, about this much per operator (its node, names and shapes)
# and for the model as a whole.
FILE_BYTES_PER_OP = 190
FILE_BYTES = 2048


class Device(ABC):
    """Something that a network must fit. `source`: where its runtime or cost model is described."""

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What measured numbers depend on: processor, cores, runtime and its version, threads."""

    @abstractmethod
    def measure(self, model: bytes | Path, runs: int = 200) -> Latency:
        """The latency of an ONNX model, by the measuring protocol."""

    @abstractmethod
    def latency_model(self, sampled: Sequence[Blocks], cache: Path | None = None, seconds: float = 30) -> LatencyModel:
        """A calibrated predictor, from networks sampled from the space in question; see `calibrate`."""

    def ceilings(self) -> dict[CostName, float]:
        """What the device itself allows, beside what the user asks: bytes of memory and of files."""
        return {}

    def refused(self, graph: Graph) -> list[str]:
        """The operators of a graph that it cannot run, by kind, each as often as it occurs."""
        return []

    def check(self, ceilings: Container[str]) -> None:  # noqa: B027 (most devices know all their costs)
        """Errors: BadInput for a ceiling that nobody could hold a network against on this device."""

    def shipped(self, path: Path) -> dict[str, Cost]:
        """Size and peak memory of the exported file, where that is what runs on the device."""
        return {
            "size": cost("size", path.stat().st_size, "measured"),
            "peak_memory": cost("peak_memory", onnx_peak_bytes(path), "analytic"),
        }

    def costs(self, graph: Graph) -> dict[str, Cost]:
        """What follows from a graph by arithmetic: macs, params, peak_memory and an estimate of the file's size."""
        params = count_params(graph)
        size = 4 * params + FILE_BYTES_PER_OP * len(graph.ops) + FILE_BYTES
        return {
            "macs": cost("macs", count_macs(graph), "analytic"),
            "params": cost("params", params, "analytic"),
            "peak_memory": cost("peak_memory", graph_peak_bytes(graph), "analytic"),
            "size": cost("size", size, "analytic"),
        }
