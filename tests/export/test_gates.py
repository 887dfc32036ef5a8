"""What a candidate is held against: known figures, refusals that say why."""

import math

import numpy as np
import pytest

from edgewright.export.gates import compare

SOURCE = np.array([[3.0, 1, 0], [0, 2, 1], [1, 0, 4], [5, 0, 1]], dtype=np.float32)
LABELS = np.array([0, 1, 2, 1])


def test_known_figures() -> None:
    found = SOURCE.copy()
    found[1] = [0, 1, 2]  # another class, and the wrong one
    gate = compare(SOURCE, found, LABELS)
    assert gate.max_abs_difference == 1
    assert gate.top1_agreement == 0.75
    assert (gate.source_accuracy, gate.accuracy) == (75, 50)
    assert gate.drop == 25
    assert gate.cosine == pytest.approx(float((SOURCE * found).sum() / np.linalg.norm(SOURCE) ** 2))
    assert (gate.largest, gate.samples) == (5, 4)


def test_the_same_is_the_same() -> None:
    gate = compare(SOURCE, SOURCE.copy(), LABELS)
    assert (gate.drop, gate.top1_agreement, gate.max_abs_difference) == (0, 1, 0)
    assert gate.cosine == pytest.approx(1)
    assert gate.refusal("fp32", 0) is None


def test_more_accurate_than_the_source_is_no_loss() -> None:
    found = SOURCE.copy()
    found[3] = [0, 5, 1]
    assert compare(SOURCE, found, LABELS).drop == -25


def test_without_labels_the_agreement_counts() -> None:
    found = SOURCE.copy()
    found[1] = [0, 1, 2]
    gate = compare(SOURCE, found)
    assert gate.accuracy is None
    assert gate.drop == 25
    assert "25.00 % of the samples get another class" in (gate.refusal("int8", 1) or "")


def test_what_is_no_number_is_refused() -> None:
    found = SOURCE.copy()
    found[2, 0] = np.nan
    gate = compare(SOURCE, found, LABELS)
    assert gate.drop == math.inf
    assert gate.refusal("int8", 100) == "gives outputs that are not numbers"


def test_fp32_must_compute_the_same_even_where_the_classes_agree() -> None:
    gate = compare(SOURCE, SOURCE * np.float32(1.01), LABELS)
    assert "computes something else" in (gate.refusal("fp32", 1) or "")
    assert gate.refusal("int8", 1) is None


def test_a_drop_is_refused_with_its_figure() -> None:
    found = SOURCE.copy()
    found[1] = [0, 1, 2]
    assert compare(SOURCE, found, LABELS).refusal("int8", 1) == "loses 25.00 points of accuracy, 1 allowed"
    assert compare(SOURCE, found, LABELS).refusal("int8", 25) is None


def test_another_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match="shape"):
        compare(SOURCE, SOURCE[:, :2])
