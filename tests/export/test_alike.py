"""How alike answers are, by what an output is: known figures, and outputs that are wrong in one place each."""

import numpy as np
import pytest

from edgewright.export.alike import (
    aligned,
    is_number,
    is_row,
    same,
    uncommon_lost,
    variance_lost,
    worst_part_lost,
)

RANDOM = np.random.default_rng(5)
ROWS = np.array([[3.0, 1, 0], [0, 2, 1], [1, 0, 4], [5, 0, 1]], dtype=np.float32)


def told(y: np.ndarray, z: np.ndarray) -> tuple[str, float]:
    score = same(y, z)
    return score.name, pytest.approx(score.value)


@pytest.mark.parametrize("form", [(4, 3), (4, 3, 1, 1), (4, 1, 3), (4, 1, 1, 3, 1)])
def test_a_row_whatever_ones_stand_around_it(form: tuple[int, ...]) -> None:
    found = ROWS.copy()
    found[1] = [0, 1, 2]
    assert is_row(ROWS.reshape(form)) and not is_number(ROWS.reshape(form))
    assert told(ROWS.reshape(form), found.reshape(form)) == ("same_class", 75)


@pytest.mark.parametrize("form", [(7,), (7, 1), (7, 1, 1, 1)])
def test_one_number_a_sample(form: tuple[int, ...]) -> None:
    y = np.array([0, 1, 2, 3, 4, 5, 13], dtype=np.float32).reshape(form)
    assert is_number(y) and not is_row(y)
    assert told(y, np.full_like(y, y.mean())) == ("variance_explained", pytest.approx(0))  # a constant says nothing
    z = y + np.float32(0.5)
    assert told(y, z)[1] == pytest.approx(100 * (1 - 7 * 0.25 / np.square(y - y.mean()).sum()), rel=1e-4)
    assert variance_lost(y, -7 * y) == 100


def test_maps_are_never_one_class() -> None:
    y = RANDOM.standard_normal((6, 5, 9, 7)).astype(np.float32)
    constant = np.broadcast_to(y.mean(0), y.shape)
    assert told(y, constant) == ("variance_explained", pytest.approx(0, abs=1e-3))
    z = y.copy()
    z[:, :, 4, 3] = 0
    lost = 100 * np.square(y[:, :, 4, 3]).sum() / np.square(y - y.mean(0)).sum()
    assert variance_lost(y, z) == pytest.approx(lost, rel=1e-3) and lost > 1


def test_a_row_whose_largest_never_changes_goes_by_its_variance() -> None:
    boxes = np.stack([RANDOM.uniform(0, 10, 20), RANDOM.uniform(0, 10, 20), RANDOM.uniform(90, 99, 20)], 1)
    assert boxes.argmax(1).tolist() == [2] * 20
    assert told(boxes, np.broadcast_to(boxes.mean(0), boxes.shape)) == ("variance_explained", pytest.approx(0))


def test_whole_numbers() -> None:
    y = np.array([[3], [1], [1], [7]])
    assert told(y, np.array([[3], [1], [1], [1]])) == ("same_values", 75)
    assert told(y > 2, y > 5) == ("same_values", 75)
    mask = np.zeros((2, 10, 10), np.uint8)
    mask[:, 4, 4] = 1
    assert told(mask, np.zeros_like(mask)) == ("same_values", 99)
    assert uncommon_lost(mask, np.zeros_like(mask)) == 100  # nothing of what is not background
    assert uncommon_lost(mask, mask) == uncommon_lost(np.zeros_like(mask), mask) == 0


def test_an_output_that_is_constant_in_the_source() -> None:
    y = np.tile(np.array([[10.0, 20, 320]], np.float32), (5, 1))
    assert variance_lost(y, y.copy()) == 0
    assert variance_lost(y, 1.05 * y) == pytest.approx(5, rel=1e-2)
    assert variance_lost(y, 0 * y) == pytest.approx(100, rel=1e-3)
    assert variance_lost(0 * y, 0 * y) == 0 and variance_lost(0 * y, y) == 100
    assert variance_lost(y[:1], 1.05 * y[:1]) == pytest.approx(5, rel=1e-2)  # one sample varies over nothing


def test_what_rounding_brings_is_no_difference() -> None:
    y = (300 + 1e-4 * RANDOM.standard_normal((50, 1))).astype(np.float32)
    assert variance_lost(y, y + np.float32(3e-4)) == 0
    far = (300 + 0.2 * RANDOM.standard_normal((50, 1))).astype(np.float32)
    assert variance_lost(far, np.full_like(far, 300)) > 90  # within a thousandth of the largest value all the same


def test_boxes_hide_the_scores_beside_them() -> None:
    """What one scale for both does to detectors: scores below one beside pixels by the hundred round to nothing."""
    y = RANDOM.uniform(0, 640, (8, 6, 50)).astype(np.float32)
    y[:, 4:] = RANDOM.uniform(0, 1, (8, 2, 50))
    z = np.round(y / 2.5) * np.float32(2.5)
    assert variance_lost(y, z) < 0.1
    where, lost = worst_part_lost(y, z)
    assert where in ("number 4 of its 6 parts", "number 5 of its 6 parts") and lost > 90
    assert worst_part_lost(y.transpose(0, 2, 1), z.transpose(0, 2, 1))[1] == pytest.approx(lost)


def test_one_column_or_channel_that_is_lost_is_found() -> None:
    rows = RANDOM.standard_normal((40, 100)).astype(np.float32)
    found = rows.copy()
    found[:, 17] = 0
    assert variance_lost(rows, found) < 2
    assert worst_part_lost(rows, found) == ("number 17 of its 100 values", pytest.approx(100, rel=0.1))
    maps = RANDOM.standard_normal((4, 30, 5, 6)).astype(np.float32)
    found = maps.copy()
    found[:, 3] = 0
    assert worst_part_lost(maps, found)[0] == "number 3 of its 30 parts"
    last = maps.transpose(0, 2, 3, 1)[:, :, :5]
    assert worst_part_lost(last, found.transpose(0, 2, 3, 1)[:, :, :5])[0] == "number 3 of its 30 parts"


def test_probabilities_of_what_is_never_seen_are_left_alone() -> None:
    y = np.zeros((30, 4), np.float32)
    y[:, 0] = RANDOM.uniform(0, 1, 30)
    y[:, 1] = 1 - y[:, 0]
    y[:, 2] = RANDOM.uniform(0, 1e-3, 30)  # below the half step of 8 bits
    assert worst_part_lost(y, np.round(y * 255) / np.float32(255))[1] < 1


def test_shapes_that_vary() -> None:
    expected = [np.arange(count * 2.0).reshape(count, 2) for count in (3, 1, 4)]
    y, z, wrong = aligned(expected, [values.copy() for values in expected])
    assert (y == z).all() and y.shape == (16,) and wrong == 0
    found = [expected[0], expected[1], expected[2][:2]]
    y, z, wrong = aligned(expected, found)
    assert wrong == 1 and y.shape == z.shape and (z[8:] == y.mean()).all()
    whole = [np.array([1, 2]), np.array([3])]
    y, z, wrong = aligned(whole, [np.array([1, 2]), np.array([3, 3])])
    assert wrong == 1 and (y[:2] == z[:2]).all() and y[2] != z[2]
    # Of one detection each, the samples' arrays were joined along the batch: its ones do not count.
    assert aligned([np.ones((1, 4)), np.ones((2, 4))], [np.ones((4,)), np.ones((2, 4))])[2] == 0


def test_no_values_at_all() -> None:
    nothing = np.zeros((5, 0), np.float32)
    assert same(nothing, nothing).value == 100 and worst_part_lost(nothing, nothing) == ("", 0.0)
