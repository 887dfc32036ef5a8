"""One ranking from several facts of the wiring, without labels, data or weights."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewright.core.ranking import ranks
from edgewright.ir.signal import Signal

Array = NDArray[np.float64]

# How they were chosen is told in `combine`.
WEIGHTS = {"work": 6.0, "shortcuts": 3.0, "balance": 2.0, "detail": 3.0}
# Variances over the unique cells of NAS-Bench-201: a fact that differs less elsewhere counts less there.
USUAL = {"shortcuts": 7.66, "balance": 0.0260, "detail": 0.0137}


def combine(signals: Sequence[Signal]) -> Array:
    r"""Rank networks of one space by the facts of `core.signal`, log ranks summed.

        S = 6 log r(work) + 3 a log r(shortcuts) + 2 a log r(balance) + 3 a log r(detail)
        a = min(1, variance of the fact among `signals` / its usual one)

    r: rank among `signals` over their number, 1 best, ties at their mean rank; the logarithm lets no network make up by
    one fact for being among the worst by another. Ranks blow up what hardly differs, hence a. Only the order of the
    scores means something, and only among the networks that were ranked together.

    What was chosen, and on what: the facts and their forms on the 6,466 unique cells of NAS-Bench-201 and their
    CIFAR-10 accuracies after 200 epochs, by hand and small grids. These repeat one cell in all stages, so they cannot
    say how early and late layers, wide and narrow ones, or 3x3 and 5x5 kernels compare: for that NAS-Bench-Macro and
    the MnasNet space were looked at (the exponents in `work`; here a), and of what does equally well on CIFAR-10, that
    was taken which does well there and on CIFAR-100. So these tables have all had a say. ImageNet16-120 had none:
    Spearman 0.908, Kendall 0.744 (live MACs 0.684, 0.516). It is about networks trained to their end: on 62 that were
    trained for eight short epochs, where depth costs accuracy, it is -0.30.
    Assembling by log ranks is AZ-NAS's (Lee and Ham, CVPR 2024, arXiv:2403.19232).
    Source: this project. Checked against: benchmarks/combination.py, which prints it beside the naive references on
    every table, overall and within bands of MACs.
    """
    columns = {field.name: np.array([getattr(one, field.name) for one in signals]) for field in fields(Signal)}
    shares = {name: _differs(columns[name], usual) for name, usual in USUAL.items()}
    return combine_columns(columns, {name: weight * shares.get(name, 1.0) for name, weight in WEIGHTS.items()})


def _differs(values: Array, usual: float) -> float:
    """The variance of a fact among the networks that have it, as a share of the usual, at most 1."""
    finite = values[np.isfinite(values)]
    return min(1.0, float(finite.var()) / usual) if finite.size else 0.0


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
