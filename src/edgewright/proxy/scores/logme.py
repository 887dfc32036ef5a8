"""LogME: how likely the targets are under a Bayesian linear model of the features."""

import math

import torch
from torch import Tensor

from edgewright.proxy.base import Proxy, of_features
from edgewright.proxy.features import Features

STARTS = 65  # ratios alpha / beta at which the search begins, from 1e-8 to 1e8 of the mean squared singular value
ROUNDS = 100
FLOOR = 1e-10  # of the mean of y^2: the least variance of the noise


def logme() -> Proxy:
    r"""Log evidence of each target given the features, a sample, at its best variances; mean over the targets.

        y = F w + e,   w ~ N(0, I / alpha),   e ~ N(0, I / beta);        S = mean_c max_{alpha, beta} log p(y_c | F) / n
        log p(y | F) = n/2 log(beta / 2 pi) - beta/2 q(t) + 1/2 sum_k log(t / (t + s_k^2)),   t = alpha / beta
        q(t) = sum_k z_k^2 t / (t + s_k^2) + |y|^2 - |z|^2,   z = U^T y,   F = U diag(s) V^T,   best beta = n / q(t)

    F: (n, D) features as they are, y_c: (n,) a column of 0 and 1 for each class that is there, or numbers less their
    mean over their spread. nats a sample; higher is better. t by the paper's fixed point, from the best of 65 values:

        t <- (gamma / m) / ((n - gamma) / r),   gamma = sum_k s_k^2 / (t + s_k^2)
        m = |w|^2 = sum_k s_k^2 z_k^2 / (t + s_k^2)^2,   r = |y - F w|^2 = q(t) - t m

    Needs weights that have learned something. There is no offset in the model, as in the paper. Cost: one
    eigenproblem of min(n, D).
    Differs from the paper's code: that starts from t = 1 and stops after 11 steps, so what it gives depends on the
    scale of the features; and where D > n its form with singular values leaves (D - n) / 2 log(alpha) in the evidence,
    which cancels in the formula. The noise has at least 1e-10 of the mean of y^2.
    Source: You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021,
    arXiv:2102.11005; the form with singular values: arXiv:2110.10545. Checked against: the density of
    N(0, I / beta + F F^T / alpha), maximised over both by scipy, and the official code's number.
    """
    return Proxy(
        name="logme",
        source="You et al., LogME, ICML 2021, arXiv:2102.11005",
        summary="evidence of the targets under a Bayesian linear model of learned features",
        needs=frozenset({"features"}),
        init=of_features(_score),
        finish=float,
    )


def _score(features: Features) -> float:
    targets = features.columns
    if not targets.shape[1]:
        return math.nan  # numbers that are all the same
    left, squares = features.plain
    seen = (left.T @ targets).square()
    evidence = _Evidence(squares, seen, targets.square().sum(0), len(targets))
    scale = squares.mean() if len(squares) else torch.tensor(1.0, dtype=torch.float64)
    ratios = (scale * torch.logspace(-8, 8, STARTS, dtype=torch.float64)).unsqueeze(1).expand(-1, targets.shape[1])
    values = torch.stack([evidence.at(row) for row in ratios])
    best, ratio = values.max(0).values, ratios.gather(0, values.argmax(0, keepdim=True))[0]
    for _ in range(ROUNDS):
        step = evidence.step(ratio)
        value = evidence.at(step)
        ratio, moved = step, value > best + 1e-12
        best = best.maximum(value)
        if not bool(moved.any()):
            break
    return float(best.mean())


class _Evidence:
    """Of C targets at once, at a ratio t for each.   squares: s^2 (r,).   seen: z^2 (r, C).   whole: |y|^2 (C,)."""

    def __init__(self, squares: Tensor, seen: Tensor, whole: Tensor, count: int) -> None:
        self.squares, self.seen, self.whole, self.count = squares.unsqueeze(1), seen, whole, count
        self.outside = (whole - seen.sum(0)).clamp_min(0)

    def at(self, ratio: Tensor) -> Tensor:
        """(C,) log evidence over n, at the best beta."""
        share = ratio / (ratio + self.squares)
        left = ((self.seen * share).sum(0) + self.outside).maximum(FLOOR * self.whole)
        return share.log().sum(0) / (2 * self.count) - (torch.log(2 * math.pi * left / self.count) + 1) / 2

    def step(self, ratio: Tensor) -> Tensor:
        """The next ratio; where there is nothing to gain, the same."""
        shared = self.squares / (ratio + self.squares)
        known = shared.sum(0)
        size = (shared * self.seen / (ratio + self.squares)).sum(0)
        noise = (self.seen * (1 - shared).square()).sum(0) + self.outside
        step = (known / size) * (noise / (self.count - known))
        return step.where(step.isfinite() & (step > 0), ratio)
