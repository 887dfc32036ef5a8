"""A board that is not here: its limits and, where a law is known, its latency, from a target's file."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgewright.core.cost import Cost, CostName, cost
from edgewright.core.errors import BadInput
from edgewright.device.base import COUNTED, FILE_BYTES, FILE_BYTES_PER_OP, Device
from edgewright.device.base import Network as Model
from edgewright.device.board.limits import arena_of, forbidden_nodes, refusals, rules_for
from edgewright.device.board.target import Target, Type
from edgewright.device.here.cpu import Cpu
from edgewright.device.measure import Artifact, Latency, Runs
from edgewright.device.table.pieces import Piece, cut
from edgewright.device.table.table import Calibration, Check, LatencyModel
from edgewright.device.table.widths import Prices
from edgewright.ir.from_onnx import loaded, read, read_work
from edgewright.ir.graph import Graph, count_params
from edgewright.ir.liveness import graph_peak_bytes
from edgewright.ir.network import FLOAT_BYTES, Network, from_graph, moved_bytes


class Board(Device):
    """A target that networks are fitted to from afar: nothing is measured there, and every number says so.

    Sizes and memory are counted in the target's first type (int8: a byte a number), as the network will be shipped. Its
    latency is its law's; of a target without a law, latencies are this machine's, and a ceiling on them is refused.
    """

    as_is = False

    def __init__(self, target: Target, threads: int = 1) -> None:
        if threads > target.cores:
            raise BadInput(f"{target.name} has {target.cores} cores; {threads} threads were asked for")
        self.target, self.name, self.threads = target, target.name, threads
        self.gives = COUNTED | target.gives
        self.can, self.types, self.align, self.runtime = target.can, target.types, target.align, target.runtime
        self._here = Cpu(threads)

    def identity(self) -> dict[str, Any]:
        target = self.target
        own = {"name": target.name, "runtime": self.runtime, "type": target.types[0]}
        if target.law is None:
            return own | {
                "latency_of": "this machine",
                **{k: v for k, v in self._here.identity().items() if k not in own},
            }
        return own | {"latency_of": f"a law ({target.law.source})"}

    def take_turns(self, artifacts: Sequence[Artifact], runs: Runs) -> list[Latency]:
        """What the law says of each file; without one, this machine's latencies."""
        predicted = [self.predict(artifact.file) for artifact in artifacts]
        known = [latency for latency in predicted if latency is not None]
        return known if len(known) == len(artifacts) else self._here.take_turns(artifacts, runs)

    def predict(self, model: bytes | Path, kind: Type | None = None) -> Latency | None:
        law = self.target.law
        if law is None or kind not in (None, self.types[0]):
            return None
        return Latency.by_law(sum(law.us(family, macs) for family, macs in read_work(model)) / 1e3)

    def latency_model(self, sampled: Sequence[Graph], cache: Path | None = None, seconds: float = 30) -> LatencyModel:
        """The law, as the search asks it: nothing is measured. Without one, this machine's model."""
        if self.target.law is None:
            return self._here.latency_model(sampled, cache, seconds)
        return LatencyModel(
            device=self.identity(),
            calibration=Calibration(base_us=0.0, scale=1.0, node_us=0.0),
            pieces={},
            families={},
            check=Check(networks=0, median_error=0.0, rank_correlation=None, predicted_ms=(), measured_ms=()),
            seconds=0.0,
            law=self.target.law,
        )

    def prices(self, pieces: Iterable[Piece], cache: Path | None = None, seconds: float = 60) -> Prices:
        law = self.target.law
        return self._here.prices(pieces, cache, seconds) if law is None else law.piece_us

    def ceilings(self) -> dict[CostName, float]:
        found: dict[CostName, float] = {}
        if self.target.ram_kb is not None:
            found["peak_memory"] = 1024 * self.target.ram_kb
        if self.target.flash_kb is not None:
            found["size"] = 1024 * self.target.flash_kb
        return found

    def refused(self, graph: Graph) -> list[str]:
        return [op.kind for op in graph.ops if op.kind in self.target.forbidden]

    def forbidden(self, model: Model) -> list[str]:
        return forbidden_nodes(self.target, loaded(model))

    def refusals(self, model: Model, *, kind: Type | None = None, size_bytes: int | None = None) -> list[str]:
        return refusals(self.target, model, kind=kind, size_bytes=size_bytes)

    def check(self, ceilings: Iterable[CostName]) -> None:
        if "latency" in ceilings and self.target.law is None:
            raise BadInput(
                f"nobody has said how fast {self.target.name} is: its file has no law; leave the latency ceiling out, "
                "or give a law in a file of your own (edgewright device add NAME --from FILE.yaml)"
            )
        super().check(ceilings)

    def costs(self, graph: Graph) -> dict[str, Cost]:
        size = self.target.number_bytes * count_params(graph) + FILE_BYTES_PER_OP * len(graph.ops) + FILE_BYTES
        adds = rules_for(self.target).fuse == "all"
        peak = graph_peak_bytes(graph, adds=adds, number_bytes=self.target.number_bytes)
        return super().costs(graph) | {
            "size": cost("size", size, "analytic"),
            "peak_memory": cost("peak_memory", peak, "analytic"),
            **self._said(from_graph(graph, self.target.number_bytes), self._graph_ms(graph)),
        }

    def _graph_ms(self, graph: Graph) -> float:
        law = self.target.law
        return 0.0 if law is None else sum(map(law.piece_us, cut(graph)[0])) / 1e3

    def _said(self, network: Network, ms: float) -> dict[str, Cost]:
        """The costs that the target's file speaks of; ms: what its law says."""
        found: dict[str, Cost] = {}
        if (energy := self.target.energy) is not None:
            moved = moved_bytes(network, self.target.number_bytes)
            found["energy"] = cost("energy", energy.mj(network.macs, moved, ms), "law")
        if self.target.area_mm2 is not None:
            found["area"] = cost("area", self.target.area_mm2, "given")
        return found

    def shipped(self, path: Path) -> dict[str, Cost]:
        return {}  # another file will run there, of another type

    def file_costs(self, path: Path, params: int) -> dict[str, Cost]:
        size = path.stat().st_size - (FLOAT_BYTES - self.target.number_bytes) * params
        peak = self.peak_bytes(path, self.types[0])
        latency = self.predict(path)
        return {
            "size": cost("size", size, "analytic"),
            "peak_memory": cost("peak_memory", peak, "analytic"),
            **self._said(read(path, self.target.number_bytes), latency.median_ms if latency else 0.0),
        }

    def peak_bytes(self, path: Path, kind: Type | None = None) -> int:
        return arena_of(self.target, path, kind=kind).bytes

    def remarks(self) -> tuple[str, ...]:
        latency = "its law's" if self.target.law else "this machine's"
        counted = f"size and memory are counted in {self.types[0]}, accuracy is of the float file here"
        return (f"{self.name}: latency is {latency}, {counted}",)
