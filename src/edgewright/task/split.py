"""What is held out: parts of a task drawn so that each has the shares of the whole."""

from collections import defaultdict

import torch
from torch import Tensor

from edgewright.core.seed import rng
from edgewright.task.base import Split
from edgewright.task.kind import Kind


def stratified(
    labels: Tensor, share: float, seed: int, *names: object, groups: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out): of each class round(share * n) are held out, at least one, and at least one is kept.

    Of groups, (N,) int64, whole ones are held out, as long as that comes nearer to the share; each counts for the class
    that most of it has, and the only group of a class is kept. Both parts come shuffled, so that the first few images
    of a part are not all of one class.
    """
    random = rng(seed, "split", *names)
    kept: list[int] = []
    held: list[int] = []
    together = _together(labels, groups)
    for label in labels.unique().tolist():
        members = together.get(label, [])
        random.shuffle(members)
        wanted, taken, count = max(1, round(share * sum(map(len, members)))), 0, 0
        while count < len(members) - 1 and (taken == 0 or 2 * (wanted - taken) >= len(members[count])):
            taken, count = taken + len(members[count]), count + 1
        held += [index for member in members[:count] for index in member]
        kept += [index for member in members[count:] for index in member]
    random.shuffle(kept)
    random.shuffle(held)
    return torch.tensor(kept, dtype=torch.int64), torch.tensor(held, dtype=torch.int64)


def _together(labels: Tensor, groups: Tensor | None) -> dict[int, list[list[int]]]:
    """The groups of each class, as indices; without groups each sample is one."""
    if groups is None:
        return {label: [[index] for index in (labels == label).nonzero().flatten().tolist()]
                for label in labels.unique().tolist()}  # fmt: skip
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups.tolist()):
        members[group].append(index)
    found: dict[int, list[list[int]]] = defaultdict(list)
    for rows in members.values():
        found[int(labels[rows].mode().values)].append(rows)
    return found


def shares(
    kind: Kind, split: Split, share: float, seed: int, *names: object, groups: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out) of a split, in the shares of its strata where the kind has some."""
    strata = kind.strata(split.targets)
    if strata is None:
        strata = torch.zeros(len(split), dtype=torch.int64)
    return stratified(strata, share, seed, *names, groups=groups)
