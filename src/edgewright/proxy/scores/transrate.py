"""TransRate: how many bits the features take, and how many less within a class."""

import torch
from torch import Tensor

from edgewright.proxy.base import Proxy, of_features
from edgewright.proxy.features import Features

DISTORTION = 1e-4


def transrate() -> Proxy:
    r"""Coding rate of the features less the mean of the classes' own.

        S = R(Z) - 1/C sum_c R(Z_c),     R(Z) = 1/2 log det( I + Z^T Z / (n eps) ),   eps = 1e-4

    Z: (n, D) features less their mean; Z_c: (n_c, D) the rows of class c of Z, not centred anew; C classes that are
    there. nats; higher is better. It depends on the scale of the features and grows with D: it compares networks whose
    features are about as large.

    Needs weights that have learned something, and classes. Cost: one eigenproblem of min(n, D), a Cholesky
    factor of min(n_c, D) for each class.
    Source: Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022, arXiv:2106.09439. Checked against:
    the paper's listing in numpy, and the number of the Transfer Learning Library.
    """
    return Proxy(
        name="transrate",
        source="Huang et al., TransRate, ICML 2022, arXiv:2106.09439",
        summary="coding rate of the learned features less that of the classes",
        needs=frozenset({"features"}),
        init=of_features(_score),
        finish=float,
    )


def _score(features: Features) -> float:
    classes = features.groups("transrate")
    values, squares = features.values - features.values.mean(0), features.centred.squares
    whole = float(torch.log1p(squares / (len(values) * DISTORTION)).sum()) / 2
    each = [_rate(values[classes == label]) for label in range(int(classes.max()) + 1)]
    return whole - sum(each) / len(each)


def _rate(values: Tensor) -> float:
    gram = values @ values.T if values.shape[0] <= values.shape[1] else values.T @ values
    whole = gram / (len(values) * DISTORTION) + torch.eye(len(gram), dtype=gram.dtype)
    return float(torch.linalg.cholesky(whole).diagonal().log().sum())
