"""LogME against the density that it is the maximum of, and the official code's number."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from edgewright.proxy.features import Features
from edgewright.proxy.scores.logme import logme
from made_features import changed, drawn, example, size, value


def brute(features: Features, target: np.ndarray) -> float:
    """max over alpha and beta of log N(y; 0, I / beta + F F^T / alpha) / n."""
    f, n = features.values.numpy(), len(features)

    def missed(logs: np.ndarray) -> float:
        alpha, beta = np.exp(np.clip(logs, -50, 50))
        spread = np.eye(n) / beta + f @ f.T / alpha
        return -float(stats.multivariate_normal.logpdf(target, np.zeros(n), spread)) / n

    starts = [(a, b) for a in (-6.0, 0.0, 6.0) for b in (-2.0, 1.0, 4.0)]
    options = {"xatol": 1e-8, "fatol": 1e-12, "maxiter": 4000}
    return -min(optimize.minimize(missed, start, method="Nelder-Mead", options=options).fun for start in starts)


@pytest.mark.parametrize("features", [example(), drawn(17, 3, 3), drawn(11, 19, 3), drawn(13, 1, 2)], ids=size)
def test_equals_the_evidence_maximised_by_brute_force(features):
    classes = features.targets.unique()
    each = [brute(features, (features.targets == label).double().numpy()) for label in classes]
    assert value(logme(), features) == pytest.approx(np.mean(each), rel=1e-5)


def test_numbers_of_two_columns_by_brute_force():
    features = drawn(15, 4, 3)
    targets = torch.stack([features.values[:, 0] * 2 + features.source[:, 1] + 30, features.source[:, 2]], 1)
    scaled = (targets - targets.mean(0)) / targets.std(0, correction=0)
    each = [brute(features, column.numpy()) for column in scaled.T]
    assert value(logme(), changed(features, targets=targets)) == pytest.approx(np.mean(each), rel=1e-5)


def test_equals_the_official_code():
    # thuml/LogME 56551ca9, LogME.py, LogME().fit on these features; its iteration stops at a change of 1e-3.
    assert value(logme(), example()) == pytest.approx(-0.4563148086, rel=1e-5)


def test_the_scale_and_rotations_of_features_do_not_matter():
    features = drawn(40, 6, 4)
    plain = value(logme(), features)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    for scale in (1e-3, 1e4):
        assert value(logme(), changed(features, features.values @ turn * scale)) == pytest.approx(plain, rel=1e-6)


def test_an_absent_class_and_its_number_do_not_matter():
    features = drawn(40, 6, 3)
    named = torch.tensor([2, 9, 5])[features.targets]
    assert value(logme(), changed(features, targets=named)) == pytest.approx(value(logme(), features), rel=1e-9)


def test_features_that_tell_more_score_higher():
    scores = [value(logme(), drawn(60, 5, 3, apart=apart)) for apart in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert scores == sorted(scores)


def test_what_is_told_exactly_or_not_at_all_is_a_number():
    features = drawn(30, 4, 2)
    exact = changed(features, torch.nn.functional.one_hot(features.targets).double())
    constant = changed(features, torch.zeros(30, 4, dtype=torch.float64))
    assert math.isfinite(value(logme(), exact)) and value(logme(), exact) > 5
    assert math.isfinite(value(logme(), constant))
    assert math.isnan(value(logme(), changed(features, targets=torch.full((30, 1), 3.0).double())))
