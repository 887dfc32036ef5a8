"""edgewright: from a data set and a device budget to a neural network that fits, measured.

`edgewright.design(...)` walks the whole way; `score`, `prune`, `fastest`, `measure` and `backward.filtered` are one
method each, on a network of one's own. Every step is also a module of its own room: task, device, model, space, proxy,
search, train, export, report. Names load when they are first used, so that importing the package is quick.
"""

from typing import TYPE_CHECKING

from edgewright.core.lazy import lazily
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
    "fastest",
    "load_model",
    "measure",
    "predict",
    "prune",
    "resume",
    "score",
]

_HOMES = {
    "Budget": "edgewright.core.cost",
    "Cost": "edgewright.core.cost",
    "Plan": "edgewright.core.plan",
    "Result": "edgewright.core.result",
    "TrainingBudget": "edgewright.backward.plans.training_plan",
    "adapt": "edgewright.job.adapt.run",
    "backward": "edgewright.backward",
    "bench": "edgewright.export.bench",
    "compress": "edgewright.compress",
    "compress_run": "edgewright.job.compress.run",
    "design": "edgewright.job.design.run",
    "fastest": "edgewright.front",
    "load_model": "edgewright.export.load",
    "measure": "edgewright.front",
    "predict": "edgewright.export.predict",
    "prune": "edgewright.front",
    "resume": "edgewright.job.design.run",
    "score": "edgewright.front",
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
    from edgewright.front import fastest, measure, prune, score
    from edgewright.job.adapt.run import adapt
    from edgewright.job.compress.run import compress_run
    from edgewright.job.design.run import design, resume
else:  # a checker that saw these would let any name through
    __getattr__, __dir__ = lazily(__name__, _HOMES)
