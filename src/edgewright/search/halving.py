"""Successive halving: give many candidates a little training, and more of it to fewer and fewer of the best.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016,
arXiv:1502.07943. Departs from it: every rung trains from fresh weights over a whole schedule of its own length, because
a learning rate that was annealed for a short training does not continue into a longer one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

FULL_OVER_LAST = 3  # the full training has this many times the epochs of the last rung


@dataclass(frozen=True)
class Rung:
    """How many networks enter, and how long each is trained: epochs, or seconds of wall clock; the other is None."""

    entrants: int
    epochs: int | None
    seconds: float | None


def sizes(num_finalists: int, eta: int = 3, groups: int = 1) -> list[int]:
    """n, n / eta, n / eta^2, ... rounded down, as long as there are two to choose from; the best of every group stays,
    where there are several, and there are two rungs then if n is three or more."""
    if num_finalists < 1 or eta < 2:
        raise ValueError(f"halving needs num_finalists >= 1 and eta >= 2; got {num_finalists} and {eta}")
    found, left = [], num_finalists
    while left >= 2:
        found.append(left)
        left //= eta
    if groups > 1 and num_finalists > 2:
        found = [num_finalists, *(max(size, min(groups, num_finalists - 1)) for size in found[1:] or [2])]
    return found


def rungs_of_epochs(num_finalists: int, full_epochs: int, eta: int = 3) -> list[Rung]:
    """The last rung trains for a third of the full training's epochs, each earlier one for 1 / eta of the next."""
    entrants = sizes(num_finalists, eta)
    divisors = [FULL_OVER_LAST * eta**later for later in reversed(range(len(entrants)))]
    return [Rung(n, max(1, full_epochs // d), None) for n, d in zip(entrants, divisors, strict=True)]


def rungs_of_seconds(num_finalists: int, seconds: float, num_workers: int, groups: int = 1) -> list[Rung]:
    """Each rung takes an equal part of the wall clock, shared by networks that are trained `num_workers` at once; where
    groups compete, each twice that of the one before, so that two lengths tell how each goes on."""
    entrants = sizes(num_finalists, groups=groups)
    shares = [1.0 if groups == 1 else float(2**index) for index in range(len(entrants))]
    parts = [seconds * share / sum(shares) for share in shares]
    return [Rung(n, None, part / math.ceil(n / num_workers)) for n, part in zip(entrants, parts, strict=True)]


def survivors(scores: Mapping[str, float], keep: int) -> list[str]:
    """The keys of the best `keep` scores, best first; equals stay in their order, what is not a number comes last."""
    ranked = sorted(scores, key=lambda key: (math.isnan(scores[key]), -scores[key]))
    return ranked[:keep]
