"""The linear probe against ridge regressions from which each sample was really left out."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from edgewright.core.errors import BadInput
from edgewright.proxy.features import Features
from edgewright.proxy.scores.linear_probe import PENALTIES, linear_fit, linear_probe
from made_features import changed, drawn, example, size, value


def really_left_out(features: Features, targets: np.ndarray, penalty: float) -> np.ndarray:
    """What is missed of each sample by a ridge regression on all others."""
    f = features.values.numpy()
    centred = np.linalg.svd(f - f.mean(0), compute_uv=False) ** 2
    scale = centred[centred > 1e-9 * centred.sum()].mean()
    missed = np.zeros_like(targets)
    for i in range(len(f)):
        others = np.arange(len(f)) != i
        model = Ridge(alpha=penalty * scale, solver="svd").fit(f[others], targets[others])
        missed[i] = targets[i] - model.predict(f[i : i + 1]).reshape(-1)
    return missed


def reference(features: Features, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Share foretold at the best penalty, and what is foretold there."""
    n = len(targets)
    missed = min((really_left_out(features, targets, p) for p in PENALTIES), key=lambda e: float((e**2).sum()))
    mean_missed = [targets[i] - targets[np.arange(n) != i].mean(0) for i in range(n)]
    return 1 - float((missed**2).sum() / np.square(mean_missed).sum()), targets - missed


@pytest.mark.parametrize("features", [example(), drawn(17, 3, 3), drawn(9, 14, 3), drawn(13, 1, 2)], ids=size)
def test_equals_each_sample_left_out(features):
    targets = features.columns.numpy()
    share, said = reference(features, targets)
    assert value(linear_fit(), features) == pytest.approx(share, rel=1e-6, abs=1e-8)
    right = (said.argmax(1) == targets.argmax(1)).mean()
    assert value(linear_probe(), features) == pytest.approx(100 * right)


def test_numbers_of_two_columns():
    features = drawn(15, 4, 3)
    targets = torch.stack([features.values[:, 0] * 2 + features.source[:, 1] + 30, features.source[:, 2]], 1)
    numbers = changed(features, targets=targets)
    share, _ = reference(features, ((targets - targets.mean(0)) / targets.std(0, correction=0)).numpy())
    assert value(linear_fit(), numbers) == pytest.approx(share, rel=1e-6)
    with pytest.raises(BadInput, match=r"linear_probe needs one whole number.*choose logme or linear_fit"):
        value(linear_probe(), numbers)


def test_what_is_constant_foretells_nothing_and_what_says_it_all_everything():
    features = drawn(30, 4, 3)
    assert value(linear_fit(), changed(features, torch.ones(30, 4).double())) == pytest.approx(0, abs=1e-12)
    said = torch.nn.functional.one_hot(features.targets).double()
    assert value(linear_fit(), changed(features, said)) == pytest.approx(1, abs=1e-4)
    assert value(linear_probe(), changed(features, said)) == 100


def test_offset_scale_and_rotation_do_not_matter():
    features = drawn(25, 5, 3)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    moved = changed(features, features.values @ turn * 1e-3 + 2)
    for proxy in (linear_fit(), linear_probe()):
        assert value(proxy, moved) == pytest.approx(value(proxy, features), rel=1e-6)


def test_as_few_samples_as_features_are_not_flattered():
    """In the sample itself any labelling can be read off; of a sample left out nothing can."""
    features = drawn(40, 200, 4, apart=0.0)
    assert value(linear_fit(), features) < 0.1 and value(linear_probe(), features) < 60
