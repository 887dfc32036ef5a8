"""How a network learns on the device: cheaper backward passes inside a memory budget.

found = edgewright.backward.plan(model, example, budget=edgewright.TrainingBudget(memory_bytes=40 * 2**20))
with edgewright.backward.applied(model, found):
    ...  # your own training loop
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "plan": "edgewright.backward.plans.planner",
    "plan_of": "edgewright.backward.plans.planner",
    "applied": "edgewright.backward.plans.training_plan",
    "TrainingBudget": "edgewright.backward.plans.training_plan",
    "TrainingPlan": "edgewright.backward.plans.training_plan",
    "measure": "edgewright.backward.plans.contribution",
}
__all__ = ["TrainingBudget", "TrainingPlan", "applied", "measure", "plan", "plan_of"]

if TYPE_CHECKING:
    from edgewright.backward.plans.contribution import measure
    from edgewright.backward.plans.planner import plan, plan_of
    from edgewright.backward.plans.training_plan import TrainingBudget, TrainingPlan, applied


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgewright.backward' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
