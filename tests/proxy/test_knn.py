"""Nearest neighbours against scikit-learn's, with each sample really left out."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from edgewright.proxy.features import Features
from edgewright.proxy.scores.knn import NEIGHBOURS, knn
from made_features import changed, drawn, example, size, value


def reference(features: Features) -> float:
    f, y = features.values.numpy(), features.targets.numpy()
    right = []
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        count = min(NEIGHBOURS, int(others.sum()))
        near = KNeighborsClassifier(count, metric="cosine", algorithm="brute").fit(f[others], y[others])
        shares, classes = near.predict_proba(f[i : i + 1])[0], near.classes_
        tied = classes[shares == shares.max()]
        distances, places = near.kneighbors(f[i : i + 1])
        labels = y[others][places[0]]
        right.append(min(tied, key=lambda c: distances[0][labels == c].mean()) == y[i])
    return 100 * float(np.mean(right))


@pytest.mark.parametrize("features", [example(), drawn(40, 5, 3), drawn(12, 30, 3), drawn(4, 2, 2)], ids=size)
def test_equals_each_sample_left_out(features):
    assert value(knn(), features) == pytest.approx(reference(features))


def test_rotations_and_lengths_do_not_matter():
    features = drawn(50, 6, 4)
    generator = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    lengths = torch.rand(50, 1, generator=generator, dtype=torch.float64) + 0.1
    assert value(knn(), changed(features, features.values @ turn * lengths)) == value(knn(), features)


def test_a_sample_is_not_its_own_neighbour():
    labels = torch.arange(8)
    assert value(knn(), Features(torch.eye(8).double(), torch.zeros(8, 2).double(), labels)) == 0


def test_features_that_tell_more_score_higher():
    scores = [value(knn(), drawn(90, 5, 3, apart=apart)) for apart in (0.0, 1.0, 5.0)]
    assert scores == sorted(scores) and scores[-1] > 95


def test_one_sample_one_feature_and_none():
    assert value(knn(), drawn(1, 3, 2)) == 0
    assert 0 <= value(knn(), drawn(10, 1, 2)) <= 100
    assert 0 <= value(knn(), changed(drawn(10, 3, 2), torch.zeros(10, 3).double())) <= 100
