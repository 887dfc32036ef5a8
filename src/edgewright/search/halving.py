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


def sizes(num_finalists: int, eta: int = 3) -> list[int]:
    """n, n / eta, n / eta^2, ... rounded down, as long as there are two to choose from."""
    if num_finalists < 1 or eta < 2:
        raise ValueError(f"halving needs num_finalists >= 1 and eta >= 2; got {num_finalists} and {eta}")
    found = []
    while num_finalists >= 2:
        found.append(num_finalists)
        num_finalists //= eta
    return found


def rungs_of_epochs(num_finalists: int, full_epochs: int, eta: int = 3) -> list[Rung]:
    """The last rung trains for a third of the full training's epochs, each earlier one for 1 / eta of the next."""
    entrants = sizes(num_finalists, eta)
    divisors = [FULL_OVER_LAST * eta**later for later in reversed(range(len(entrants)))]
    return [Rung(n, max(1, full_epochs // d), None) for n, d in zip(entrants, divisors, strict=True)]


def rungs_of_seconds(num_finalists: int, seconds: float, num_workers: int, eta: int = 3) -> list[Rung]:
    """Each rung takes an equal part of the wall clock, shared by networks that are trained `num_workers` at once."""
    entrants = sizes(num_finalists, eta)
    return [Rung(n, None, seconds / len(entrants) / math.ceil(n / num_workers)) for n in entrants]


def survivors(scores: Mapping[str, float], keep: int) -> list[str]:
    """The keys of the best `keep` scores, best first; equals stay in their order, what is not a number comes last."""
    ranked = sorted(scores, key=lambda key: (math.isnan(scores[key]), -scores[key]))
    return ranked[:keep]
