"""Structured pruning to a budget of measured time, or of multiply-adds.

    from edgewright.compress.prune.asked import Goal, Times, Worth
    from edgewright.compress.prune.prune import plan_pruning
    from edgewright.export.stopwatch import stopwatch

    found = plan_pruning(model, example, Goal(share=0.5), worth=Worth(batches=some), times=Times(stopwatch(example)))
    smaller = compress.apply(model, found, samples)      # then train it

What may go is read off the wiring (`groups`, `drop_block`); what it is worth is an importance's to say; what it saves
is measured: every layer at several widths on the device (`device.table.widths`), the sum corrected by whole networks,
exported and timed in turns with the network as it was, until the target is met.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn

from edgewright.compress.base import Plan, rebuilt
from edgewright.compress.planner import plan
from edgewright.compress.prune.allocate import Allocation, Block, Kept, levels_of
from edgewright.compress.prune.asked import Goal, Scope, Timer, Times, Worth
from edgewright.compress.prune.groups import Dependencies, dependencies
from edgewright.compress.prune.parts import Part, latency_parts, macs_parts, timed_steps
from edgewright.compress.rewrites import drop_block, prune_channels
from edgewright.compress.wiring import Wiring, trace
from edgewright.core.cost import figures
from edgewright.core.errors import BadInput, BudgetInfeasible, GateFailed
from edgewright.device.table.pieces import Piece

ROUNDS = 3
OVER, UNDER = 1.02, 0.95  # of the target: what is as good as it, and below which another try is worth it
GRID = 6  # widths of a group at which layers are measured
BY_TAYLOR, ANYTHING, HERE = Worth(), Scope(), Times()


def plan_pruning(
    model: nn.Module,
    example: Tensor,
    goal: Goal,
    *,
    worth: Worth = BY_TAYLOR,
    scope: Scope = ANYTHING,
    times: Times = HERE,
) -> Plan:
    """The channels, heads and blocks to remove so that the network keeps a budget, as a plan; training must follow it.

    Args:
        example: a batch as the network reads it; only its shape and type count. Time is that of one input.
        goal: what may be left.
        worth: what a channel is worth; Taylor's importance, which needs batches, by default.
        scope: what may go, and in what steps; anything by default.
        times: by whose times; by default the sum of the prices that this machine has for layers.
    Errors: BudgetInfeasible where the goal cannot be met; GateFailed where the pruned network, measured, is not
        faster; BadInput for what cannot be used as it is.
    """
    bare = copy.deepcopy(model).to("meta").eval()
    wiring = trace(bare, example)
    found = dependencies(bare, wiring)
    free = [scope.group(group) for group in found.groups]
    whole_blocks = drop_block.blocks(bare, wiring) if scope.blocks else {}
    dropping = [path for path in whole_blocks if scope.block(bare, path)]
    if not any(free) and not dropping:
        raise BadInput(
            f"no layer that makes channels is among {', '.join(scope.only)}; run with only=('*',) to see the others"
        )
    levels = [levels_of(group, scope.round_to, may) for group, may in zip(found.groups, free, strict=True)]
    scores = worth.of(model, found.groups)
    parts = macs_parts(found) if goal.by_macs else latency_parts(found, times.of(lambda: _grid(found, levels)))
    blocks = [_block(found, parts, path) for path in dropping]
    search = _Search(model, example, wiring, lambda: Allocation(found, parts, scores, levels, blocks))
    whole = float(sum(part.cost(found.full) for part in parts))
    if goal.by_macs or times.whole is None:
        return search.planned(search.kept(goal.left(whole)))
    return search.measured(times.whole, whole, goal)


@dataclass
class _Search:
    model: nn.Module
    example: Tensor
    wiring: Wiring
    allocation: Callable[[], Allocation]

    def kept(self, cost: float) -> Kept:
        return self.allocation().run(cost)

    def planned(self, kept: Kept) -> Plan:
        methods = [partial(prune_channels.find, keep=kept.units), partial(drop_block.find, drop=kept.dropped)]
        return plan(self.model, self.example, methods, self.wiring)

    def measured(self, timed: Timer, whole: float, goal: Goal) -> Plan:
        """Plan, build, measure, aim anew.   whole: the sum of the prices."""
        (before,) = timed([self.model])
        if before <= goal.left(before):
            raise BadInput(
                f"the network takes {figures(before)} ms as it is, within the {figures(goal.left(before), 6)} ms asked "
                "for"
            )
        aim = whole * goal.left(before) / before
        tries: list[tuple[float, float, Plan]] = []
        for _ in range(ROUNDS):
            kept = self._within(aim, whole, bool(tries))
            if kept is None:
                break
            made = self.planned(kept)
            before, now = timed([self.model, rebuilt(self.model, made)])
            target = goal.left(before)
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
