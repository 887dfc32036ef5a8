"""Successive halving: give many candidates a little training, and what is left to the best."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """One round: `networks` enter it and each is trained for `epochs` more."""

    networks: int
    epochs: int


def plan(num_finalists: int, total_epochs: int, eta: int = 2) -> tuple[Share, ...]:
    """Divide `total_epochs` of training over rounds that each keep the best 1 / eta of the networks.

    n_r = floor(n_0 / eta^r), down to 2 networks at the least; every round gets an equal part of the epochs, so that a
    network in round r is trained for about total / (rounds * n_r) more; the last round gets what rounding leaves.

    Args:
        num_finalists: networks that enter; fewer do where the epochs do not suffice for one each in every round.
        total_epochs: over all networks and rounds; the plan never takes more.
        eta: at least 2.
    Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS
    2016, arXiv:1502.07943.
    """
    if num_finalists < 1 or eta < 2:
        raise ValueError(f"halving needs num_finalists >= 1 and eta >= 2; got {num_finalists} and {eta}")
    for entrants in range(num_finalists, 1, -1):
        sizes = [entrants // eta**r for r in range(entrants.bit_length()) if entrants // eta**r >= 2]
        if sum(sizes) <= total_epochs:
            return _shares(sizes, total_epochs)
    return ()  # one network, or no epochs: there is nothing to choose by training


def _shares(sizes: list[int], total_epochs: int) -> tuple[Share, ...]:
    each = [max(1, total_epochs // (len(sizes) * size)) for size in sizes]
    while sum(s * e for s, e in zip(sizes, each, strict=True)) > total_epochs:
        longest = max(range(len(each)), key=each.__getitem__)  # one epoch each for a big first round may overdraw
        each[longest] -= 1
    left = total_epochs - sum(s * e for s, e in zip(sizes, each, strict=True))
    each[-1] += left // sizes[-1]
    return tuple(Share(size, epochs) for size, epochs in zip(sizes, each, strict=True))


def survivors(scores: Mapping[str, float], keep: int) -> list[str]:
    """The keys of the best `keep` scores, best first; equals stay in their order, what is not a number comes last."""
    ranked = sorted(scores, key=lambda key: (math.isnan(scores[key]), -scores[key]))
    return ranked[:keep]
