"""A board that is not here: its limits and, where a law is known, its latency, from a target's file."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, ClassVar

from edgewright.core.cost import Cost, CostName, cost
from edgewright.core.errors import BadInput
from edgewright.device.base import FILE_BYTES, FILE_BYTES_PER_OP, Device
from edgewright.device.board.limits import rules_for
from edgewright.device.board.target import Target
from edgewright.device.here.cpu import Cpu
from edgewright.device.measure import Latency
from edgewright.device.table.table import Blocks, Calibration, Check, LatencyModel
from edgewright.ir.graph import Graph, count_params
from edgewright.ir.memory import graph_peak_bytes
from edgewright.ir.onnx_work import read_work
from edgewright.ir.steps import FLOAT_BYTES


class Board(Device):
    """A target that networks are fitted to from afar: nothing is measured there, and every number says so.

    Sizes and memory are counted in the target's first type (int8: a byte a number), as the network will be shipped. Its
    latency is its law's; of a target without a law, latencies are this machine's, and a ceiling on them is refused.
    """

    name: ClassVar[str] = "board"
    summary: ClassVar[str] = "A board described in a file."
    source: ClassVar[str] = "its file"

    def __init__(self, target: Target, threads: int = 1) -> None:
        self.target = target
        if threads > target.cores:
            raise BadInput(f"{target.name} has {target.cores} cores; {threads} threads were asked for")
        self._here = Cpu(threads)

    def fingerprint(self) -> dict[str, Any]:
        target = self.target
        own = {"name": target.name, "runtime": target.runtime, "type": target.types[0]}
        if target.law is None:
            return own | {
                "latency_of": "this machine",
                **{k: v for k, v in self._here.fingerprint().items() if k not in own},
            }
        return own | {"latency_of": f"a law ({target.law.source})"}

    def measure(self, model: bytes | Path, runs: int = 200) -> Latency:
        """What the law says of an ONNX file; without one, this machine's latency."""
        if (law := self.target.law) is None:
            return self._here.measure(model, runs)
        return Latency.by_law(sum(law.us(family, macs) for family, macs in read_work(model)) / 1e3)

    def latency_model(self, sampled: Sequence[Blocks], cache: Path | None = None, seconds: float = 30) -> LatencyModel:
        """The law, as the search asks it: nothing is measured. Without one, this machine's model."""
        if self.target.law is None:
            return self._here.latency_model(sampled, cache, seconds)
        return LatencyModel(
            device=self.fingerprint(),
            calibration=Calibration(base_us=0.0, scale=1.0, node_us=0.0),
            pieces={},
            families={},
            check=Check(networks=0, median_error=0.0, rank_correlation=None, predicted_ms=(), measured_ms=()),
            seconds=0.0,
            law=self.target.law,
        )

    def ceilings(self) -> dict[CostName, float]:
        found: dict[CostName, float] = {}
        if self.target.ram_kb is not None:
            found["peak_memory"] = 1024 * self.target.ram_kb
        if self.target.flash_kb is not None:
            found["size"] = 1024 * self.target.flash_kb
        return found

    def refused(self, graph: Graph) -> list[str]:
        return [op.kind for op in graph.ops if op.kind in self.target.forbidden]

    def check(self, ceilings: Container[str]) -> None:
        if "latency" in ceilings and self.target.law is None:
            raise BadInput(
                f"nobody has said how fast {self.target.name} is: its file has no law; leave the latency ceiling out, "
                "or give a law in a file of your own (edgewright device add NAME --from FILE.yaml)"
            )

    def costs(self, graph: Graph) -> dict[str, Cost]:
        size = self.target.number_bytes * count_params(graph) + FILE_BYTES_PER_OP * len(graph.ops) + FILE_BYTES
        whole = graph_peak_bytes(graph, adds=rules_for(self.target).fuse == "all")
        peak = whole * self.target.number_bytes // FLOAT_BYTES
        return super().costs(graph) | {
            "size": cost("size", size, "analytic"),
            "peak_memory": cost("peak_memory", peak, "analytic"),
        }

    def shipped(self, path: Path) -> dict[str, Cost]:
        return {}  # another file will run there, of another type
