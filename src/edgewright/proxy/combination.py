"""One ranking from several facts of the wiring, without labels, data or weights."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewright.core.ranking import ranks
from edgewright.core.signal import Signal

Array = NDArray[np.float64]

# Chosen on NAS-Bench-201's CIFAR-10 and frozen; see `combine`.
WEIGHTS = {"work": 2.0, "roots": 1.0, "shortcuts": 1.0, "balance": 1.0, "detail": 2.0}


def combine(signals: Sequence[Signal]) -> Array:
    r"""Rank networks of one space by the facts of `core.signal`, log ranks summed.

        S = 2 log r(work) + log r(roots) + log r(shortcuts) + log r(balance) + 2 log r(detail)

    r: rank among `signals` over their number, 1 best, ties at their mean rank; the logarithm lets no network make up by
    one fact for being among the worst by another. A fact that is the same for all says nothing. Only the order of the
    scores means something, and only among the networks that were ranked together.

    What was chosen, and on what: facts, exponents and whole weights by hand and by a small grid, on the 6,466 unique
    cells of NAS-Bench-201 and their CIFAR-10 accuracies after 200 epochs alone; then frozen and looked at elsewhere.
    After that look one rule of the signal was corrected (a pooling that halves the image does not blur), and nothing
    else. NAS-Bench-201 repeats one cell in all stages, so it cannot say how early and late layers compare: where
    networks differ in that, as in NAS-Bench-Macro, `roots` alone ranks better than the combination.
    Assembling by log ranks is AZ-NAS's (Lee and Ham, CVPR 2024, arXiv:2403.19232).
    Source: this project. Checked against: benchmarks/combination.py, which prints it beside the naive references on
    every table, overall and within bands of MACs.
    """
    return combine_columns(
        {field.name: [getattr(one, field.name) for one in signals] for field in fields(Signal)}, WEIGHTS
    )


def combine_columns(columns: Mapping[str, ArrayLike], weights: Mapping[str, float]) -> Array:
    """Weighted sum of the log ranks of `columns` (each one value a network, higher is better)."""
    total = 0.0
    for name, weight in weights.items():
        # Ten digits: sums of the same numbers in another order must tie.
        rank = ranks(_rounded(np.asarray(columns[name], dtype=np.float64)))
        total = total + weight * np.log(rank / rank.size)
    return np.asarray(total, dtype=np.float64)


def _rounded(values: Array) -> Array:
    finite = np.isfinite(values)
    scale = float(np.abs(values[finite]).max(initial=0.0)) or 1.0
    return np.where(finite, np.round(np.where(finite, values, 0.0) / scale, 10), values)
