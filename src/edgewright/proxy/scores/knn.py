"""k nearest neighbours: whether samples that the features hold alike are of one class."""

import torch
from torch.nn import functional

from edgewright.proxy.base import Proxy, of_features
from edgewright.proxy.features import Features

NEIGHBOURS = 5


def knn() -> Proxy:
    r"""Percent of the samples whose class most of their 5 nearest neighbours have.

        S = 100/n #{ i : argmax_c v_ic = y_i }
        v_ic = #{ j in N_5(i) : y_j = c } + 1/10 mean_{j in N_5(i), y_j = c} cos_ij

    N_5(i): the 5 other samples with the largest cosine cos_ij = f_i . f_j / (|f_i| |f_j|); all others where there are
    fewer. f: (D,) features of a sample; a sample without any has a cosine of 0 to all. The cosines only decide between
    classes with as many neighbours. Higher is better; the same for every rotation of the features and every length.

    Needs weights that have learned something, and classes. Samples that are there twice flatter it. Cost: a product
    (n, n). Source: Renggli et al., "Which Model to Transfer? Finding the Needle in the Growing Haystack", CVPR 2022,
    arXiv:2010.06402, there with one neighbour on held-out data; 5 and leaving each out are this project's. Checked
    against: scikit-learn's KNeighborsClassifier, each sample really left out.
    """
    return Proxy(
        name="knn",
        source="Renggli et al., Which Model to Transfer?, CVPR 2022, arXiv:2010.06402",
        summary="accuracy of the 5 nearest neighbours in the learned features",
        needs=frozenset({"features"}),
        init=of_features(_score),
        finish=float,
    )


def _score(features: Features) -> float:
    classes = features.groups("knn")
    if len(classes) < 2:
        return 0.0
    unit = functional.normalize(features.values, dim=1)
    alike = (unit @ unit.T).fill_diagonal_(-torch.inf)
    cosines, nearest = alike.topk(min(NEIGHBOURS, len(classes) - 1), 1)
    theirs = functional.one_hot(classes[nearest], int(classes.max()) + 1).double()
    votes = theirs.sum(1)
    votes += (theirs * cosines.unsqueeze(2)).sum(1) / (10 * votes.clamp_min(1))
    return 100 * float((votes.argmax(1) == classes).double().mean())
