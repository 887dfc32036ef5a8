"""LEEP: how well the source's own classes foretell those of the task."""

import torch

from edgewright.proxy.base import Proxy, of_features
from edgewright.proxy.features import Features


def leep() -> Proxy:
    r"""Log likelihood of the labels where a label is drawn by way of the source's classes.

        S = 1/n sum_i log sum_z P(y_i | z) theta_iz,     P(y | z) = sum_{i: y_i = y} theta_iz / sum_i theta_iz

    theta: (n, K), the source's probabilities of its own K classes, softmax of the last layer's outputs (of one output
    alone: sigmoid and what is left to 1); y: (n,) classes. nats a sample; at most 0, higher is better; whatever order
    the classes of either side have. No less than NCE + 1/n sum_i log max_z theta_iz; it may be above NCE.

    Means something only where the last layer is still the source's: a head of zeros gives minus the entropy of y.
    Cost: nothing beside the passes. Source: Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned
    Representations", ICML 2020, arXiv:2002.12462. Checked against: the definition, loop by loop, cases by hand, and
    the number of the Transfer Learning Library.
    """
    return Proxy(
        name="leep",
        source="Nguyen et al., LEEP, ICML 2020, arXiv:2002.12462",
        summary="likelihood of the labels by way of the source's own classes",
        needs=frozenset({"features"}),
        init=of_features(_score),
        finish=float,
    )


def _score(features: Features) -> float:
    labels, theta = features.groups("leep"), features.probabilities
    joint = torch.nn.functional.one_hot(labels).double().T @ theta
    given = joint / joint.sum(0).clamp_min(torch.finfo(torch.float64).tiny)
    return float((given[labels] * theta).sum(1).log().mean())
