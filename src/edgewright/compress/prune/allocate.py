"""Which units go: those of least importance for what they save, until the network's cost is at the target.

A *move* takes a group down to a lower level (so many channels, by 8; so many heads) or a whole block away. Moves are
weighed by

    importance lost / cost saved

and the least is made, then those that it touches are weighed anew: a layer's cost depends on both its widths. All lower
levels of a group are looked at, not the next one only: 8 channels of 16 may save nothing where vectors hold 16, and all
of them a lot. At the end, what the last moves saved too much is given back where it is worth most.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from edgewright.compress.prune.groups import Dependencies, Group
from edgewright.compress.prune.parts import Part
from edgewright.core.errors import BudgetInfeasible

LOOK_DOWN = 24  # levels of a group that are looked at in one move
LEAST_SAVED = 1e-9  # of the whole cost


@dataclass(frozen=True)
class Block:
    """A residual block that may go as a whole.   groups: of channels that are in it alone.   parts: that it runs."""

    name: str
    groups: frozenset[int]
    parts: frozenset[int]


@dataclass(frozen=True)
class Kept:
    """What stays: units of each group by its name; the blocks that go; what it then costs."""

    units: Mapping[str, tuple[int, ...]]
    dropped: tuple[str, ...]
    cost: float


@dataclass
class Allocation:
    """The state of a search. scores: importance by group and unit.   levels: how many units a group may have."""

    found: Dependencies
    parts: Sequence[Part]
    scores: Sequence[Tensor]
    levels: Sequence[Sequence[int]]
    blocks: Sequence[Block] = ()
    gone: set[int] = field(default_factory=set)  # blocks

    def __post_init__(self) -> None:
        self.left = list(self.found.full)
        self.order = [np.argsort(-score.numpy(), kind="stable") for score in self.scores]
        ranked = [score.numpy()[order] for score, order in zip(self.scores, self.order, strict=True)]
        # lost[g][k]: importance of all but the k best of group g
        self.lost = [np.append(np.cumsum(values[::-1])[::-1], 0.0) for values in ranked]
        self.touching = [[n for n, part in enumerate(self.parts) if g in part.groups] for g in range(len(self.left))]
        self.costs = [part.cost(self.left) for part in self.parts]

    @property
    def cost(self) -> float:
        return float(sum(self.costs))

    def run(self, target: float) -> Kept:
        """Moves until the cost is at most `target`.
        Errors: BudgetInfeasible with the least that these groups allow."""
        whole = self.cost
        moves = {key: move for key in self._keys() if (move := self._best(key, whole)) is not None}
        while self.cost > target:
            if not moves:
                raise BudgetInfeasible(
                    f"pruning these layers leaves {100 * self.cost / whole:.0f} % of the cost at least, and "
                    f"{100 * target / whole:.0f} % was asked for"
                )
            key = min(moves, key=lambda one: moves[one][0])
            for touched in self._make(key, moves[key][1]):
                move = self._best(touched, whole)
                moves.pop(touched, None)
                if move is not None:
                    moves[touched] = move
        self._give_back(target)
        return self._kept()

    def _keys(self) -> list[tuple[str, int]]:
        return [*(("group", g) for g in range(len(self.left))), *(("block", b) for b in range(len(self.blocks)))]

    def _best(self, key: tuple[str, int], whole: float) -> tuple[float, int] | None:
        """The best move of a group or block: its weight, and the level it goes to."""
        kind, number = key
        if kind == "block":
            if number in self.gone:
                return None
            block = self.blocks[number]
            saved = sum(self.costs[part] for part in block.parts)
            lost = sum(self.lost[g][0] - self.lost[g][self.left[g]] for g in block.groups)
            return (float(lost / saved), 0) if saved > LEAST_SAVED * whole and np.isfinite(lost) else None
        if any(number in self.blocks[b].groups for b in self.gone):
            return None
        now, options = self.left[number], []
        for level in [level for level in self.levels[number] if level < now][-LOOK_DOWN:]:
            saved = self._saved(number, level)
            lost = self.lost[number][level] - self.lost[number][now]
            if saved > LEAST_SAVED * whole and np.isfinite(lost):
                options.append((float(lost / saved), level))
        return min(options, default=None)

    def _saved(self, group: int, level: int) -> float:
        left = list(self.left)
        left[group] = level
        return sum(self.costs[n] - self.parts[n].cost(left) for n in self.touching[group] if self._runs(n))

    def _runs(self, part: int) -> bool:
        return not any(part in self.blocks[b].parts for b in self.gone)

    def _make(self, key: tuple[str, int], level: int) -> set[tuple[str, int]]:
        """Make a move; what it touches."""
        kind, number = key
        if kind == "block":
            self.gone.add(number)
            changed = set(self.blocks[number].parts)
        else:
            self.left[number] = level
            changed = set(self.touching[number])
        for part in changed:
            self.costs[part] = self.parts[part].cost(self.left) if self._runs(part) else 0.0
        groups = {group for part in changed for group in self.parts[part].groups}
        blocks = {b for b, block in enumerate(self.blocks) if block.parts & changed or block.groups & groups}
        return {key, *(("group", g) for g in groups), *(("block", b) for b in blocks)}

    def _give_back(self, target: float) -> None:
        """Widen groups again while the target holds, the most important units first."""
        while True:
            options = []
            for number in range(len(self.left)):
                if any(number in self.blocks[b].groups for b in self.gone):
                    continue
                for level in [level for level in self.levels[number] if level > self.left[number]][:LOOK_DOWN]:
                    if self.cost - self._saved(number, level) <= target:
                        options.append((self.lost[number][self.left[number]] - self.lost[number][level], number, level))
            if not options:
                return
            _, number, level = max(options)
            self._make(("group", number), level)

    def _kept(self) -> Kept:
        inside = {group for b in self.gone for group in self.blocks[b].groups}
        units = {
            group.name: tuple(sorted(self.order[number][: self.left[number]].tolist()))
            for number, group in enumerate(self.found.groups)
            if self.left[number] < group.units and number not in inside
        }
        names = [self.blocks[b].name for b in sorted(self.gone)]
        outer = [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
        return Kept(units, tuple(outer), self.cost)


def levels_of(group: Group, step: int, free: bool) -> tuple[int, ...]:
    """How many units a group may have: all, and, if it is free, multiples of `step` channels, at least one step; heads
    one by one."""
    each = 1 if group.heads else max(1, step)
    lower: Iterable[int] = range(each, group.units, each) if free else ()
    return (*lower, group.units)
