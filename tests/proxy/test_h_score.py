"""The H-score against its definition, with covariances written out."""

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage

from edgewright.core.errors import BadInput
from edgewright.proxy.features import Features
from edgewright.proxy.scores.h_score import h_score, h_score_shrunk
from made_features import changed, drawn, example, size, value

CASES = [example(), drawn(31, 4, 3), drawn(12, 20, 3), drawn(15, 1, 2)]


def reference(features: Features, shrunk: bool) -> float:
    f, y = features.values.numpy(), features.targets.numpy()
    n, width = f.shape
    f = f - f.mean(0)
    spread, between = np.zeros((width, width)), np.zeros((width, width))
    for i in range(n):
        mean = np.mean([f[j] for j in range(n) if y[j] == y[i]], axis=0)
        spread += np.outer(f[i], f[i]) / n
        between += np.outer(mean, mean) / n
    if not shrunk:
        return float(np.trace(np.linalg.pinv(spread, rcond=1e-10) @ between))
    a = float(ledoit_wolf_shrinkage(f))
    whole = (1 - a) * spread + a * np.trace(spread) / width * np.eye(width)
    return float(np.trace(np.linalg.inv(whole) @ ((1 - a) * between)))


@pytest.mark.parametrize("features", CASES, ids=size)
def test_equals_the_definition(features):
    assert value(h_score(), features) == pytest.approx(reference(features, False), rel=1e-6)
    assert value(h_score_shrunk(), features) == pytest.approx(reference(features, True), rel=1e-6)


def test_equals_the_official_code():
    # thuml/Transfer-Learning-Library c4aa59eb, tllib/ranking/hscore.py on these features.
    assert value(h_score(), example()) == pytest.approx(1.8505256415, rel=1e-8)


def test_no_linear_map_changes_it_and_rotations_leave_the_shrunk_one():
    features = drawn(40, 5, 4)
    generator = torch.Generator().manual_seed(2)
    mixed = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    linear = changed(features, features.values @ mixed + 3)
    turned = changed(features, 1e-3 * features.values @ torch.linalg.qr(mixed).Q - 7)
    assert value(h_score(), linear) == pytest.approx(value(h_score(), features), rel=1e-8)
    assert value(h_score_shrunk(), turned) == pytest.approx(value(h_score_shrunk(), features), rel=1e-8)
    assert value(h_score_shrunk(), linear) != pytest.approx(value(h_score_shrunk(), features), rel=1e-2)


def test_with_no_more_samples_than_features_only_the_shrunk_one_tells_anything():
    noise, apart = drawn(20, 30, 3, apart=0.0), drawn(20, 30, 3, apart=3.0)
    assert value(h_score(), noise) == pytest.approx(2) == value(h_score(), apart)
    assert value(h_score_shrunk(), noise) < value(h_score_shrunk(), apart) <= 2


@pytest.mark.parametrize("proxy", [h_score(), h_score_shrunk()], ids=lambda proxy: proxy.name)
def test_bounds_absent_classes_constants_and_numbers(proxy):
    features = drawn(30, 4, 3)
    told = value(proxy, features)
    assert 0 < told <= 2
    assert value(proxy, changed(features, targets=features.targets * 5 + 1)) == pytest.approx(told, rel=1e-9)
    assert value(proxy, changed(features, torch.full((30, 4), 2.5).double())) == 0
    assert value(proxy, changed(features, targets=torch.zeros(30, dtype=torch.int64))) == pytest.approx(0, abs=1e-9)
    with pytest.raises(BadInput, match=f"{proxy.name} needs one whole number"):
        value(proxy, changed(features, targets=features.values[:, :1]))
