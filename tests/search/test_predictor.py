"""The accuracy predictor: its closed form, its errors, and what labels add."""

import numpy as np
import pytest

from edgewright.core.errors import BadInput
from edgewright.core.ranking import spearman
from edgewright.search import predictor
from edgewright.search.predictor import describe, normal_scores, predict
from edgewright.space.spaces.nasbench_macro import NASBenchMacro


@pytest.fixture
def pool() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, a prior that knows half, and accuracies."""
    draw = np.random.default_rng(1)
    features = draw.normal(size=(300, 4))
    truth = 90 - np.exp(-features[:, 0] - np.abs(features[:, 1]))
    return features, features[:, 0] + draw.normal(size=300), truth


def test_the_process_is_its_closed_form(pool, monkeypatch):
    features, prior, truth = pool
    for name, value in (("LENGTHS", (2.0,)), ("NOISES", (0.1,)), ("TRUST", (10.0,))):
        monkeypatch.setattr(predictor, name, value)
    rows, lead = list(range(7, 40, 3)), normal_scores(prior)
    y = normal_scores(truth[rows])
    found = predictor._process(features, lead, np.array(rows), y)

    def kernel(i: int, j: int) -> float:
        apart = np.sqrt(((features[i] - features[j]) ** 2).sum() / 4)
        return np.exp(-apart / 2.0) + 10.0 * (1 + lead[i] * lead[j])

    gram = np.array([[kernel(i, j) + 0.1 * (i == j) for j in rows] for i in rows])
    expected = [np.array([kernel(i, j) for j in rows]) @ np.linalg.solve(gram, y) for i in range(len(truth))]
    assert found == pytest.approx(expected, abs=1e-6)


def test_labels_add_to_the_prior_and_the_prior_to_the_labels(pool):
    features, prior, truth = pool
    rows = np.random.default_rng(0).choice(300, 30, replace=False)
    rest = np.setdiff1d(np.arange(300), rows)

    def quality(scores: np.ndarray) -> float:
        return spearman(scores[rest], truth[rest]) or 0.0

    led = quality(predict(features, prior, rows, truth[rows]))
    assert led > quality(prior) + 0.1
    noise = np.random.default_rng(2).normal(size=(300, 6))
    assert quality(predict(noise, prior, rows, truth[rows])) > quality(predict(noise, None, rows, truth[rows])) + 0.2


def test_only_the_order_of_accuracies_counts_and_the_seed_decides(pool):
    features, prior, truth = pool
    rows = np.arange(0, 300, 11)
    scores = predict(features, prior, rows, truth[rows])
    assert predict(features, prior, rows, np.exp(truth[rows] - 90)) == pytest.approx(scores)
    assert (predict(features, prior, rows, truth[rows], seed=1) != scores).any()


def test_bad_labels_are_one_sentence(pool):
    features, prior, _ = pool
    cases = (
        ([1, 2, 3], [1.0, 2, 3], "at least five"),
        ([1, 2, 3, 4, 4], [1.0, 2, 3, 4, 5], "different rows"),
        ([1, 2, 3, 4, 300], [1.0, 2, 3, 4, 5], "different rows"),
        ([1, 2, 3, 4, 5], [1.0, 2, 3, 4, np.nan], "network 5 is not a finite"),
        ([1, 2, 3, 4, 5], [7.0] * 5, "nothing to learn"),
        ([1, 2, 3, 4, 5], [7.0] * 4, "one for each"),
    )
    for rows, accuracies, message in cases:
        with pytest.raises(BadInput, match=message):
            predict(features, prior, rows, accuracies)


def test_describe_is_standardised_and_finite():
    space = NASBenchMacro.for_images(3, 10, 32)
    features = describe(space, [space.at(row) for row in range(0, len(space), 97)])
    assert np.isfinite(features).all()
    assert features.mean(axis=0) == pytest.approx(np.zeros(features.shape[1]), abs=1e-9)
    deviations = set(np.round(features.std(axis=0), 6))
    assert deviations == {1.0, predictor.CHOICE_WEIGHT}
