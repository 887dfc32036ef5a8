"""How a trained network gets smaller: rewrites planned, printed, carried out and checked.

found = edgewright.compress.plan(model, torch.zeros(1, 3, 224, 224))
print(found)
smaller = edgewright.compress.apply(model, found, samples)
"""

from typing import TYPE_CHECKING

from edgewright.core.lazy import lazily

_HOMES = {
    "apply": "edgewright.compress.base",
    "plan": "edgewright.compress.planner",
    "read_folder": "edgewright.compress.planner",
    "write_folder": "edgewright.compress.planner",
}
__all__ = ["apply", "plan", "read_folder", "write_folder"]

if TYPE_CHECKING:
    from edgewright.compress.base import apply
    from edgewright.compress.planner import plan, read_folder, write_folder
else:
    __getattr__, __dir__ = lazily(__name__, _HOMES)
