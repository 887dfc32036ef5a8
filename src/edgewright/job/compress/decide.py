"""What would keep the ceilings: cheap things first, then networks that must learn again, each measured before it does.

    the file as it was -> exact rewrites -> int8 -> learning as int8; pruned to the ceiling; blocks merged

A network that only has to learn is found by its file's own cost: the share that is kept is narrowed down until the
untrained network, exported in the type that it would ship in and measured, is just under the ceilings.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from edgewright.compress.base import Plan as Rewriting
from edgewright.compress.base import apply
from edgewright.core.cost import KINDS, Budget, Cost, amount, show, words
from edgewright.core.errors import BadInput, BudgetInfeasible, DeviceLost, EdgewrightError
from edgewright.core.progress import progress
from edgewright.export.runtimes.base import Kind
from edgewright.job.compress.files import (
    EXACT,
    KEEPS,
    as_int8,
    as_it_was,
    files_of,
    finished,
    paying_merges,
    quick_costs,
    refusal,
)
from edgewright.job.compress.found import Decided, File, Trial, Way
from edgewright.job.compress.ground import CompressGround, excess
from edgewright.job.compress.shrink import Pruner, linearised

AIM = 0.97  # of a latency's ceiling: measured again after the training, a file is not quicker than it was
AIMS = {"latency": AIM, "size": 0.995}  # of other ceilings all; what a file says of itself varies a little
ENOUGH = 0.92  # of a ceiling used is near enough to it
PROBES = 7
FIRST = 0.6  # share that is tried first
NARROW = 0.02  # between a share that keeps and one that does not: near enough
LEAST, MOST = 0.03, 0.98  # share of the cost that pruning may keep


class NothingKeeps(BudgetInfeasible):
    """Nothing keeps the ceilings and the accuracy; `trials` is what was tried."""

    def __init__(self, text: str, trials: tuple[Trial, ...]) -> None:
        super().__init__(text)
        self.trials = trials


def decide(ground: CompressGround, until: float = math.inf) -> tuple[Decided, list[File]]:
    """Measure what there is, and find what keeps the ceilings; nothing is trained.

    until: `time.monotonic()` after which one way that keeps the ceilings is enough, and is not narrowed down further.
    Returns what was found, and the files of the network with exact rewrites alone.

    Errors: NothingKeeps where not even an untrained network is under the ceilings.
    """
    with progress("Looking for a way", total=3) as bar:
        own = as_it_was(ground)
        bar.advance()
        merge, remarks = paying_merges(ground)
        bar.advance()
        network, found = finished(ground, ground.model, merge)
        files = files_of(ground, network, found, ground.scratch / "exact")
        bar.advance()
        trials = [own.trial("as it was", "what is to be compressed")]
        refusals = [refusal(ground, file) for file in files]
        trials += [file.trial(f"{EXACT}, {file.kind}", why or KEEPS) for file, why in zip(files, refusals, strict=True)]
        if all(refusals) and not ground.budget.broken(own.costs):
            raise BadInput(_nothing_to_do(ground, own, files, refusals))
        told = (*ground.device.remarks(), *remarks)
        decided = Decided(trials=tuple(trials), merge=merge, remarks=told, ready=None in refusals)
        return (decided if decided.ready else _ways(ground, decided, files, until)), files


def _nothing_to_do(ground: CompressGround, own: File, files: list[File], refusals: Sequence[str | None]) -> str:
    kept = ", ".join(show(name, own.costs[name].value) for name in ground.budget.ceilings())
    why = "; ".join(f"{file.kind} is {refusal}" for file, refusal in zip(files, refusals, strict=True))
    return f"the network keeps all ceilings as it is ({kept}), and nothing free makes it better ({why}); ask for less"


def _ways(ground: CompressGround, decided: Decided, files: list[File], until: float) -> Decided:
    """The networks to train, narrowed down to the ceilings."""
    usable = [file for file in files if file.refused is None] or files[:1]
    now_ms = min(file.costs["latency"].value for file in usable)
    search = _Search(ground, decided.merge, files, now_ms, until)
    ways: list[Way] = []
    for step, find in (("quantise", search.rounded), ("prune", search.prune), ("linearise", search.linearise)):
        if step not in ground.plan.steps:
            continue
        if ways and time.monotonic() > until:
            search.remarks.append(f"{step}: not looked at, for want of time")
            continue
        try:
            way = find()
            ways += [way] if way is not None else []
        except DeviceLost:
            raise
        except EdgewrightError as error:  # this network has nothing of the kind
            search.remarks.append(f"{step}: {error}")
    trials, remarks = (*decided.trials, *search.seen), (*decided.remarks, *search.remarks)
    if not ways:
        raise NothingKeeps(_hopeless(ground, trials, search.remarks), trials)
    return decided.model_copy(update={"trials": trials, "ways": tuple(ways), "remarks": remarks})


def _types(ground: CompressGround, files: list[File]) -> tuple[Kind, ...]:
    """The types to look for: float always, as what is slower in int8 when wide may not be so when narrow, and the other
    way round; int8 unless it loses too much of the network as it is."""
    return tuple(file.kind for file in files if file.kind == "fp32" or file.figure >= ground.floor - 1e-9)


def _hopeless(ground: CompressGround, trials: Sequence[Trial], remarks: Sequence[str]) -> str:
    least = min(trials, key=lambda trial: excess(ground.budget, trial.costs))
    broken = "; ".join(ground.budget.broken(least.costs)) or least.verdict
    told = "; ".join(remarks)
    return f"nothing keeps the ceilings: nearest is {least.name} ({broken})" + (f"; {told}" if told else "")


@dataclass
class _Search:
    ground: CompressGround
    merge: tuple[str, ...]
    files: list[File]
    now_ms: float
    until: float

    def __post_init__(self) -> None:
        self.kinds = _types(self.ground, self.files)
        self.seen: list[Trial] = []
        self.remarks: list[str] = []

    def rounded(self) -> Way | None:
        """All of it in int8, which it learns to be; None where that would not keep the ceilings either, and where int8
        lost nothing that there is to learn."""
        ground = self.ground
        made = next((file for file in self.files if file.kind == "int8"), None)
        if "int8" not in ground.kinds or (
            made is not None and made.figure >= ground.floor - 1e-9 and not made.in_float
        ):
            return None
        network, plan = finished(ground, ground.model, self.merge)
        as_int8(ground, network)  # BadInput where it cannot
        start = _Start("rounded to int8", network, plan)
        trial = self.tried(start.name, network, (), ("fp32", "int8"))
        if trial.type != "int8" or aimed(ground.budget, trial.costs) > 1:
            return None
        return self.way(start, plan, trial).model_copy(update={"merge": (), "rounded": True})  # merged they are already

    def prune(self) -> Way | None:
        """Pruned as little as the ceilings allow."""
        return self.narrowed(_Start("pruned", self.ground.model))

    def linearise(self) -> Way | None:
        """Blocks without their activations, most time saved first, as few as the ceilings ask; pruned if that is not
        enough."""
        plan, blocks, remark = linearised(self.ground, self.share, self.now_ms)
        self.remarks.append(remark)
        network = apply(self.ground.model, plan, self.ground.checked)
        start = _Start("blocks merged", network, plan, blocks)
        trial = self.tried(start.name, network, blocks)
        if aimed(self.ground.budget, trial.costs) <= 1:
            return self.way(start, plan, trial)
        if "prune" not in self.ground.plan.steps:
            return None
        return self.narrowed(replace(start, name=f"{start.name} and pruned"))

    @property
    def share(self) -> float:
        """Share of its latency that the network has to keep."""
        return (self.ground.budget.ceilings().get("latency", 0.0)) * AIM / self.now_ms

    def narrowed(self, start: "_Start") -> Way | None:
        prune = Pruner(self.ground, start.network)
        known: list[Rewriting] = []
        trials: list[Trial] = []

        def make(share: float) -> tuple[float, tuple[Rewriting, Trial]]:
            plan = prune(share)
            if plan not in known:  # channels go eight at a time, so several shares may come to the same
                network = apply(start.network, plan, self.ground.checked)
                known.append(plan)
                trials.append(self.tried(f"{start.name}, aimed at {100 * share:.0f} %", network, start.blocks))
            trial = trials[known.index(plan)]
            return aimed(self.ground.budget, trial.costs), (start.then(plan), trial)

        found = narrow(make, lambda: time.monotonic() > self.until)
        return None if found is None else self.way(start, *found)

    def way(self, start: "_Start", plan: Rewriting, trial: Trial) -> Way:
        data = plan.model_dump(mode="json")
        return Way(
            name=start.name, type=trial.type, plan=data, costs=trial.costs, merge=self.merge, blocks=start.blocks
        )

    def tried(
        self, name: str, network: nn.Module, blocks: tuple[str, ...], kinds: tuple[Kind, ...] | None = None
    ) -> Trial:
        """An untrained network as a file, in the type (of `kinds`) that comes nearest to the ceilings."""
        budget = self.ground.budget
        done, counts = finished(self.ground, network, self.merge, blocks)
        found = quick_costs(self.ground, done, counts, kinds or self.kinds, self.ground.scratch / "probe")
        kind = min(found, key=lambda kind: excess(budget, found[kind]))
        verdict = "; ".join(budget.broken(found[kind])) or "has yet to learn"
        trial = Trial(name=name, type=kind, costs=found[kind], verdict=verdict)
        self.seen.append(trial)
        return trial


@dataclass(frozen=True)
class _Start:
    """Where pruning begins: the network, what was done to it, and its blocks without activations."""

    name: str
    network: nn.Module
    plan: Rewriting | None = None
    blocks: tuple[str, ...] = ()

    def then(self, plan: Rewriting) -> Rewriting:
        return plan if self.plan is None else self.plan.then(plan)


def aimed(budget: Budget, costs: dict[str, Cost]) -> float:
    """The largest share that is used of what is aimed at, a little under each ceiling; above 1 it is missed."""
    return max((share / AIMS.get(name, 1.0) for name, share in budget.share_used(costs).items()), default=math.inf)


def narrow(make: Callable[[float], tuple[float, Any]], late: Callable[[], bool] = lambda: False) -> Any:
    """What `make` makes of the largest share that keeps the ceilings, found in a few tries; None where none does.

    make: a share kept, 0 to 1, to (how much of a ceiling it uses, what was made); BudgetInfeasible where so little
    cannot be kept.   late: whether the first that keeps them is enough.
    """
    low, high, best, share, tried_least = LEAST, MOST, None, FIRST, False
    for _ in range(PROBES):
        try:
            used, made = make(share)
        except BudgetInfeasible:
            low, used = max(low, share), math.inf
        else:
            if used <= 1:
                low, best = share, made
                if used >= ENOUGH or late():
                    return best
            elif share <= low:
                return best  # the least there is is too much
            else:
                high = share
        if high - low < NARROW:
            break
        guess = share / used if used > 0 else high
        step = min(NARROW, (high - low) / 2)  # from both ends, or steps next to one of them would never get away
        share = min(max(guess, low + step), high - step) if low < guess < high else (low + high) / 2
        if best is None and math.isfinite(used) and guess <= low and not tried_least:
            share, tried_least = low, True
    return best


def shown(trials: tuple[Trial, ...]) -> str:
    """The trade curve for people: a line for each thing that was tried."""
    names = [name for name in KINDS if all(name in trial.costs for trial in trials)]
    lines = [f"{'':<34}{'type':<6}{'val':>8}" + "".join(f"{words(name):>14}" for name in names)]
    for trial in trials:
        figure = "-" if trial.figure is None else f"{trial.figure:.2f}"
        cells = "".join(f"{amount(name, trial.costs[name].value):>14}" for name in names)
        lines.append(f"{trial.name:<34}{trial.type:<6}{figure:>8}{cells}  {trial.verdict}".rstrip())
    return "\n".join(lines)
