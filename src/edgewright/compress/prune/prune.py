"""Structured pruning to a budget of measured time, or of multiply-adds.

    from edgewright.compress.prune.prune import plan_pruning
    from edgewright.export.stopwatch import stopwatch

    found = plan_pruning(model, example, batches=some, share=0.5, timed=stopwatch(example))
    smaller = compress.apply(model, found, samples)      # then train it

What may go is read off the wiring (`groups`, `drop_block`); what it is worth is an importance's to say; what it saves
is measured: every layer at several widths on the device (`device.table.widths`), the sum corrected by whole networks,
exported and timed in turns with the network as it was, until the target is met.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from edgewright.compress.base import Plan, rebuilt
from edgewright.compress.planner import plan
from edgewright.compress.prune.allocate import Allocation, Block, Kept, levels_of
from edgewright.compress.prune.groups import Dependencies, Group, dependencies
from edgewright.compress.prune.importance import Batches, Importance, Loss, cross_entropy
from edgewright.compress.prune.importances.fpgm import fpgm
from edgewright.compress.prune.importances.magnitude import magnitude
from edgewright.compress.prune.importances.network_slimming import network_slimming
from edgewright.compress.prune.importances.nvit import nvit
from edgewright.compress.prune.importances.taylor import taylor
from edgewright.compress.prune.parts import Part, Prices, latency_parts, macs_parts, timed_steps
from edgewright.compress.rewrites import drop_block, prune_channels
from edgewright.compress.wiring import trace
from edgewright.core.cost import figures
from edgewright.core.errors import BadInput, BudgetInfeasible, GateFailed
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
}
ROUNDS = 3
OVER, UNDER = 1.02, 0.95  # of the target: what is as good as it, and below which another try is worth it
GRID = 6  # widths of a group at which layers are measured


def plan_pruning(
    model: nn.Module,
    example: Tensor,
    *,
    importance: str | Importance = "taylor",
    batches: Batches = (),
    loss: Loss = cross_entropy,
    share: float | None = None,
    latency_ms: float | None = None,
    macs: float | None = None,
    of: Literal["latency", "macs"] = "latency",
    only: Sequence[str] = ("*",),
    keep: Sequence[str] = (),
    round_to: int = 8,
    drop_blocks: bool = True,
    timed: Timer | None = None,
    prices: Prices | None = None,
    device: Device | None = None,
) -> Plan:
    """The channels, heads and blocks to remove so that the network keeps a budget, as a plan; training must follow it.

    Args:
        example: a batch as the network reads it; only its shape and type count. Time is that of one input.
        importance: a name of `IMPORTANCES`, or a function (see `importance`).
        batches: pairs of inputs and targets that importances with gradients look at.
        share, latency_ms, macs: the budget, one of them. share: of the network's own latency, or MACs (`of`).
        only, keep: patterns of names of layers that make channels, and of blocks: what may go, and what may not.
        round_to: channels go in steps of so many.
        drop_blocks: whether whole residual blocks may go.
        timed: milliseconds of several networks, measured in turns; `export.stopwatch` makes one for a device. None: the
            sum of the layers' prices is believed.
        prices: microseconds of a piece; those of the device by default.
        device: whose prices count; this machine by default.
    Errors: BudgetInfeasible where the budget cannot be met; GateFailed where the pruned network, measured, is not
        faster; BadInput for what cannot be used as it is.
    """
    if sum(value is not None for value in (share, latency_ms, macs)) != 1:
        raise BadInput("give one budget: share (of the latency), latency_ms or macs")
    if share is not None and not 0 < share < 1:
        raise BadInput(f"share is of what the network takes now, between 0 and 1 (got {share:g})")
    bare = copy.deepcopy(model).to("meta").eval()
    wiring = trace(bare, example)
    found = dependencies(bare, wiring)
    free = [_may_go(group, only, keep) for group in found.groups]
    whole_blocks = drop_block.blocks(bare, wiring) if drop_blocks else {}
    dropping = [path for path in whole_blocks if _block_may_go(bare, path, only, keep)]
    if not any(free) and not dropping:
        raise BadInput(
            f"no layer that makes channels is among {', '.join(only)}; run with only=('*',) to see the others"
        )
    levels = [levels_of(group, round_to, may) for group, may in zip(found.groups, free, strict=True)]
    scores = _scored(importance)(model, found.groups, batches, loss)
    by_macs = macs is not None or of == "macs"
    if not by_macs and prices is None:
        prices = (device or Cpu()).prices(_grid(found, levels))
    parts = macs_parts(found) if by_macs or prices is None else latency_parts(found, prices)
    blocks = [_block(found, parts, path) for path in dropping]
    search = _Search(model, example, lambda: Allocation(found, parts, scores, levels, blocks))
    whole = float(sum(part.cost(found.full) for part in parts))
    if by_macs or timed is None:
        return search.planned(search.kept((macs or latency_ms or 0.0) if share is None else share * whole))
    return search.measured(timed, whole, share, latency_ms)


@dataclass
class _Search:
    model: nn.Module
    example: Tensor
    allocation: Callable[[], Allocation]

    def kept(self, cost: float) -> Kept:
        return self.allocation().run(cost)

    def planned(self, kept: Kept) -> Plan:
        methods = [partial(prune_channels.find, keep=kept.units), partial(drop_block.find, drop=kept.dropped)]
        return plan(self.model, self.example, methods)

    def measured(self, timed: Timer, whole: float, share: float | None, latency_ms: float | None) -> Plan:
        """Plan, build, measure, aim anew."""
        (before,) = timed([self.model])
        if latency_ms is not None and before <= latency_ms:
            raise BadInput(
                f"the network takes {figures(before)} ms as it is, within the {figures(latency_ms, 6)} ms asked for"
            )
        aim = whole * (share or (latency_ms or 0.0) / before)
        tries: list[tuple[float, float, Plan]] = []
        for _ in range(ROUNDS):
            kept = self._within(aim, whole, bool(tries))
            if kept is None:
                break
            made = self.planned(kept)
            before, now = timed([self.model, rebuilt(self.model, made)])
            target = before * share if share is not None else float(latency_ms or 0.0)
            tries.append((now / target, now / before, made))
            if UNDER <= now / target <= OVER:
                break
            aim *= target / now
        good = [one for one in tries if one[0] <= OVER]
        if not good:
            least = min(tries, key=lambda one: one[0])
            raise BudgetInfeasible(
                f"after {len(tries)} rounds the pruned network, measured, takes {100 * least[0]:.0f} % of the time "
                "that was asked for; ask for more, or leave more layers free"
            )
        _, ratio, made = max(good, key=lambda one: one[0])
        if ratio >= 1:
            raise GateFailed(f"pruned, the network is not faster: measured, it takes {ratio:.2f} times as long")
        return made

    def _within(self, aim: float, whole: float, corrected: bool) -> Kept | None:
        """What to keep; None where a corrected aim cannot be met: then what was measured before is the answer."""
        try:
            return self.kept(min(aim, 0.999 * whole))
        except BudgetInfeasible:
            if corrected:
                return None
            raise


def _scored(importance: str | Importance) -> Importance:
    if not isinstance(importance, str):
        return importance
    if importance not in IMPORTANCES:
        raise BadInput(f"no importance is called '{importance}'; there are {', '.join(IMPORTANCES)}")
    return IMPORTANCES[importance]


def _may_go(group: Group, only: Sequence[str], keep: Sequence[str]) -> bool:
    return _allowed([member.owner for member in group.members if member.role == "makes"], only, keep)


def _block_may_go(model: nn.Module, path: str, only: Sequence[str], keep: Sequence[str]) -> bool:
    inside = [name for name, _ in model.get_submodule(path).named_modules(prefix=path)]
    return _allowed([path], only, keep) and not any(_matches(name, keep) for name in inside)


def _allowed(names: Iterable[str], only: Sequence[str], keep: Sequence[str]) -> bool:
    """Whether all are among `only` and none among `keep`."""
    return all(_matches(name, only) and not _matches(name, keep) for name in names)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _block(found: Dependencies, parts: Sequence[Part], path: str) -> Block:
    inside = {step.name for step in found.wiring.by_module[path]}
    own = frozenset(number for number, part in enumerate(parts) if set(part.steps) <= inside)
    makers = {
        number: {member.owner for member in group.members if member.role == "makes"}
        for number, group in enumerate(found.groups)
    }
    groups = frozenset(number for number, names in makers.items() if all(n.startswith(f"{path}.") for n in names))
    return Block(path, groups, own)


def _grid(found: Dependencies, levels: Sequence[Sequence[int]]) -> list[Piece]:
    """The pieces of every layer at some widths of its groups: all pairs of them, together where there are more."""
    some = [_spread(levels[number]) for number in range(len(levels))]
    pieces: list[Piece] = []
    for timed in timed_steps(found):
        widths = [some[group] for group in timed.groups]
        rows = product(*widths) if len(widths) <= 2 else zip(*(_stretched(one) for one in widths), strict=True)
        for row in rows:
            left = list(found.full)
            for group, units in zip(timed.groups, row, strict=True):
                left[group] = units
            pieces += timed.pieces(left)
    return pieces


def _spread(levels: Sequence[int]) -> list[int]:
    """At most `GRID` of them, the last one always."""
    picks = torch.linspace(0, len(levels) - 1, min(GRID, len(levels))).round().int().tolist()
    return [levels[pick] for pick in dict.fromkeys(picks)]


def _stretched(levels: Sequence[int]) -> list[int]:
    return [levels[round(number * (len(levels) - 1) / (GRID - 1))] for number in range(GRID)]
