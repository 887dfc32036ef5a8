"""Spaces by name, for text that comes from people and plans."""

from edgewright.core.errors import BadInput
from edgewright.space.base import Space, TabularSpace
from edgewright.space.spaces.linked import LinkedDense, LinkedMobile, LinkedResidual
from edgewright.space.spaces.mnasnet import MnasNetSpace
from edgewright.space.spaces.mobile import MobileSpace
from edgewright.space.spaces.nasbench201 import NASBench201
from edgewright.space.spaces.nasbench_macro import NASBenchMacro
from edgewright.task.base import TaskSpec

_SPACES = (MobileSpace, LinkedDense, LinkedResidual, LinkedMobile, NASBench201, NASBenchMacro, MnasNetSpace)


def spaces() -> dict[str, type[Space]]:
    """Every space by name."""
    return {space.name: space for space in _SPACES}


def make_space(name: str, spec: TaskSpec) -> Space:
    """The space of that name for a task's channels, classes and resolution."""
    known = spaces()
    if name not in known:
        raise BadInput(f"unknown space '{name}'; choose from {', '.join(known)}")
    return known[name](spec.channels, len(spec.classes), spec.resolution)


def make_tabular(name: str, channels: int = 3, classes: int = 10, resolution: int = 32) -> TabularSpace:
    """The space of that name, which must be one that tables are published for; by default for CIFAR-10."""
    known = {space.name: space for space in _SPACES if issubclass(space, TabularSpace)}
    if name not in known:
        raise BadInput(f"no tables speak of the space '{name}'; choose from {', '.join(known)}")
    return known[name](channels, classes, resolution)
