"""What is held out: parts of a task drawn so that each has the shares of the whole."""

import torch
from torch import Tensor

from edgewright.core.seed import rng
from edgewright.task.base import Split
from edgewright.task.kind import Kind


def stratified(labels: torch.Tensor, share: float, seed: int, *names: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices (kept, held out): of each class round(share * n) are held out, at least one, and at least one is kept.

    Both parts come shuffled, so that the first few images of a part are not all of one class.
    """
    random = rng(seed, "split", *names)
    kept: list[int] = []
    held: list[int] = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten().tolist()
        random.shuffle(members)
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held += members[:count]
        kept += members[count:]
    random.shuffle(kept)
    random.shuffle(held)
    return torch.tensor(kept, dtype=torch.int64), torch.tensor(held, dtype=torch.int64)


def shares(kind: Kind, split: Split, share: float, seed: int, *names: object) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out) of a split, in the shares of its strata where the kind has some."""
    strata = kind.strata(split.targets)
    if strata is None:
        strata = torch.zeros(len(split), dtype=torch.int64)
    return stratified(strata, share, seed, *names)
