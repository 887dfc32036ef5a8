"""What a compression finds out on its way: things tried, files made, ways to train."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from edgewright.core.cost import Cost
from edgewright.core.data import Frozen
from edgewright.core.result import FIGURE
from edgewright.device.compare import Ratio
from edgewright.device.measure import Latency
from edgewright.export.runtimes.base import Kind


class Trial(Frozen):
    """One thing that was tried: a point of the trade curve. type: of its numbers.   figure: the one that decides, on
    val, of the file as it would ship; None where it has not learned yet.   verdict: why it is not handed out, or
    "handed out"."""

    name: str
    type: Kind
    costs: dict[str, Cost]
    figure: float | None = Field(default=None, validation_alias=FIGURE)
    verdict: str = ""

    @property
    def latency_ms(self) -> float:
        return self.costs["latency"].value


@dataclass(frozen=True)
class File:
    """A file that could be shipped. figure: the one that decides, on val.   own: latency of the file as it was, in
    turns with this one's.   ratio: of the two, None where nothing is measured.   refused: why it must not be handed
    out, ceilings aside.   in_float: layers of an int8 file that had to stay in float."""

    kind: Kind
    path: Path
    costs: dict[str, Cost]
    figure: float
    latency: Latency
    own: Latency
    ratio: Ratio | None
    note: str = ""
    refused: str | None = None
    in_float: int = 0

    def trial(self, name: str, verdict: str) -> Trial:
        return Trial(name=name, type=self.kind, costs=self.costs, figure=self.figure, verdict=verdict)


class Way(Frozen):
    """One way to the ceilings that asks for training. plan: the rewrites before it, as data.   costs: of the untrained
    network as a file of `type`.   merge, blocks: how it is finished afterwards (see `finished`).   rounded: whether it
    learns as the int8 file that it will be."""

    name: str
    type: Kind
    plan: dict[str, Any]
    costs: dict[str, Cost]
    merge: tuple[str, ...]
    blocks: tuple[str, ...] = ()
    rounded: bool = False


class Decided(Frozen):
    """What was found out before anything learns. merge: layers that merge, and are surely faster for it.   ready:
    that exact rewrites and a type are enough.   ways: what to train otherwise, likeliest first."""

    trials: tuple[Trial, ...]
    merge: tuple[str, ...]
    remarks: tuple[str, ...]
    ready: bool
    ways: tuple[Way, ...] = ()
