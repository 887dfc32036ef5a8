r"""Whether a left-right flip keeps the target, asked of the data itself before anything is trained.

    W = (X'X + lambda n I)^-1 X'Y        X: maps of 12 x 12 pixels, standardised;   Y: one column a kind of sample

Ridge regression tells the samples of one half by what it saw of the other, as they are and flipped. Natural things are
told as well either way; signs, letters and hands are not, and a network that is shown them flipped learns what is not
so. Flips spoil where more than half of what is told beyond the commonest kind is lost, and chance does not explain it
(McNemar's test). Whoever knows better says so: `flip` of the plan.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.task.glance import glance

RIDGE = 0.03
SAMPLES = 8000  # that are looked at, at most
FEWEST = 60
KEPT = 0.5  # of what is told beyond the commonest kind
CERTAIN = 3.0  # standard deviations


def flip_spoils(maps: Tensor, strata: Tensor) -> str | None:
    """In words, what a flip does to these samples, where it changes what they are; else None.

    Args: maps: (N, C, H, W) as stored.   strata: (N,), whole numbers: what each sample is.
    """
    if len(maps) < FEWEST:
        return None
    x, order = glance(maps, SAMPLES)
    x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.std((0, 2, 3), keepdim=True) + 1e-9)
    known_as = strata[order].unique(return_inverse=True)[1]
    straight, flipped = (torch.cat(told) for told in zip(*_told(x, known_as), strict=True))
    common = known_as.bincount().max().item() / len(known_as)
    known, left = straight.float().mean().item() - common, flipped.float().mean().item() - common
    lost, won = int((straight & ~flipped).sum()), int((flipped & ~straight).sum())
    if left >= KEPT * known or lost - won <= CERTAIN * (lost + won) ** 0.5:
        return None
    return (
        f"a left-right flip changes what these are ({100 * (known + common):.0f} % are told at a glance, "
        f"{100 * (left + common):.0f} % when flipped): not used in training"
    )


def _told(x: Tensor, strata: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Which samples of each half are told rightly by the other half, as they are and flipped."""
    wanted = functional.one_hot(strata).double()
    for held in (slice(0, None, 2), slice(1, None, 2)):
        others = slice(1 - (held.start or 0), None, 2)
        features = _with_one(x[others])
        penalty = RIDGE * len(features) * torch.eye(features.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(features.T @ features + penalty, features.T @ wanted[others])
        yield tuple((_with_one(y) @ weights).argmax(1) == strata[held] for y in (x[held], x[held].flip(-1)))


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x.flatten(1).double(), x.new_ones(len(x), 1).double()], 1)
