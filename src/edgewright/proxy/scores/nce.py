"""NCE: how much is left open of a label when the source's answer is known."""

import torch

from edgewright.proxy.base import Proxy, of_features
from edgewright.proxy.features import Features


def nce() -> Proxy:
    r"""Minus the conditional entropy of the task's classes given the source's.

        S = sum_{y, z} p(y, z) log p(y | z),     p(y, z) = #{ i : y_i = y, z_i = z } / n

    z_i: the largest of the source's K outputs for sample i (of one output alone: its sign); y_i: its class. nats a
    sample, from minus the entropy of y to 0; higher is better; whatever order the classes of either side have. With
    many source classes and few samples it comes near 0 by chance.

    Means something only where the last layer is still the source's. Cost: nothing beside the passes.
    Source: Tran, Nguyen, Hassner, "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019,
    arXiv:1908.08142; with the source's answers in place of its labels, as in the LEEP paper (arXiv:2002.12462).
    Checked against: the definition, loop by loop, and the number of the Transfer Learning Library.
    """
    return Proxy(
        name="nce",
        source="Tran et al., Transferability and Hardness, ICCV 2019, arXiv:1908.08142",
        summary="entropy of the labels that the source's answers leave",
        needs=frozenset({"features"}),
        init=of_features(_score),
        finish=float,
    )


def _score(features: Features) -> float:
    labels, theta = features.groups("nce"), features.probabilities
    said = torch.nn.functional.one_hot(theta.argmax(1), theta.shape[1]).double()
    joint = torch.nn.functional.one_hot(labels).double().T @ said / len(labels)
    given = joint / joint.sum(0).clamp_min(torch.finfo(torch.float64).tiny)
    return float(torch.xlogy(joint, given).sum())
