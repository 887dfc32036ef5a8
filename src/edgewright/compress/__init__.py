"""How a trained network gets smaller: rewrites planned, printed, carried out and checked.

found = edgewright.compress.plan(model, torch.zeros(1, 3, 224, 224))
print(found)
smaller = edgewright.compress.apply(model, found, samples)
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "plan": "edgewright.compress.planner",
    "apply": "edgewright.compress.base",
    "read_folder": "edgewright.compress.planner",
    "write_folder": "edgewright.compress.planner",
}
__all__ = ["apply", "plan", "read_folder", "write_folder"]

if TYPE_CHECKING:
    from edgewright.compress.base import apply
    from edgewright.compress.planner import plan, read_folder, write_folder


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgewright.compress' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
