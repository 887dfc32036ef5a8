"""Kinds by name, for tasks that are read from files."""

from collections.abc import Mapping
from typing import Any

from edgewright.core.errors import BadInput
from edgewright.task.kind import Kind
from edgewright.task.kinds.classification import Classification
from edgewright.task.kinds.segmentation import Segmentation
from edgewright.task.kinds.several import Several

_KINDS: tuple[type[Kind], ...] = (Classification, Segmentation, Several)


def kinds() -> dict[str, type[Kind]]:
    """Every kind by name."""
    return {kind.name: kind for kind in _KINDS}


def make_kind(name: str, names: tuple[str, ...], facts: Mapping[str, Any]) -> Kind:
    """The kind of that name for outputs called `names`."""
    known = kinds()
    if name not in known:
        raise BadInput(f"unknown kind of task '{name}'; this version knows {', '.join(known)}")
    return known[name].made(names, facts, make_kind)
