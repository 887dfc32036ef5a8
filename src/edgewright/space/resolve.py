"""Spaces by name, for text that comes from people and plans."""

from edgewright.core.errors import BadInput
from edgewright.core.tensors import Size
from edgewright.space.base import Space, TabularSpace
from edgewright.space.spaces.linked import LinkedDense, LinkedMobile, LinkedResidual
from edgewright.space.spaces.mnasnet import MnasNetSpace
from edgewright.space.spaces.mobile import MobileSpace
from edgewright.space.spaces.nasbench201 import NASBench201
from edgewright.space.spaces.nasbench_macro import NASBenchMacro
from edgewright.task.base import TaskSpec, kind_of

_SPACES = (MobileSpace, LinkedDense, LinkedResidual, LinkedMobile, NASBench201, NASBenchMacro, MnasNetSpace)


def spaces() -> dict[str, type[Space]]:
    """Every space by name."""
    return {space.name: space for space in _SPACES}


def make_space(name: str, task: TaskSpec) -> Space:
    """The space of that name for what a task takes, with the head of its kind."""
    known = spaces()
    if name not in known:
        raise BadInput(f"unknown space '{name}'; choose from {', '.join(known)}")
    return known[name](task.signature.inputs, kind_of(task).head)


def make_tabular(name: str, channels: int = 3, outputs: int = 10, size: int | Size = 32) -> TabularSpace:
    """The space of that name, which must be one that tables are published for; by default for CIFAR-10."""
    known = {space.name: space for space in _SPACES if issubclass(space, TabularSpace)}
    if name not in known:
        raise BadInput(f"no tables speak of the space '{name}'; choose from {', '.join(known)}")
    return known[name].for_images(channels, outputs, size)
