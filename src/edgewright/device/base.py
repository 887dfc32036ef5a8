"""What a device is: it names itself, and answers everything that is asked of it by what it *can*.

    measure      runs a network there and times it
    predict      says what a network takes without running it: by a table of measurements, or by a law
    limits       has limits of its own: memory, flash, operators, types
    peak_memory  says what the runtime really held in memory

Nobody asks what class a device is. The methods have answers for every device, and a figure says itself how it was
obtained (`Latency.how`, `Cost.how`). A new device is one file with a subclass, and a line in `resolve`; what measures
gives `identity`, `take_turns` and `profile`, and has latency tables of its own for it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import onnx

from edgewright.core.cost import KINDS, Cost, CostName, cost
from edgewright.core.errors import BadInput
from edgewright.core.home import cache_folder
from edgewright.device.board.target import Type
from edgewright.device.measure import TRIES_SECONDS, Artifact, Latency, Model, Runs, as_artifact
from edgewright.device.profile import Profile
from edgewright.device.table.calibrate import build_latency_model
from edgewright.device.table.pieces import Piece
from edgewright.device.table.table import LatencyModel, LatencyTable
from edgewright.device.table.widths import Prices, measured_prices
from edgewright.ir.graph import Graph, count_macs, count_params
from edgewright.ir.liveness import graph_peak_bytes, onnx_peak_bytes

# An exported file holds, beside 4 bytes per parameter, about this much per operator (its node, names and shapes)
# and for the model as a whole.
FILE_BYTES_PER_OP = 190
FILE_BYTES = 2048
Can = Literal["measure", "predict", "limits", "peak_memory"]
Network = bytes | Path | onnx.ModelProto
COUNTED = frozenset({"size", "peak_memory", "macs", "params"})  # costs that any device gives: `Device.costs`
UNCOMPARED = ("cores",)  # of an identity: a container may be given fewer of the same


class Device(ABC):
    """Something that a network must fit.

    name: as people call it.   can: see the top of this file.   gives: the costs of a network that are known there.
    threads: inside one operator.   types: of numbers that it computes in, the first is what is counted with.   as_is:
    whether the exported file itself runs there; where not, a tool of the device's own turns the float file into what
    does, and nothing is gained by choosing a type here.   align: channels go in groups of so many.   runtime: what runs
    networks there, by its name in `export.runtimes` where it is one of those.
    """

    name: str
    can: frozenset[Can] = frozenset()
    gives: frozenset[CostName] = COUNTED | {"latency"}
    threads: int = 1
    types: tuple[Type, ...] = ("fp32", "bf16", "int8")
    as_is: bool = True
    align: int = 8
    runtime: str = "onnxruntime"

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What figures depend on: processor, cores, runtime and its version, threads; by it tables are kept."""

    # ---- time ----

    def measure(self, models: Sequence[Model], runs: Runs | None = None) -> list[Latency]:
        """What each network takes, in turns with each other and with the fixed reference network; by its law where
        nothing can be measured, as `how` says. Compare networks by one call: ratios from one interleaved run hold on a
        machine whose speed wanders."""
        runs = runs or Runs()
        artifacts, found, begun = [as_artifact(model) for model in models], list[list[Latency]](), monotonic()
        while artifacts:
            found.append(self.take_turns(artifacts, runs))
            tries, spent = len(found), monotonic() - begun
            quiet = not any(latency.noisy for latency in found[-1])
            if quiet or tries >= runs.tries or spent * (tries + 1) / tries > TRIES_SECONDS:
                return min(found, key=lambda latencies: latencies[0].reference_drift)
        return []

    def take_turns(self, artifacts: Sequence[Artifact], runs: Runs) -> list[Latency]:
        """One measurement (`agent.in_turns`).   Errors: BadInput for an artifact that does not open there."""
        raise self._cannot()

    def profile(self, model: Model, *, seconds: float = 0.03, runs: int = 6) -> Profile:
        """At least `runs` runs and `seconds` of an ONNX model under the runtime's profiler (`agent.profiled`)."""
        raise self._cannot()

    def steady(self) -> AbstractContextManager[None]:
        """What many measurements in a row are made inside of, so that all are made alike."""
        return nullcontext()

    def opens(self, runtime: str) -> bool:
        """Whether files of that runtime (by its name in `export.runtimes`) can be measured there."""
        return runtime == "onnxruntime"

    def _cannot(self) -> BadInput:
        return BadInput(f"nothing can be measured on {self.name}; name a device that can (edgewright devices)")

    # ---- predictions ----

    @property
    def key(self) -> str:
        """The identity as a text, for tables of measurements."""
        told = ((name, value) for name, value in self.identity().items() if name not in UNCOMPARED)
        return " | ".join(f"{name} {value}" for name, value in told)

    def latency_model(self, sampled: Sequence[Graph], cache: Path | None = None, seconds: float = 30) -> LatencyModel:
        """A predictor for the space that `sampled` are from: the table in the folder `cache` (default:
        `cache_folder()`), completed by what is profiled here, and calibrated with whole networks."""
        if not sampled:
            raise BadInput("a latency model needs at least one sampled network to measure")
        return build_latency_model(sampled, self._table(cache), self, seconds)

    def prices(self, pieces: Iterable[Piece], cache: Path | None = None, seconds: float = 60) -> Prices:
        """Microseconds of any piece like these; what the table lacks is measured first."""
        return measured_prices(pieces, self, self._table(cache), seconds)

    def predict(self, model: bytes | Path, kind: Type | None = None) -> Latency | None:
        """What a law says of an ONNX model computed in `kind`; None where it has no law, or none for that type."""
        return None

    def refuse_other(self, begun: Mapping[str, Any]) -> None:
        """Errors: BadInput where what was measured on the device of identity `begun` does not hold here."""
        if found := difference(begun, self.identity()):
            raise BadInput(
                f"this run was begun on another device ({found}), whose latencies do not hold here; go on there, or "
                "start a new run"
            )

    # ---- limits ----

    def ceilings(self) -> dict[CostName, float]:
        """What the device itself allows, beside what the user asks: bytes of memory and of files."""
        return {}

    def check(self, ceilings: Iterable[CostName]) -> None:
        """Errors: BadInput for a ceiling that nobody could hold a network against on this device."""
        for name in ceilings:
            if name not in self.gives:
                raise BadInput(
                    f"{self.name} does not say the {KINDS[name].title} of a network; leave {KINDS[name].field} out, or "
                    "name a board whose file says it (docs/targets.md)"
                )

    def refused(self, graph: Graph) -> list[str]:
        """The operators of a graph that it cannot run, by kind, each as often as it occurs."""
        return []

    def forbidden(self, model: Network) -> list[str]:
        """A sentence for each node of an ONNX model that it cannot run."""
        return []

    def refusals(self, model: Network, *, kind: Type | None = None, size_bytes: int | None = None) -> list[str]:
        """Why it cannot run an ONNX model in a type: a sentence for each reason (see `board.limits.refusals`)."""
        return []

    # ---- costs ----

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

    def shipped(self, path: Path) -> dict[str, Cost]:
        """Size and peak memory of the exported file, where that is what runs on the device."""
        return {
            "size": cost("size", path.stat().st_size, "measured"),
            "peak_memory": cost("peak_memory", self.peak_bytes(path), "analytic"),
        }

    def file_costs(self, path: Path, params: int) -> dict[str, Cost]:
        """The same of any device; where another file will run there, in the type that it will have.

        params: of the network, float in this file.
        """
        return self.shipped(path)

    def peak_bytes(self, path: Path, kind: Type | None = None) -> int:
        """Bytes of activations that an ONNX file needs at once there, in `kind` or the file's own type."""
        return onnx_peak_bytes(path)

    def runtime_peak(self, path: Path) -> int | None:
        """Bytes of activations that the runtime's allocator held at most; None where it does not say."""
        return self.profile(path, seconds=0, runs=1).held_bytes() if "peak_memory" in self.can else None

    def remarks(self) -> tuple[str, ...]:
        """What is to be known of the figures, where they are not all measured there."""
        return ()

    def _table(self, cache: Path | None) -> LatencyTable:
        return LatencyTable((cache or cache_folder()) / "latency.db", self.key)


def difference(begun: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """In which word two identities differ; None where they are one device.

    begun: written down, perhaps by a version that knew fewer words.
    """
    for name, value in begun.items():
        if name not in UNCOMPARED and here.get(name) != value:
            return f"{name.replace('_', ' ')} {value}, here {here.get(name)}"
    return None
