"""Spaces by name, for text that comes from people and plans."""

from edgewright.core.errors import BadInput
from edgewright.space.base import Space
from edgewright.space.linked import LinkedDense, LinkedMobile, LinkedResidual
from edgewright.space.mobile import MobileSpace
from edgewright.task.base import TaskSpec


def spaces() -> dict[str, type[Space]]:
    """Every space by name."""
    return {space.name: space for space in (MobileSpace, LinkedDense, LinkedResidual, LinkedMobile)}


def make_space(name: str, spec: TaskSpec) -> Space:
    """The space of that name for a task's channels, classes and resolution."""
    known = spaces()
    if name not in known:
        raise BadInput(f"unknown space '{name}'; choose from {', '.join(known)}")
    return known[name](spec.channels, len(spec.classes), spec.resolution)
