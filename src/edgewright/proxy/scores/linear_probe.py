"""A linear probe in closed form: ridge regression on the features, each sample foretold by the others."""

import math

import torch
from torch import Tensor

from edgewright.proxy.base import Proxy, of_features
from edgewright.proxy.features import Features

PENALTIES = tuple(10 ** (power / 2) for power in range(-10, 7))  # of the mean squared singular value
_SOURCE = "closed-form leave-one-out ridge (Hastie et al., ESL 7.10)"


def linear_probe() -> Proxy:
    r"""Percent of the samples that a linear probe, trained on all others, gives the right class; see `linear_fit`.

        S = 100/n #{ i : argmax_c yhat_ic = y_i },   yhat_ic = y_ic - e_ic

    Where several outputs are largest, the first class counts. Refuses targets that are numbers. Source, what it
    differs in and what it was checked against: as of `linear_fit`.
    """
    return Proxy(
        name="linear_probe",
        source=_SOURCE,
        summary="accuracy of a ridge probe on learned features, leaving each sample out",
        needs=frozenset({"features"}),
        init=of_features(_accuracy),
        finish=float,
    )


def linear_fit() -> Proxy:
    r"""How much of the targets a linear probe foretells that was trained on all other samples.

        S = 1 - sum_ic e_ic^2 / sum_ic d_ic^2,   e_ic = r_ic / (1 - h_i),   d_ic = (y_ic - mean_c) n / (n - 1)
        r = Y - 1/n 1 1^T Y - U diag(s^2 / (s^2 + lambda)) U^T Y,     h_i = 1/n + sum_k u_ik^2 s_k^2 / (s_k^2 + lambda)

    F - mean = U diag(s) V^T: (n, D) features; Y: (n, C), a column of 0 and 1 for each class that is there, or numbers.
    e: what is missed where sample i is left out, the offset and the weights fitted anew, exactly; d: the same of the
    mean of the others. 1 is perfect, 0 no better than the mean; no units, higher is better. Unlike accuracy it has no
    steps, so it tells networks apart on few samples. lambda: of 17 values from 1e-5 to 1e3 of the mean s^2 the one
    with the least sum of e^2, the same for all columns; so S is the best of 17, which flatters a little.

    Needs weights that have learned something. Cost: one eigenproblem of min(n, D).
    Source: the identity is textbook (Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning", 7.10;
    Allen's PRESS, 1974); linear probes as a transfer score: Kornblith et al., "Do Better ImageNet Models Transfer
    Better?", CVPR 2019, arXiv:1805.08974 (there by logistic regression on held-out data). Checked against: ridge
    regressions of scikit-learn, each sample really left out.
    """
    return Proxy(
        name="linear_fit",
        source=_SOURCE,
        summary="share of the targets' spread that a ridge probe foretells, leaving each sample out",
        needs=frozenset({"features"}),
        init=of_features(_fit),
        finish=float,
    )


def _accuracy(features: Features) -> float:
    classes = features.groups("linear_probe")
    said = (features.columns - _missed(features)).argmax(1)
    return 100 * float((said == classes).double().mean())


def _fit(features: Features) -> float:
    targets = features.columns
    mean_missed = (targets - targets.mean(0)).square().sum() * (len(targets) / max(1, len(targets) - 1)) ** 2
    return 1 - float(_missed(features).square().sum() / mean_missed) if mean_missed > 0 else math.nan


def _missed(features: Features) -> Tensor:
    """e (n, C) at the best penalty."""
    left, squares = features.centred
    targets = features.columns - features.columns.mean(0)
    seen, weights = left.T @ targets, left.square()
    scale = squares.mean() if len(squares) else torch.tensor(1.0, dtype=torch.float64)
    best, least = targets, math.inf
    for penalty in PENALTIES:
        share = squares / (squares + penalty * scale)
        kept = 1 - 1 / len(targets) - weights @ share
        missed = (targets - left @ (share.unsqueeze(1) * seen)) / kept.unsqueeze(1)
        if (total := float(missed.square().sum())) < least:
            best, least = missed, total
    return best
