"""Jacobian covariance: how differently the samples of a batch want their inputs changed."""

import math

import torch
from torch import Tensor

from edgewright.proxy.base import Evidence, Proxy

_GUARD = 1e-5


def jacob_cov() -> Proxy:
    r"""Distance of the correlation between the samples' Jacobians from the identity.

        S = - sum_i ( log(v_i + k) + 1 / (v_i + k) ),   k = 1e-5

    v: eigenvalues of the correlation matrix (N, N) of the rows J_n = d (sum of all logits) / d x_n, flattened; N: the
    samples of the batch. Model's own weights, training mode (batch norm lets samples see each other); no labels. Higher
    is better, at most -N; mean over the batches. A sample on which the logits do not depend is the worst value.
    Cost: a forward pass, and a backward pass to the inputs; keeps one gradient of the inputs' size.
    Differs from the paper: its first version has this score; the published one counts ReLU codes (`naswot`). The
    official code's general eigenvalue solver may return complex numbers; the matrix is symmetric and so taken here.
    Source: Mellor et al., "Neural Architecture Search without Training", ICML 2021, arXiv:2006.04647 (version 1).
    Checked against: numpy on one backward pass per sample, and the number of the Zero-Cost Proxies code.
    """
    return Proxy(
        name="jacob_cov",
        source="Mellor et al., NAS without Training, arXiv:2006.04647 (version 1)",
        summary="correlation between the samples' Jacobians",
        needs=frozenset({"input_gradients"}),
        init=lambda subject: [],
        update=lambda values, evidence: [*values, _one_batch(evidence)],
        finish=lambda values: sum(values) / len(values),
    )


def _one_batch(evidence: Evidence) -> float:
    assert evidence.input_gradients is not None  # `input_gradients` is among the needs
    correlation = torch.atleast_2d(torch.corrcoef(evidence.input_gradients.flatten(1).double()))
    return _score(correlation) if bool(correlation.isfinite().all()) else math.nan


def _score(correlation: Tensor) -> float:
    guarded = torch.linalg.eigvalsh(correlation) + _GUARD
    return -float((guarded.log() + 1 / guarded).sum())
