"""What a candidate is held against: every output, known figures, refusals that name the output and say why."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from edgewright.core.errors import BadInput, EdgewrightError
from edgewright.core.metric import Metric, Score
from edgewright.export.gates import Gate, compare
from edgewright.export.meaning import Known, Unknown
from edgewright.export.running import gathered
from edgewright.task.kinds.resolve import make_kind

SOURCE = np.array([[3.0, 1, 0], [0, 2, 1], [1, 0, 4], [5, 0, 1]], dtype=np.float32)
LABELS = np.array([0, 1, 2, 1])
RANDOM = np.random.default_rng(2)


def gate(found, labels=None, source=SOURCE) -> Gate:
    return compare(["y"], [source], [found], Unknown(labels))


def moved() -> np.ndarray:
    """One of many samples gets another class, and the wrong one; nothing else changes."""
    found = np.tile(SOURCE, (10, 1))
    found[1] = [0, 1.9, 2]
    return found


def test_known_figures() -> None:
    found = SOURCE.copy()
    found[1] = [0, 1, 2]  # another class, and the wrong one
    told = gate(found, LABELS)
    (output,) = told.outputs
    assert (output.name, output.max_abs_difference, output.largest) == ("y", 1, 5)
    assert output.max_relative_difference == pytest.approx(1 / 5)
    assert (output.same.name, output.same.value, told.top1_agreement) == ("same_class", 75, 0.75)
    assert (told.source_accuracy, told.accuracy) == (75, 50)
    assert output.cosine == pytest.approx(
        float((SOURCE * found).sum() / np.linalg.norm(SOURCE) / np.linalg.norm(found))
    )
    assert told.samples == 4 and told.drop >= 25


def test_the_same_is_the_same() -> None:
    told = gate(SOURCE.copy(), LABELS)
    assert (told.drop, told.top1_agreement, told.outputs[0].max_abs_difference) == (0, 1, 0)
    assert told.outputs[0].cosine == pytest.approx(1)
    assert told.refusal("fp32", 0) is None


def test_more_accurate_than_the_source_is_no_loss() -> None:
    source = np.tile(SOURCE, (10, 1))
    source[3] = [2, 1.9, 0]
    found = source.copy()
    found[3, 1] = 2.1
    told = gate(found, np.tile(LABELS, 10), source)
    assert told.accuracy == 77.5 and told.drop == 0 and told.verdicts[0].lost == -2.5


def test_without_labels_the_agreement_counts() -> None:
    told = gate(moved(), source=np.tile(SOURCE, (10, 1)))
    assert told.accuracy is None and told.drop == pytest.approx(2.5)
    assert told.refusal("int8", 1) == "output 'y' loses 2.50 % of the samples' classes, 1 allowed"
    assert told.refusal("int8", 3) is None


def test_a_drop_is_refused_with_its_figure() -> None:
    told = gate(moved(), np.tile(LABELS, 10), np.tile(SOURCE, (10, 1)))
    assert told.refusal("int8", 1) == "output 'y' loses 2.50 points of accuracy, 1 allowed"
    assert told.refusal("int8", 2.5) is None


def test_what_is_no_number_is_refused() -> None:
    found = SOURCE.copy()
    found[2, 0] = np.nan
    told = gate(found, LABELS)
    assert told.drop == math.inf and not told.finite
    assert told.refusal("int8", 100) == "output 'y' has values that are not numbers"


def test_fp32_must_compute_the_same_even_where_the_classes_agree() -> None:
    told = gate(SOURCE * np.float32(1.01), LABELS)
    assert told.refusal("fp32", 1) == (
        "computes something else: output 'y' differs by up to 0.05, 0.01 of its largest value"
    )
    assert told.refusal("int8", 1) is None


@pytest.mark.parametrize("size", [1e-5, 1.0, 1e6])
def test_fp32_is_held_to_the_size_of_its_own_values(size: float) -> None:
    small = SOURCE * np.float32(size)
    assert gate(0 * small, source=small).refusal("fp32", 100) is not None
    assert gate(small * np.float32(1.0005), source=small).refusal("fp32", 1) is None


def test_fp32_that_answers_a_constant_near_the_truth_is_refused() -> None:
    kelvin = (300 + 0.2 * RANDOM.standard_normal((40, 1))).astype(np.float32)
    told = gate(np.full_like(kelvin, 300), source=kelvin)
    assert told.outputs[0].max_relative_difference < 3e-3
    assert "computes something else" in (told.refusal("fp32", 100) or "")


@pytest.mark.parametrize("form", [(40,), (40, 1), (40, 1, 1, 1)])
def test_one_number_cannot_pass_as_the_same_class(form: tuple[int, ...]) -> None:
    y = RANDOM.uniform(0, 1, form).astype(np.float32)
    for found, lost in ((np.full_like(y, y.mean()), 100), (-7 * y, 100)):
        told = gate(found, source=y)
        assert told.top1_agreement is None and told.drop >= lost - 1e-3
        assert "% of its variance, 1 allowed" in (told.refusal("int8", 1) or "")
    assert gate(y + np.float32(0.002), source=y).refusal("int8", 1) is None


@pytest.mark.parametrize(("low", "high", "middle"), [(0, 1, 0.5), (-3, 3, 0)])
def test_one_number_with_labels(low: float, high: float, middle: float) -> None:
    y = RANDOM.uniform(low, high, (40, 1)).astype(np.float32)
    labels = (y[:, 0] > middle).astype(int)
    found = y.copy()
    found[np.argmin(np.abs(y - middle))] = 2 * middle - found[np.argmin(np.abs(y - middle))]
    told = gate(found, labels, y)
    assert (told.source_accuracy, told.accuracy) == (100, 97.5)
    constant = gate(np.full_like(y, y.max()), labels, y)
    assert constant.accuracy is not None and constant.accuracy < 80 and constant.drop > 20


def test_a_second_output_is_looked_at_and_named() -> None:
    boxes = RANDOM.uniform(0, 100, (4, 7, 4)).astype(np.float32)
    told = compare(["scores", "boxes"], [SOURCE, boxes], [SOURCE, 0 * boxes])
    assert [output.same.value for output in told.outputs] == [100, pytest.approx(told.outputs[1].same.value)]
    assert (told.refusal("int8", 99) or "").startswith("output 'boxes' loses ")
    assert "output 'boxes' differs" in (told.refusal("fp32", 100) or "")
    with pytest.raises(EdgewrightError, match="gives 1 outputs where the source gives 2"):
        compare(["scores", "boxes"], [SOURCE, boxes], [SOURCE])


def test_a_row_is_broken_though_its_largest_stays() -> None:
    boxes = np.sort(RANDOM.uniform(0, 100, (60, 4)).astype(np.float32), 1)  # corners: the last is always the largest
    found = boxes.copy()
    found[:, :2] = 0
    assert "% of its variance" in (gate(found, source=boxes).refusal("int8", 1) or "")
    landmarks = RANDOM.standard_normal((60, 100)).astype(np.float32)
    found = landmarks.copy()
    found[:, 17] = 0  # hardly ever the largest
    assert "of the variance of number 17 of its 100 values" in (gate(found, source=landmarks).refusal("int8", 5) or "")


def test_labels_belong_to_the_output_with_as_many_columns() -> None:
    other, labels = RANDOM.standard_normal((4, 6)).astype(np.float32), LABELS
    told = compare(["embedding", "y"], [other, SOURCE], [other, SOURCE], Unknown(labels))
    assert told.decides is not None and told.decides.output == "y" and told.source_accuracy == 75
    told = compare(["embedding", "class"], [other, labels[:, None]], [other, labels[:, None]], Unknown(labels, 9))
    assert told.decides is not None and told.decides.output == "class" and told.source_accuracy == 100
    with pytest.raises(BadInput, match=r"y has the label 8, and no output .* so many columns \('y' 3\)"):
        compare(["y"], [SOURCE], [SOURCE], Unknown(np.array([0, 1, 2, 8])))


def test_whole_numbers_and_masks() -> None:
    classes = np.array([[3], [1], [1], [7]])
    assert gate(classes.copy(), source=classes).refusal("fp32", 0) is None
    assert "loses 25.00 % of its values" in (
        gate(np.array([[3], [1], [1], [1]]), source=classes).refusal("int8", 1) or ""
    )
    mask = np.zeros((4, 20, 20), np.int64)
    mask[:, 3, 3:5] = 5
    assert (mask == 0).mean() > 0.99
    assert "of its uncommon values" in (gate(np.zeros_like(mask), source=mask).refusal("int8", 1) or "")


def test_another_shape_is_refused() -> None:
    assert gate(SOURCE[:, :2]).refusal("int8", 100) == "output 'y' has another shape than the source's"
    assert gate(SOURCE[:, :2]).drop == math.inf
    some = gathered([[np.ones((2, 4), np.float32) * count] for count in range(4)])
    other = gathered([[np.ones((2 if count else 3, 4), np.float32) * count] for count in range(4)])
    told = compare(["y"], some, other)
    assert told.refusal("fp32", 100) == "computes something else: output 'y' has another shape for 1 samples"
    assert told.drop > 40


def test_half_precision_rounds_more() -> None:
    y = RANDOM.standard_normal((30, 5)).astype(np.float16)
    assert gate((y * np.float16(1.004)).astype(np.float16), source=y).refusal("fp32", 1) is None
    assert gate((y * np.float16(1.02)).astype(np.float16), source=y).refusal("fp32", 1) is not None


class Ranks(Metric):
    """A kind of task of the tests and its metric: whether two answers are on one side of zero."""

    name, unit, higher_is_better = "mean_error", "years", False

    def same(self, expected: torch.Tensor, found: torch.Tensor) -> Score:
        return Score(name="same_side", value=100 * float(((expected > 0) == (found > 0)).double().mean()))

    def guess(self, targets) -> dict[str, float]:
        return {self.name: 3.2}

    def start(self):
        return []

    def add(self, state, outputs, targets):
        return [*state, (outputs[:, 0] - targets).abs()]

    def value(self, state) -> float:
        return float(torch.cat(state).mean())


def test_a_task_decides_about_its_own_outputs() -> None:
    y = np.array([[1.0], [-2], [3], [-4], [5]], np.float32)
    task: Any = Ranks()
    told = compare(["age"], [y], [y + np.float32(0.3)], Known(task))
    assert told.drop == 0 and told.decides is None
    assert told.same == 100  # of its answers; of the numbers' variance it would be less
    nearly = np.array([[1.0], [-2], [3], [-4], [4.6]], np.float32)
    told = compare(["age"], [y], [nearly], Known(task, task, torch.from_numpy(y[:, 0].copy())))
    assert told.decides is not None and told.decides.chance == 3.2
    assert told.drop == pytest.approx(0.08, rel=1e-4) and told.accuracy == pytest.approx(0.08, rel=1e-4)
    assert told.refusal("int8", 0.05) == "loses 0.08 years of mean error, 0.05 allowed"
    flipped = compare(["age"], [y], [y * np.float32([[1], [1], [1], [1], [-1]])], Known(task))
    assert flipped.refusal("int8", 1) == "loses 20.00 % of the answers, 1 allowed"


def test_one_probability_keeps_its_side_of_a_half() -> None:
    """Of a steep sigmoid nearly all variance is kept by a file that calls a sample in twenty another class."""
    y = np.array([[0.0], [1.0]] * 9 + [[0.51], [0.49]], np.float32)
    z = y.copy()
    z[18] = 0.3
    told = compare(["y"], [y], [z])
    assert told.outputs[0].same.value > 99
    assert told.refusal("int8", 1) == "output 'y' loses 5.00 % of the samples, by the side of a half, 1 allowed"
    assert compare(["y"], [3 * y], [3 * z]).refusal("int8", 1) is None  # no probabilities
    z[18] = 0.48  # a number that hardly moved
    assert compare(["y"], [y], [z]).refusal("int8", 1) is None


def test_a_task_judges_outputs_in_its_own_shapes() -> None:
    """Other axes of one are no other answer; (N, 10, 1) beside (N, 10) would be compared each with each."""
    kind = make_kind("classification", ("a", "b", "c"), {})
    same = Known(kind)
    told = compare(["logits"], [SOURCE], [SOURCE[:, ::-1, None]], same)
    assert told.same == 25 and told.refusal("int8", 50) is not None
    assert compare(["logits"], [SOURCE], [SOURCE[..., None]], same).refusal("fp32", 0) is None
    told = compare(["logits"], [SOURCE], [SOURCE], Known(kind, kind.metric("macro_f1"), torch.from_numpy(LABELS)))
    assert told.decides is not None and told.decides.source.name == "macro_f1" and told.drop == 0
    some = [np.ones((1, 3), np.float32)] * 3 + [np.ones((1, 4), np.float32)]
    with pytest.raises(EdgewrightError, match="another shape"):
        compare(["logits"], [SOURCE], [gathered([[x] for x in some])[0]], same)


def test_an_output_that_the_task_does_not_judge_must_be_kept_too() -> None:
    class First(Ranks):
        def same(self, expected, found) -> Score:
            return super().same(expected["age"], found["age"])

    kind: Any = First()
    y, other = RANDOM.standard_normal((9, 1)).astype(np.float32), RANDOM.standard_normal((9, 4)).astype(np.float32)
    told = compare(["age", "box"], [y, other], [y, 0 * other], Known(kind))
    assert "output 'box' loses" in (told.refusal("int8", 5) or "")
