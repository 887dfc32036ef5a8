"""Streamed counts: whatever the order and the batches, the same as NumPy's over all values at once."""

import numpy as np

from edgewright.export.int8.histogram import BINS, MOST_VALUES, Histogram


def of(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


def test_counts_are_numpys() -> None:
    values = np.random.default_rng(0).normal(0.3, 2, (7, 11, 13)).astype(np.float32)
    histogram = of(values)
    expected, _ = np.histogram(values.astype(np.float64), bins=histogram.edges)
    assert (histogram.counts == expected).all()
    assert (histogram.lowest, histogram.highest) == (values.min(), values.max())
    assert histogram.width == 2.0 ** np.ceil(np.log2(np.abs(values).max()))


def test_order_and_batches_do_not_matter() -> None:
    generator = np.random.default_rng(1)
    parts = [generator.normal(0, scale, 500).astype(np.float32) for scale in (0.01, 30.0, 1.0)]
    one, other = of(*parts), of(np.concatenate(parts[::-1]))
    assert (one.counts == other.counts).all()
    assert (one.width, one.lowest, one.highest) == (other.width, other.lowest, other.highest)
    assert one.total == 1500


def test_the_ends_of_the_range_are_counted() -> None:
    histogram = of(np.array([-1.0, 1.0, 0.0], dtype=np.float32))
    assert histogram.counts[0] == 1 and histogram.counts[-1] == 1 and histogram.counts[BINS] == 1


def test_what_is_no_number_is_counted_apart() -> None:
    histogram = of(np.array([1.0, np.nan, np.inf, -np.inf], dtype=np.float32))
    assert histogram.strange == 3
    assert histogram.total == 1


def test_big_tensors_are_thinned_but_their_ends_are_exact() -> None:
    values = np.zeros(5 * MOST_VALUES, dtype=np.float32)
    values[1] = 100.0
    values[2:] = np.random.default_rng(2).uniform(0, 1, values.size - 2)
    histogram = of(values)
    assert histogram.highest == 100
    assert histogram.total < 2 * MOST_VALUES


def test_nothing_and_zeros() -> None:
    assert of(np.zeros((0, 3), dtype=np.float32)).total == 0
    zeros = of(np.zeros(5, dtype=np.float32), np.array([3.0], dtype=np.float32))
    assert zeros.total == 6 and zeros.counts[BINS] == 5
