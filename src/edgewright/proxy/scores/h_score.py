"""H-score: how far apart the classes' mean features are, against the spread of all features."""

import torch
from torch import Tensor

from edgewright.proxy.base import Proxy, of_features
from edgewright.proxy.features import Features


def h_score() -> Proxy:
    r"""The spread of the classes' means in units of the features' spread.

        S = tr( cov(f)^+ cov(E[f | y]) ) = sum_c |sum_{i of class c} u_i|^2 / n_c,     F - mean = U diag(s) V^T

    f: (D,) features of a sample; F: (n, D); u_i: row of U, (r,); ^+: pseudoinverse. Both covariances are over the n
    samples with the same divisor, which cancels. From 0 to C - 1 for C classes that are there; no units; higher is
    better. The same for every linear map of the features that loses none. Where n <= D + 1 it is C - 1 whatever the
    features are, as every labelling can then be read off: take `h_score_shrunk` there.

    Needs weights that have learned something, and classes. Cost: one eigenproblem of min(n, D).
    Source: Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP 2019,
    arXiv:2212.10082. Checked against: the definition in numpy, loop by loop, and the number of the Transfer Learning
    Library.
    """
    return Proxy(
        name="h_score",
        source="Bao et al., H-score, ICIP 2019, arXiv:2212.10082",
        summary="spread of the classes' mean features against that of all",
        needs=frozenset({"features"}),
        init=of_features(_plain),
        finish=float,
    )


def h_score_shrunk() -> Proxy:
    r"""The H-score with a covariance that is not singular where images are few.

        S = (1 - a) tr( C_a^{-1} cov(E[f | y]) ),   C_a = (1 - a) cov(f) + a tr(cov(f)) / D I

    a: Ledoit and Wolf's, from 0 to 1, in closed form: a = min(b, d) / d with
        d = |cov(f) - tr(cov(f)) / D I|^2,   b = 1/n ( 1/n sum_i |f_i - mean|^4 - |cov(f)|^2 )    (Frobenius norms)
    Otherwise as `h_score`, and no more than it; the same for rotations and one scale, no longer for every linear map.

    Differs from the authors' code: both covariances are divided by n; there the means' by n - 1.
    Source: Ibrahim, Ponomareva, Mazumder, "Newer is not always better: Rethinking transferability metrics, their
    peculiarities, stability and performance", ECML PKDD 2022, arXiv:2110.06893; Ledoit and Wolf, "A well-conditioned
    estimator for large-dimensional covariance matrices", 2004. Checked against: the definition in numpy with
    scikit-learn's shrinkage.
    """
    return Proxy(
        name="h_score_shrunk",
        source="Ibrahim et al., Newer is not always better, ECML PKDD 2022, arXiv:2110.06893",
        summary="H-score with a shrunk covariance, for few images",
        needs=frozenset({"features"}),
        init=of_features(_shrunk),
        finish=float,
    )


def _plain(features: Features) -> float:
    return float(_between(features, "h_score").sum())


def _shrunk(features: Features) -> float:
    between, squares = _between(features, "h_score_shrunk"), features.centred.squares
    count, width = features.values.shape
    if not len(squares):
        return 0.0
    shrinkage = _shrinkage(features)
    spread = squares / count
    shrunk = (1 - shrinkage) * spread + shrinkage * spread.sum() / width
    return float((1 - shrinkage) * (between * spread / shrunk).sum())


def _between(features: Features, name: str) -> Tensor:
    """(r,): along each singular direction, the classes' share of a spread of 1."""
    classes = torch.nn.functional.one_hot(features.groups(name)).double()
    return ((classes.T @ features.centred.left).square() / classes.sum(0).unsqueeze(1)).sum(0)


def _shrinkage(features: Features) -> float:
    left, squares = features.centred
    count, width = features.values.shape
    size = float((squares / count).square().sum())
    distance = size - float(squares.sum() / count) ** 2 / width
    fourth = float((left.square() @ squares).square().mean())
    return min((fourth - size) / count, distance) / distance if distance > 1e-12 * size else 0.0
