"""What makes a network smaller at the price of training: channels that go, blocks whose activations go."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

from torch import Tensor, nn

from edgewright.compress.base import Plan as Rewriting
from edgewright.compress.planner import look
from edgewright.compress.prune.asked import Goal, Scope, Times, Worth
from edgewright.compress.prune.groups import Group
from edgewright.compress.prune.importance import Batches, Importance, Loss
from edgewright.compress.prune.importances.taylor import taylor
from edgewright.compress.prune.prune import plan_pruning
from edgewright.compress.rewrites import depthshrinker, merge_linear
from edgewright.compress.wiring import trace
from edgewright.compress.worthwhile import Timing, timed
from edgewright.core.errors import BadInput
from edgewright.core.seed import derive
from edgewright.device.measure import Latency
from edgewright.export.blocks import measure_blocks
from edgewright.job.compress.ground import CompressGround
from edgewright.task.base import batches

BATCHES, BATCH = 12, 32  # of training images that importance is judged on


class Pruner:
    """Plans that leave some share of a network's latency; what the channels are worth is found out once."""

    def __init__(self, ground: CompressGround, model: nn.Module) -> None:
        self.ground, self.model = ground, model
        self.importance = remembered(taylor)

    def __call__(self, share: float) -> Rewriting:
        """The plan that leaves about `share` of the latency, or of the multiply-adds where no latency is asked for.

        The layers' measured times alone decide here; the file is measured by who asks.
        Errors: BudgetInfeasible where no plan does, BadInput where nothing in the network can go.
        """
        ground = self.ground
        images = batches(
            ground.task.train,
            ground.task.spec,
            batch_size=min(BATCH, len(ground.task.train)),
            size=ground.size,
            shuffle=derive(ground.plan.seed, "importance"),
        )
        return plan_pruning(
            self.model,
            ground.example,
            Goal(share=share, of="latency" if "latency" in ground.budget.ceilings() else "macs"),
            worth=Worth(
                self.importance,
                itertools.islice(images, BATCHES),
                lambda model, x, targets: ground.task.kind.loss(model(x), targets),
            ),
            scope=Scope(round_to=ground.device.align),
            times=Times(device=ground.device),
        )


def remembered(importance: Importance) -> Importance:
    """The same, computed once for the same groups."""
    known: dict[tuple[tuple[str, int], ...], list[Tensor]] = {}

    def once(model: nn.Module, groups: Sequence[Group], batches: Batches, loss: Loss) -> list[Tensor]:
        key = tuple((group.name, group.units) for group in groups)
        if key not in known:
            known[key] = importance(model, groups, batches, loss)
        return known[key]

    return once


def linearised(ground: CompressGround, share: float, now_ms: float) -> tuple[Rewriting, tuple[str, ...], str]:
    """Drop the activations of the blocks that are surely faster merged, most time saved first, until about `share` of
    the network's latency, `now_ms`, is left; the plan, the blocks that merge afterwards, and a sentence.

    Blocks are timed alone, each beside itself merged, in float.
    Errors: BadInput where no block can merge, or none is faster merged.
    """
    wiring = trace(ground.model, ground.example)
    found = depthshrinker.decisions(ground.model, wiring)
    names = tuple(one.block for one in found if one.mergeable)
    if not names:
        raise BadInput("no block of this network would merge into one convolution")
    plan = look(ground.model, ground.example, [partial(depthshrinker.find, drop=names)], wiring)
    merge = partial(merge_linear.find, most_macs=inf, only=names)
    timings = timed(ground.model, plan, measuring(ground), merge=merge)
    paying = [timing for timing in timings if timing.ratio.surely_faster]
    if not paying:
        raise BadInput(f"of {len(names)} blocks none is surely faster as one convolution, {nearest(timings)}")
    paying.sort(key=lambda timing: -timing.saved_ms)
    saved = list(itertools.accumulate(timing.saved_ms for timing in paying))
    needed = (1 - share) * now_ms
    enough = next((number for number, sum_ in enumerate(saved, 1) if sum_ >= needed), len(paying))
    told = {timing.layers[-1] for timing in paying[:enough]}
    drop = [name for name in names if name in told]
    words = "; ".join(f"{timing.layers[-1]} {timing.text()}" for timing in paying[:enough])
    remark = f"linearise: {len(drop)} of {len(names)} blocks merged ({words})"
    chosen = look(ground.model, ground.example, [partial(depthshrinker.find, drop=drop)], wiring)
    return chosen, tuple(drop), remark


def nearest(timings: Sequence[Timing]) -> str:
    best = min(timings, key=lambda timing: timing.ratio.value)
    return f"{best.layers[-1]} comes nearest with {best.text()}"


def measuring(ground: CompressGround) -> Callable[[Sequence[nn.Module], tuple[int, ...]], Sequence[Latency]]:
    """What times blocks where the network must run."""
    return partial(measure_blocks, device=ground.device)
