"""What a plan stands on: its words turned into things, checked before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgewright.core.architecture import Architecture
from edgewright.core.cost import Budget, Cost, cost, show
from edgewright.core.errors import BudgetInfeasible
from edgewright.core.plan import Plan
from edgewright.core.seed import rng
from edgewright.device.base import Device
from edgewright.device.resolve import make_device
from edgewright.device.table import LatencyModel
from edgewright.proxy.resolve import resolve_proxy
from edgewright.search.base import least
from edgewright.space.base import Space
from edgewright.space.resolve import make_space
from edgewright.task.base import Task
from edgewright.task.load import load_task

# Candidates are kept a little inside the ceilings that are only predicted: the table is off by a few per cent.
AIM = 0.95
CALIBRATION_NETWORKS = 16


@dataclass(frozen=True)
class Ground:
    """What the plan's words stand for, loaded and checked: what the stages work on."""

    plan: Plan
    task: Task
    device: Device
    space: Space
    latency: LatencyModel

    def costs(self, architecture: Architecture) -> dict[str, Cost]:
        predicted = self.latency.predict(self.space.blocks(architecture))
        return {"latency": cost("latency", predicted, "table"), **self.device.costs(self.space.graph(architecture))}

    def excess(self, architecture: Architecture) -> float:
        """0 inside the budget; else by how much the worst ceiling is exceeded."""
        share = self.plan.budget.share_used(self.costs(architecture))
        return max(0.0, *(used / (AIM if name == "latency" else 1.0) - 1 for name, used in share.items()))


def check(plan: Plan, dataset: Any = None, latency: LatencyModel | None = None) -> Ground:
    """Load what the plan names and see that the budget can be met; writes nothing but the device's latency table."""
    resolve_proxy(plan.proxy)
    device = make_device(plan.device, plan.threads)
    task = load_task(
        plan.task if dataset is None else dataset,
        seed=plan.seed,
        skip_bad=plan.skip_bad,
        flip=plan.flip,
        resolution=plan.resolution,
    )
    space = make_space(plan.space, task.spec)
    _check_counted_ceilings(plan, space, device)
    ground = Ground(plan, task, device, space, latency or _calibrate(plan, space, device))
    _check_feasible(ground)
    return ground


def _calibrate(plan: Plan, space: Space, device: Device) -> LatencyModel:
    """Fit the device's latency table to whole networks of the space, drawn from a seed of their own."""
    random = rng(plan.seed, "calibration")
    return device.latency_model([space.blocks(space.sample(random)) for _ in range(CALIBRATION_NETWORKS)])


def _check_counted_ceilings(plan: Plan, space: Space, device: Device) -> None:
    """What arithmetic can refuse is refused before anything is measured."""
    counted = device.costs(space.graph(space.smallest()))
    _refuse_if_broken(plan.budget, counted)


def _refuse_if_broken(budget: Budget, least_costs: Mapping[str, Cost]) -> None:
    for name, ceiling in budget.ceilings().items():
        if name in least_costs and least_costs[name].value > ceiling:
            raise BudgetInfeasible(
                f"the {name.replace('_', ' ')} ceiling of {show(name, ceiling)} cannot be met: "
                f"the least this space can do is about {show(name, least_costs[name].value)} ({least_costs[name].how})"
            )


def _check_feasible(ground: Ground) -> None:
    """Look for one network inside all ceilings; if there is none, say which ceiling binds and what can be had."""
    random = rng(ground.plan.seed, "feasible")
    best, excess = least(ground.space, ground.excess, random)
    if excess <= 0:
        return
    for name in ground.plan.budget.ceilings():
        found, _ = least(ground.space, lambda a, name=name: ground.costs(a)[name].value, random)
        _refuse_if_broken(ground.plan.budget, {name: ground.costs(found)[name]})
    broken = (
        "; ".join(ground.plan.budget.broken(ground.costs(best))) or f"latency is within {1 - AIM:.0%} of its ceiling"
    )
    raise BudgetInfeasible(f"no network meets all ceilings at once; the nearest found: {broken}")
