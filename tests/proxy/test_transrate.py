"""TransRate against the paper's listing."""

import numpy as np
import pytest
import torch

from edgewright.proxy.features import Features
from edgewright.proxy.scores.transrate import transrate
from made_features import changed, drawn, example, size, value


def rate(z: np.ndarray) -> float:
    return 0.5 * float(np.linalg.slogdet(np.eye(z.shape[1]) + z.T @ z / (len(z) * 1e-4))[1])


def reference(features: Features) -> float:
    z, y = features.values.numpy(), features.targets.numpy()
    z = z - z.mean(0)
    return rate(z) - float(np.mean([rate(z[y == label]) for label in np.unique(y)]))


@pytest.mark.parametrize("features", [example(), drawn(31, 4, 3), drawn(12, 20, 3), drawn(15, 1, 2)], ids=size)
def test_equals_the_listing(features):
    assert value(transrate(), features) == pytest.approx(reference(features), rel=1e-6)


def test_equals_the_official_code():
    # thuml/Transfer-Learning-Library c4aa59eb, tllib/ranking/transrate.py on these features.
    assert value(transrate(), example()) == pytest.approx(6.9973832132, rel=1e-8)


def test_classes_apart_score_higher_and_constants_nothing():
    scores = [value(transrate(), drawn(60, 5, 3, apart=apart)) for apart in (0.0, 1.0, 4.0)]
    assert scores == sorted(scores)
    features = drawn(20, 4, 3)
    assert value(transrate(), changed(features, torch.full((20, 4), 3.0).double())) == 0
    assert value(transrate(), changed(features, targets=features.targets * 4)) == value(transrate(), features)
