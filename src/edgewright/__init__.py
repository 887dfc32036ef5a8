"""edgewright: from a data set and a device budget to a neural network that fits, measured.

`edgewright.design(...)` walks the whole way; every step is also a module of its own room: task, device, model, space,
proxy, search, train, export, report. Names load when they are first used, so that importing the package is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

from edgewright.core.no_telemetry import switch_off

switch_off()

__version__ = "0.1.0"
__all__ = [
    "Budget",
    "Cost",
    "Plan",
    "Result",
    "TrainingBudget",
    "adapt",
    "backward",
    "bench",
    "compress",
    "compress_run",
    "design",
    "load_model",
    "predict",
    "resume",
]

_HOMES = {
    "Budget": "edgewright.core.cost",
    "Cost": "edgewright.core.cost",
    "Plan": "edgewright.core.plan",
    "Result": "edgewright.core.result",
    "design": "edgewright.job.design.run",
    "resume": "edgewright.job.design.run",
    "adapt": "edgewright.job.adapt.run",
    "compress_run": "edgewright.job.compress.run",
    "predict": "edgewright.export.predict",
    "bench": "edgewright.export.bench",
    "load_model": "edgewright.export.load",
    "TrainingBudget": "edgewright.backward.plans.training_plan",
}

if TYPE_CHECKING:
    from edgewright import backward, compress
    from edgewright.backward.plans.training_plan import TrainingBudget
    from edgewright.core.cost import Budget, Cost
    from edgewright.core.plan import Plan
    from edgewright.core.result import Result
    from edgewright.export.bench import bench
    from edgewright.export.load import load_model
    from edgewright.export.predict import predict
    from edgewright.job.adapt.run import adapt
    from edgewright.job.compress.run import compress_run
    from edgewright.job.design.run import design, resume


def __getattr__(name: str) -> Any:
    if name in ("backward", "compress"):
        return importlib.import_module(f"edgewright.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'edgewright' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
