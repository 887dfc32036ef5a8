"""How a network learns on the device: cheaper backward passes inside a memory budget.

with edgewright.backward.filtered(model, patch=2):
    ...  # your own training loop

found = edgewright.backward.plan(model, example, budget=edgewright.TrainingBudget(memory_bytes=40 * 2**20))
with edgewright.backward.applied(model, found):
    ...  # your own training loop
"""

from typing import TYPE_CHECKING

from edgewright.core.lazy import lazily

_HOMES = {
    "Menu": "edgewright.backward.plans.planner",
    "TrainingBudget": "edgewright.backward.plans.training_plan",
    "TrainingPlan": "edgewright.backward.plans.training_plan",
    "applied": "edgewright.backward.plans.training_plan",
    "filtered": "edgewright.backward.filtering",
    "measure": "edgewright.backward.plans.contribution",
    "plan": "edgewright.backward.plans.planner",
    "plan_of": "edgewright.backward.plans.planner",
}
__all__ = ["Menu", "TrainingBudget", "TrainingPlan", "applied", "filtered", "measure", "plan", "plan_of"]

if TYPE_CHECKING:
    from edgewright.backward.filtering import filtered
    from edgewright.backward.plans.contribution import measure
    from edgewright.backward.plans.planner import Menu, plan, plan_of
    from edgewright.backward.plans.training_plan import TrainingBudget, TrainingPlan, applied
else:
    __getattr__, __dir__ = lazily(__name__, _HOMES)
