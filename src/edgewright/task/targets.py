"""From what is true of the samples to the kind of task that learns it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from edgewright.core.errors import BadInput
from edgewright.core.tensors import as_tree
from edgewright.task.kind import Kind
from edgewright.task.kinds.resolve import kinds, make_kind

SEVERAL = "several"
BY_AXES = {1: "classification", 3: "segmentation"}  # of integers (N,) and (N, H, W)


class Learned(NamedTuple):
    """What `Described` needs: a kind by name, what its outputs are called, and what else it is told."""

    kind: str
    names: tuple[str, ...]
    facts: dict[str, Any]


def what_is_learned(targets: Mapping[str, Tensor], names: Mapping[str, Sequence[str]], where: str) -> Learned:
    """The kind for targets by name, one of them alone under any name; `names`: what the numbers of each mean.

    Errors: BadInput for targets that no kind of this version learns.
    """
    kind = {name: _kind(target, f"{where}{f': {name}' if name else ''}") for name, target in targets.items()}
    if len(targets) == 1:
        (name,) = targets
        return Learned(kind[name], tuple(names[name]), {})
    parts = [{"name": name, "kind": kind[name], "names": [*names[name]],
              "metric": make_kind(kind[name], tuple(names[name]), {}).decides(targets[name]), "facts": {}}
             for name in targets]  # fmt: skip
    return Learned(SEVERAL, tuple(f"{name}.{one}" for name in targets for one in names[name]), {"parts": parts})


def _kind(target: Tensor, where: str) -> str:
    found = BY_AXES.get(target.ndim)
    if found is None or target.is_floating_point():
        told = f"targets {tuple(target.shape)} of {target.dtype}"
        raise BadInput(f"{where}: {told} are of no kind that this version learns; give integers (N,)")
    if found not in kinds():
        raise BadInput(f"{where}: a class for each pixel is the kind '{found}', which this version does not know")
    return found


def counted(target: Tensor, where: str) -> Tensor:
    """The numbers of a target that are classes, without those that its kind ignores, in a row.

    Errors: BadInput for targets that no kind of this version learns.
    """
    kind = kinds()[_kind(target, where)]
    return target[target != int(kind.fill)] if kind.aligned else target


def class_numbers(
    target: Tensor, others: Mapping[str, Tensor], given: Sequence[str] | None, where: str, called: str
) -> list[str]:
    """Names of the classes of training targets, numbers where none are given.

    others: the other parts' targets, by what they are called.   called: what the training targets are.
    Errors: BadInput for numbers with gaps, or in another part only, and for too few names.
    """
    top, known = int(target.max()) + 1, set(target.unique().tolist())
    for other, values in others.items():
        new = sorted(set(values.unique().tolist()) - known)
        if new:
            raise BadInput(f"{where}: {other} has class {new[0]}, which {called} lacks")
    if given is not None and top > len(given):
        raise BadInput(f"{where}: label {top - 1} in {called} is out of range: classes has {len(given)} names")
    count = top if given is None else len(given)
    absent = next((label for label in range(count) if label not in known), None)
    if absent is not None:
        raise BadInput(f"{where}: {called} has no image of class {absent}; labels must run from 0 without gaps")
    return list(given) if given is not None else [str(label) for label in range(top)]


def as_learned(targets: Any, names: Mapping[str, Sequence[str]], kind: Kind, where: str) -> Any:
    """Targets of other data in the numbers of a task of this kind, by what they are called there.

    names: of what they number, by target; where a target has none, its numbers are the task's.
    Errors: BadInput for other targets than the task's, and for a number or a name that it does not know.
    """
    known = kind.targets()
    found = targets if isinstance(targets, Mapping) else {next(iter(known)): targets}
    if {*found} != {*known}:
        raise BadInput(f"{where}: the targets are {', '.join(found)}; the network learned {', '.join(known) or 'one'}")
    return as_tree({name: _moved(target, known[name], names.get(name) or known[name], kind, where)
                    for name, target in found.items()})  # fmt: skip


def _moved(target: Tensor, known: Sequence[str], called: Sequence[str], kind: Kind, where: str) -> Tensor:
    numbers = target.long()  # bytes would be taken for a mask
    ignored = numbers == int(kind.fill) if kind.aligned else torch.zeros_like(numbers, dtype=torch.bool)
    top = int(numbers.masked_fill(ignored, 0).max()) if target.numel() else 0
    if top >= len(called):
        raise BadInput(f"{where}: there is the label {top}, and the network knows {len(called)}; labels count from 0")
    if strange := next((one for one in called if one not in known), None):
        raise BadInput(f"{where}: the network knows no class '{strange}'")
    order = torch.tensor([known.index(one) for one in called])
    return torch.where(ignored, numbers, order[numbers.clamp(max=len(called) - 1)]).to(target.dtype)
