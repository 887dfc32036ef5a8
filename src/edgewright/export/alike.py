r"""How far two files' answers are alike, by what an output is; nothing is known of what it means.

    row of K >= 2 floats     same_class = share of the samples with the same largest one
    whole numbers, truths    same_values = share of equal values (class numbers of an ArgMax or TopK inside)
    anything else            variance_explained = 100 (1 - sum (y' - y)^2 / sum (y - mean y)^2)

y, y': of source and candidate; the mean is over the samples, of each value, so that a constant answer explains nothing.
Differences that rounding brings to float32 do not count. What does not vary over the samples is held to its own size,
100 (1 - |y' - y| / |y|). A row whose largest is the same one in all samples tells no classes apart, and goes by its
variance.

Checked against: the formulas by hand, and outputs that are wrong in one place each (tests/export/test_alike.py).
"""

from collections.abc import Iterator

import numpy as np

from edgewright.core.metric import Score
from edgewright.export.running import Answers

ROUNDING, TINY = 1e-5, 1e-7  # of the largest value, and in all: what rounding may bring to float32 in many layers
SMALL_PART, UNLIKELY = 1e-4, 0.05  # parts that vary by less (of the largest value; of probabilities) are not looked at
MOST_PARTS = 1024
HALF = 0.5  # of two classes, the more likely one
AT_ONCE = 2**22  # numbers that are held in double precision


def same(y: np.ndarray, z: np.ndarray) -> Score:
    """How far arrays (N, ...) of one shape say the same, percent, by the first rule that fits."""
    if y.dtype.kind != "f":
        return Score(name="same_values", value=100 * _share(y == z))
    if is_row(y) and np.ptp(y.reshape(len(y), -1).argmax(1)) > 0:
        return Score(name="same_class", value=100 * same_class(y, z))
    return Score(name="variance_explained", value=100 - variance_lost(y, z))


def same_class(y: np.ndarray, z: np.ndarray) -> float:
    """Share of the rows with the same largest one."""
    return _share(y.reshape(len(y), -1).argmax(1) == z.reshape(len(z), -1).argmax(1))


def is_row(y: np.ndarray) -> bool:
    """Whether each sample has one row of at least two floats, however many axes of one there are around it."""
    return y.dtype.kind == "f" and sum(size > 1 for size in y.shape[1:]) == 1


def is_number(y: np.ndarray) -> bool:
    """Whether each sample has one value."""
    return all(size == 1 for size in y.shape[1:])


def is_likely(y: np.ndarray) -> bool:
    """Whether all values lie between 0 and 1, as probabilities do."""
    return bool(y.dtype.kind == "f" and y.size and y.min() >= 0 and y.max() <= 1)


def same_side(y: np.ndarray, z: np.ndarray) -> Score:
    """Percent of the probabilities that stay on their side of a half; those that move little are left out of it."""
    alike = ((y > HALF) == (z > HALF)) | (np.abs(y - z) <= UNLIKELY)
    return Score(name="same_side", value=100 * _share(alike))


def variance_lost(y: np.ndarray, z: np.ndarray) -> float:
    """Percent of the variance that is not explained, at most all of it."""
    return min(100.0, _Squares(y, z).lost())


def worst_part_lost(y: np.ndarray, z: np.ndarray) -> tuple[str, float]:
    """The same of the column, channel or position that loses most, with its place in words; ("", 0) without any.

    So a joint scale is found that keeps boxes of hundreds of pixels and rounds the scores beside them away.
    """
    where, lost = max(_Squares(y, z).parts(), key=lambda part: part[1], default=("", 0.0))
    return where, min(100.0, lost)


def uncommon_lost(y: np.ndarray, z: np.ndarray) -> float:
    """Percent of the values other than the commonest that are not the same: of a mask, what is not background."""
    values, counts = np.unique(y, return_counts=True)
    if len(values) < 2:
        return 0.0
    rare = y != values[counts.argmax()]
    return 100 * (1 - _share(y[rare] == z[rare]))


def aligned(expected: Answers, found: Answers) -> tuple[np.ndarray, np.ndarray, int]:
    """Both as arrays of one shape, and how many samples of `found` have another shape than they should.

    (N, ...) where no shape varies; else all values one after the other (M,), a sample of another shape being wholly
    wrong: the mean of all, or other whole numbers.
    """
    if isinstance(expected, np.ndarray) and isinstance(found, np.ndarray) and expected.shape == found.shape:
        return expected, found, 0
    pairs = [(y.ravel(), z.ravel() if _form(y) == _form(z) else None) for y, z in zip(expected, found, strict=True)]
    flat = np.concatenate([y for y, _ in pairs])
    wrong = np.full_like(flat, flat.mean() if flat.size else 0) if flat.dtype.kind == "f" else ~flat
    start, told = 0, []
    for y, z in pairs:
        told.append(wrong[start : start + y.size] if z is None else z)
        start += y.size
    return flat, np.concatenate(told), sum(z is None for _, z in pairs)


def _form(values: np.ndarray) -> tuple[int, ...]:
    return tuple(size for size in values.shape if size != 1)


def _share(truths: np.ndarray) -> float:
    return float(np.mean(truths)) if np.size(truths) else 1.0


class _Squares:
    """Sums over the samples, for each value of an output."""

    def __init__(self, y: np.ndarray, z: np.ndarray) -> None:
        self.form = y.shape[1:]
        y, z = (values.reshape(len(values), -1) for values in (y, z))
        self.largest = float(np.abs(y).max(initial=0.0))
        self.likely = is_likely(y)
        self.noise = max(ROUNDING * self.largest, TINY)
        self.gap, self.spread, self.reach, self.own = (np.zeros(y.shape[1]) for _ in range(4))
        step = max(1, AT_ONCE // max(1, len(y)))
        for start in range(0, y.shape[1], step):
            self._add(slice(start, start + step), y, z)

    def _add(self, part: slice, y: np.ndarray, z: np.ndarray) -> None:
        mine, other = y[:, part].astype(np.float64), z[:, part].astype(np.float64)
        away = mine - mine.mean(0)
        gap = np.square(other - mine)
        self.gap[part] = np.where(gap > self.noise**2, gap, 0).sum(0)
        self.spread[part] = np.square(away).sum(0)
        self.reach[part] = np.abs(away).max(0)
        self.own[part] = np.square(mine).sum(0)

    def lost(self) -> float:
        gap, spread = self.gap.sum(), self.spread.sum()
        if self.reach.max(initial=0.0) > self.noise:
            return 100 * float(gap / spread)
        return 100 * float(np.sqrt(gap / self.own.sum())) if self.own.any() else 100.0 * (gap > 0)

    def parts(self) -> Iterator[tuple[str, float]]:
        least = max(UNLIKELY if self.likely else SMALL_PART * self.largest, self.noise)
        for axis in _part_axes(self.form):
            others = tuple(index for index in range(len(self.form)) if index != axis)
            gap, spread = (values.reshape(self.form).sum(others) for values in (self.gap, self.spread))
            seen = self.reach.reshape(self.form).max(others) > least
            lost = np.where(seen, 100 * gap / np.where(seen, spread, 1), 0)
            worst = int(lost.argmax())
            yield f"number {worst} of its {self.form[axis]} {_word(self.form)}", float(lost[worst])


def _part_axes(form: tuple[int, ...]) -> list[int]:
    """The axes whose entries may be of different kinds: columns of a row, both of a table, the channels of a map."""
    wide = [axis for axis, size in enumerate(form) if size > 1]
    if len(wide) == 3:
        last = form[wide[0]] == form[wide[1]] != form[wide[2]]  # channels last
        wide = [wide[2 if last else 0]]
    return [axis for axis in wide if form[axis] <= MOST_PARTS] if len(wide) < 3 else []


def _word(form: tuple[int, ...]) -> str:
    return "values" if sum(size > 1 for size in form) == 1 else "parts"
