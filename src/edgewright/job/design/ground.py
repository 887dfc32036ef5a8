"""What a plan stands on: its words turned into things, checked before anything is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgewright.core.architecture import Architecture
from edgewright.core.cost import Budget, Cost, cost, show, words
from edgewright.core.errors import BadInput, BudgetInfeasible
from edgewright.core.plan import Plan
from edgewright.core.progress import say
from edgewright.core.seed import rng
from edgewright.core.tensors import Size
from edgewright.device.base import Device
from edgewright.device.resolve import make_device
from edgewright.device.table.table import LatencyModel
from edgewright.ir.graph import count_macs
from edgewright.job.base import Ground
from edgewright.proxy.resolve import resolve_proxies
from edgewright.search.base import downhill, least
from edgewright.search.resolve import resolve_strategy
from edgewright.space.base import Space
from edgewright.start.contest import Contest
from edgewright.start.resolve import find_starts, open_space
from edgewright.start.shrunk import ShrunkSpace
from edgewright.start.start import Start
from edgewright.task.base import Task
from edgewright.task.load import load_task

# Candidates are kept a little inside the ceilings that are only predicted: the table is off by a few per cent.
AIM = 0.95
PREDICTED = ("latency", "size")
CALIBRATION_SECONDS = 30.0  # a tenth of a short run
CALIBRATION_NETWORKS = 48
MACS_PER_MS = 1e8  # about what one core of a large processor can do


@dataclass
class DesignGround(Ground):
    """What a design stands on. space: what may be built; with starts, all of their spaces and that of fresh networks.
    latency: what predicts it in the space.   starts: networks that have learned, which compete."""

    plan: Plan
    task: Task
    device: Device
    space: Space
    latency: LatencyModel
    starts: tuple[Start, ...] = ()

    @property
    def members(self) -> tuple[Space, ...]:
        """The spaces that are searched, each by its own score."""
        return self.space.members if isinstance(self.space, Contest) else (self.space,)

    def start(self, architecture: Architecture) -> Start | None:
        """What a network is made of; None for fresh weights."""
        digest = getattr(architecture, "start", None)
        return next((one for one in self.starts if one.digest == digest), None)

    def steer(self, architecture: Architecture) -> str:
        """The score that says before training how good a network will be."""
        return self.plan.proxy if self.start(architecture) is None else self.plan.transfer

    def costs(self, architecture: Architecture) -> dict[str, Cost]:
        predicted = self.latency.predict(self.space.blocks(architecture))
        return {
            "latency": cost("latency", predicted, self.latency.how),
            **self.device.costs(self.space.graph(architecture)),
        }

    def size(self, architecture: Architecture) -> Size:
        """Height and width that a network takes its maps at."""
        return self.space.resolution(architecture)

    def excess(self, architecture: Architecture) -> float:
        """0 inside the budget; else by how much the worst ceiling is exceeded."""
        if refused := self.device.refused(self.space.graph(architecture)):
            return 1.0 + len(refused)  # fewer are nearer
        share = self.plan.budget.share_used(self.costs(architecture))
        return max(0.0, *(used / (AIM if name in PREDICTED else 1.0) - 1 for name, used in share.items()))


@dataclass(frozen=True)
class Named:
    """What the plan names, loaded: task, device and space, before anything is measured."""

    task: Task
    device: Device
    space: Space
    starts: tuple[Start, ...] = ()


def check(plan: Plan, dataset: Any = None) -> Named:
    """Load what the plan names and refuse what arithmetic can refuse; measures and writes nothing."""
    resolve_proxies((plan.proxy, plan.transfer) if plan.start else (plan.proxy,))
    resolve_strategy(plan.strategy)
    device = make_device(plan.device, plan.threads)
    device.check(plan.budget.ceilings())
    task = load_task(
        plan.task if dataset is None else dataset,
        seed=plan.seed,
        skip_bad=plan.skip_bad,
        flip=plan.flip,
        resolution=plan.resolution,
        metric=plan.metric,
        group=plan.group,
    )
    starts = find_starts(plan.start, plan.weights, download=plan.download) if plan.start else []
    if not starts:
        space = open_space(plan.space, task.spec)
        refuse_if_broken(plan.budget, device.costs(space.graph(space.smallest())))
        return Named(task, device, space)
    return _contest(plan, _as_it_learned(task, starts[0]), device, starts)


def _as_it_learned(task: Task, start: Start) -> Task:
    """The task in the start's normalisation, unless the units of one of them are not known."""
    if len(task.spec.inputs) > 1:
        told = " and ".join(one.name for one in task.spec.inputs)
        raise BadInput(f"{start.source}: a start takes one map, and this task has {told}")
    white = task.spec.input.white
    return task.normalised(start.mean, start.std, white or 1.0) if start.pixels == bool(white) else task


def _contest(plan: Plan, task: Task, device: Device, starts: Sequence[Start]) -> Named:
    """Of several starts those that cannot be used are said and left out, and so is one that cannot be made to fit."""
    fresh = open_space(plan.space, task.spec)
    smallest = [device.costs(fresh.graph(fresh.smallest()))]
    made: list[tuple[Start, Space]] = []
    for start in starts:
        try:
            space = open_space(ShrunkSpace.name, task.spec, start)
        except BadInput as error:
            if len(starts) == 1:
                raise
            say(f"left out: {error}")
            continue
        _say_of(start, task)
        smallest.append(device.costs(space.graph(space.smallest())))
        if broken := plan.budget.broken(smallest[-1]):
            say(f"{start.source}: cannot be made to fit: at its smallest, {'; '.join(broken)}")
        else:
            made.append((start, space))
    refuse_if_broken(plan.budget, {name: min((one[name] for one in smallest), key=_value) for name in smallest[0]})
    members = [*(space for _, space in made), fresh]
    return Named(task, device, Contest(members), tuple(start for start, _ in made))


def _value(found: Cost) -> float:
    return found.value


def _say_of(start: Start, task: Task) -> None:
    """What a person should know before anything is made of a start."""
    if not start.commercial:
        say(f"{start.source}: its licence, {start.licence}, forbids commercial use, and so of what is made of it")
    if (channels := task.spec.input.shape[0]) != start.channels:
        words = ("colour", "grey", "its channel is every colour") if channels == 1 else (
            "grey", "colour", "it is given the mean of the colours"
        )  # fmt: skip
        say("{}: learned from {} maps, and these are {}: {}".format(start.source, *words))


def survey(plan: Plan, dataset: Any = None, latency: LatencyModel | None = None) -> DesignGround:
    """`check`, fit the device's latency table unless it is given, and see that some network meets the budget."""
    named = check(plan, dataset)
    if latency is None:
        latency = _calibrate(plan, named.space, named.device)
    elif "latency" in plan.budget.ceilings():
        named.device.refuse_other(latency.device)
    ground = DesignGround(plan, named.task, named.device, named.space, latency, named.starts)
    _check_feasible(ground)
    return ground


def _calibrate(plan: Plan, space: Space, device: Device) -> LatencyModel:
    """Fit the device's latency table to whole networks of about the size that the budget allows."""
    random = rng(plan.seed, "calibration")
    most = _plausible_macs(plan.budget)

    def excess(architecture: Architecture) -> float:
        return max(0.0, count_macs(space.graph(architecture)) / most - 1)

    sampled = [space.sample(random) for _ in range(CALIBRATION_NETWORKS)]
    sized = [downhill(space, architecture, excess, random, steps=200) or space.smallest() for architecture in sampled]
    seconds = CALIBRATION_SECONDS if plan.minutes is None else min(CALIBRATION_SECONDS, 60 * plan.minutes / 20)
    return device.latency_model([space.graph(architecture) for architecture in sized], seconds=seconds)


def _plausible_macs(budget: Budget) -> float:
    """No network inside the budget has more MACs than this, on the devices there are."""
    ceilings = budget.ceilings()
    by_latency = ceilings.get("latency", 20.0) * MACS_PER_MS
    return min(by_latency, 2 * ceilings.get("macs", float("inf")))


def refuse_if_broken(budget: Budget, least_costs: Mapping[str, Cost]) -> None:
    """Errors: BudgetInfeasible where the least costs that were found are above a ceiling."""
    for name, ceiling in budget.ceilings().items():
        if name in least_costs and least_costs[name].value > ceiling:
            raise BudgetInfeasible(
                f"the {words(name)} ceiling of {show(name, ceiling)} cannot be met: "
                f"the least this space can do is about {show(name, least_costs[name].value)} ({least_costs[name].how})"
            )


def _check_feasible(ground: DesignGround) -> None:
    """Look for one network inside all ceilings; if there is none, say which ceiling binds and what can be had."""
    random = rng(ground.plan.seed, "feasible")
    best, excess = least(ground.space, ground.excess, random)
    if excess <= 0:
        return
    for name in ground.plan.budget.ceilings():
        found, _ = least(ground.space, lambda a, name=name: ground.costs(a)[name].value, random)
        refuse_if_broken(ground.plan.budget, {name: ground.costs(found)[name]})
    if refused := sorted(set(ground.device.refused(ground.space.graph(best)))):
        raise BudgetInfeasible(
            f"every network of the space '{ground.plan.space}' that was looked at has operators that "
            f"{ground.plan.device} cannot run: {', '.join(refused)}"
        )
    broken = (
        "; ".join(ground.plan.budget.broken(ground.costs(best)))
        or f"a predicted cost is within {1 - AIM:.0%} of its ceiling"
    )
    raise BudgetInfeasible(f"no network meets all ceilings at once; the nearest found: {broken}")
