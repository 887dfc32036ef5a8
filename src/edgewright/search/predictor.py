"""Accuracy from few labels: a Gaussian process and a forest over facts of the wiring, led by a label-free ranking.

    features = describe(space, architectures)            what the predictor sees of every network of a pool
    prior = combine(signals)                             a ranking without labels (proxy.combination), or any proxy
    scores = predict(features, prior, rows, accuracies)  from the accuracies of some rows, at random

Everything is relative to the pool: the scores order its networks, and say nothing of others. Labels at random did no
worse than labels spread evenly over the prior's ranking.
"""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtri
from sklearn.ensemble import ExtraTreesRegressor

from edgewright.core.architecture import Architecture
from edgewright.core.errors import BadInput
from edgewright.core.ranking import ranks
from edgewright.core.seed import derive
from edgewright.ir.paths import path_facts
from edgewright.ir.signal import Signal, signal
from edgewright.space.base import Space

Array = NDArray[np.float64]

LENGTHS = (1.0, 2.0, 4.0, 8.0)  # of the kernel, in root mean squared distances per feature
NOISES = (0.01, 0.1, 0.3)  # variance, in variances of the kernel
TRUST = (1.0, 10.0, 100.0)  # variance of the slope along the prior, likewise
TREES = 200
CHOICE_WEIGHT = 0.4  # of the one-hot choices beside the facts


def describe(space: Space, architectures: Sequence[Architecture]) -> Array:
    """Features (n, f) of a pool: facts of the signal as normal scores, facts of the paths, choices as one-hot.

    Standardised over the pool, columns that do not vary left out; the one-hot choices, where the space has an encoding,
    are scaled by CHOICE_WEIGHT.
    """
    graphs = [[graph for _, graph in space.blocks(architecture)] for architecture in architectures]
    signals = [signal(blocks) for blocks in graphs]
    columns = [normal_scores([getattr(one, field.name) for one in signals]) for field in fields(Signal)]
    facts = np.column_stack([*columns, np.array([path_facts(blocks) for blocks in graphs])])
    choices = space.choices()
    if not choices:
        return _standard(facts)
    vectors = np.array([space.encode(architecture) for architecture in architectures])
    one_hot = np.concatenate([vectors[:, [i]] == np.arange(count) for i, count in enumerate(choices)], axis=1)
    return np.concatenate([_standard(facts), CHOICE_WEIGHT * _standard(one_hot.astype(float))], axis=1)


def predict(
    features: ArrayLike, prior: ArrayLike | None, rows: ArrayLike, accuracies: ArrayLike, *, seed: int = 0
) -> Array:
    r"""Scores (n,) of all networks of a pool, from the accuracies of a few.

        y = normal scores of the accuracies;  p = normal scores of the prior over the pool
        f ~ GP(0, exp(-|x - x'| / l) + t (1 + p p')),  y = f + noise;   score = (mean of f + forest(x, p)) / 2

    |x - x'|: Euclidean, divided by the root of the number of features. l, t and the noise are taken from small grids by
    marginal likelihood, the signal's variance in closed form. The forest: extremely randomised trees, half of the
    features at each split. Normal scores, as only the order counts and accuracies bunch up near the best.

    Args:
        features: (n, f), as `describe` gives.   prior: (n,) label-free scores, higher is better, or None.
        rows: (k,) which networks are labelled.   accuracies: (k,) of them; larger is better.   seed: of the forest.
    Errors: BadInput for fewer than five labels, labels that are not finite or all the same, rows that are not in the
        pool or twice.
    Cost: k^3 and n k; a second or two for 6,466 networks and 100 labels.
    Source: this project; the prior as the process's mean is in the spirit of zero-cost warm starts (Abdelfattah et
    al., ICLR 2021, arXiv:2101.08134). Checked against: benchmarks/few_labels.py, and the closed form by hand.
    """
    inputs = np.asarray(features, dtype=float)
    chosen, labels = _checked(inputs, rows, accuracies)
    lead = np.zeros(len(inputs)) if prior is None else normal_scores(prior)
    lead = lead / (lead.std() or 1.0)
    targets = normal_scores(labels)
    process = _process(inputs, lead, chosen, targets)
    seen = np.column_stack([inputs, lead])
    forest = ExtraTreesRegressor(TREES, max_features=0.5, random_state=derive(seed, "forest") % 2**32)
    grown = forest.fit(seen[chosen], targets).predict(seen)
    return (process + np.asarray(grown)) / 2


def normal_scores(values: ArrayLike) -> Array:
    """Ranks as quantiles of the standard normal distribution; ties share theirs, what is no number ranks last."""
    rank = ranks(np.round(np.asarray(values, dtype=float), 9))
    return np.asarray(ndtri((rank - 0.5) / rank.size))


def _process(inputs: Array, lead: Array, chosen: NDArray[np.intp], targets: Array) -> Array:
    """The Gaussian process's mean everywhere, of the hyperparameters with the highest marginal likelihood."""
    known = inputs[chosen]
    squared = (inputs**2).sum(1)[:, None] + (known**2).sum(1) - 2 * inputs @ known.T
    far = np.sqrt(np.maximum(squared, 0.0) / max(inputs.shape[1], 1))
    along = 1 + np.outer(lead, lead[chosen])
    count, best, mean = len(chosen), -np.inf, np.zeros(len(inputs))
    for length in LENGTHS:
        near = np.exp(-far / length)
        for trust in TRUST:
            cross = near + trust * along
            for noise in NOISES:
                factor = cho_factor(cross[chosen] + noise * np.eye(count), lower=True)
                weights = cho_solve(factor, targets)
                signal_variance = max(float(targets @ weights) / count, 1e-12)
                likelihood = -0.5 * count * np.log(signal_variance) - np.log(np.diag(factor[0])).sum()
                if likelihood > best:
                    best, mean = likelihood, cross @ weights
    return mean


def _checked(inputs: Array, rows: ArrayLike, accuracies: ArrayLike) -> tuple[NDArray[np.intp], Array]:
    chosen, labels = np.asarray(rows, dtype=np.intp), np.asarray(accuracies, dtype=float)
    if chosen.ndim != 1 or chosen.shape != labels.shape:
        raise BadInput(f"{chosen.size} labelled networks, but {labels.size} accuracies; give one for each")
    if chosen.size < 5:
        raise BadInput(f"an accuracy predictor needs at least five labelled networks; got {chosen.size}")
    if np.unique(chosen).size != chosen.size or chosen.min() < 0 or chosen.max() >= len(inputs):
        raise BadInput(f"labelled networks must be different rows of the pool of {len(inputs)}")
    if not np.isfinite(labels).all():
        raise BadInput(f"the accuracy of network {chosen[~np.isfinite(labels)][0]} is not a finite number")
    if labels.min() == labels.max():
        raise BadInput("all labelled networks have the same accuracy, so there is nothing to learn from them")
    return chosen, labels


def _standard(columns: Array) -> Array:
    deviation = columns.std(axis=0)
    varies = deviation > 1e-9
    return (columns[:, varies] - columns[:, varies].mean(axis=0)) / deviation[varies]
