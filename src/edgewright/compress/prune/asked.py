"""What a pruning is asked: what may be left, what a channel is worth, what may go at all, and by whose times."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from torch import Tensor, nn

from edgewright.compress.prune.groups import Group
from edgewright.compress.prune.importance import Batches, Importance, Loss, cross_entropy
from edgewright.compress.prune.importances.fpgm import fpgm
from edgewright.compress.prune.importances.magnitude import magnitude
from edgewright.compress.prune.importances.network_slimming import network_slimming
from edgewright.compress.prune.importances.nvit import nvit
from edgewright.compress.prune.importances.received import received
from edgewright.compress.prune.importances.taylor import taylor
from edgewright.compress.prune.parts import Prices
from edgewright.core.errors import BadInput
from edgewright.device.base import Device
from edgewright.device.here.cpu import Cpu
from edgewright.device.table.pieces import Piece

Timer = Callable[[Sequence[nn.Module]], Sequence[float]]  # milliseconds of each, from one interleaved measurement
IMPORTANCES: Mapping[str, Importance] = {
    "taylor": taylor,
    "nvit": nvit,
    "magnitude": magnitude,
    "network_slimming": network_slimming,
    "fpgm": fpgm,
    "received": received,
}


@dataclass(frozen=True)
class Goal:
    """What may be left of a network: one of the three.

    share: of its own latency, or of its multiply-adds (`of`), 0 to 1.   latency_ms, macs: at most so much.
    Errors: BadInput for none or two of them, and a share that is none.
    """

    share: float | None = None
    latency_ms: float | None = None
    macs: float | None = None
    of: Literal["latency", "macs"] = "latency"

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.share, self.latency_ms, self.macs)) != 1:
            raise BadInput("give one goal: share (of the latency), latency_ms or macs")
        if self.share is not None and not 0 < self.share < 1:
            raise BadInput(f"share is of what the network takes now, between 0 and 1 (got {self.share:g})")

    @property
    def by_macs(self) -> bool:
        return self.macs is not None or (self.share is not None and self.of == "macs")

    def left(self, now: float) -> float:
        """How much may be left of `now`, in ms or multiply-adds, whichever it is about."""
        return self.share * now if self.share is not None else float(self.latency_ms or self.macs or 0.0)


@dataclass(frozen=True)
class Worth:
    """What a channel is worth.

    importance: a name of `IMPORTANCES`, or a function (see `importance`).   batches: pairs of inputs and targets that
    importances with gradients look at.   loss: of model, inputs and targets, which those take gradients of.
    """

    importance: str | Importance = "taylor"
    batches: Batches = ()
    loss: Loss = cross_entropy

    def of(self, model: nn.Module, groups: Sequence[Group]) -> list[Tensor]:
        """For each group one number a unit.   Errors: BadInput for a name that is not known."""
        if not isinstance(self.importance, str):
            return self.importance(model, groups, self.batches, self.loss)
        if self.importance not in IMPORTANCES:
            raise BadInput(f"no importance is called '{self.importance}'; there are {', '.join(IMPORTANCES)}")
        return IMPORTANCES[self.importance](model, groups, self.batches, self.loss)


@dataclass(frozen=True)
class Scope:
    """What may go, and in what steps.

    only, keep: patterns of names of layers that make channels, and of blocks: what may go, and what may not.
    round_to: channels go in steps of so many.   blocks: whether whole residual blocks may go.
    """

    only: Sequence[str] = ("*",)
    keep: Sequence[str] = ()
    round_to: int = 8
    blocks: bool = True

    def group(self, group: Group) -> bool:
        """Whether units of this group may go."""
        return self._allows([member.owner for member in group.members if member.role == "makes"])

    def block(self, model: nn.Module, path: str) -> bool:
        """Whether this block may go, with all that is in it."""
        inside = [name for name, _ in model.get_submodule(path).named_modules(prefix=path)]
        return self._allows([path]) and not any(_matches(name, self.keep) for name in inside)

    def _allows(self, names: Iterable[str]) -> bool:
        """Whether all are among `only` and none among `keep`."""
        return all(_matches(name, self.only) and not _matches(name, self.keep) for name in names)


@dataclass(frozen=True)
class Times:
    """By whose times a pruning is judged.

    whole: milliseconds of several networks, measured in turns; `export.stopwatch` makes one for a device. None: the sum
    of the layers' prices is believed.   prices: microseconds of a piece; those of the device by default.
    device: whose prices count; this machine by default.
    """

    whole: Timer | None = None
    prices: Prices | None = None
    device: Device | None = None

    def of(self, pieces: Callable[[], Sequence[Piece]]) -> Prices:
        """What each piece takes.   pieces: all that will be asked for, as a device measures them together."""
        return self.prices or (self.device or Cpu()).prices(pieces())


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
