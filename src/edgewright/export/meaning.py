"""What outputs mean, as far as that is known, and so what a file may lose.

Of an ONNX file from anywhere nothing is known: each output is judged by what it is (`alike`), one of them by labels
where there are some (`Unknown`). Where a task is known, its kind and its metric decide (`Known`).

Where something else than its variance decides, an output must also keep nine tenths of that (of whole numbers: half of
the uncommon ones), and each of its parts half: a file may answer every sample as its source does in one place, and be
broken in another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgewright.core.errors import BadInput, EdgewrightError
from edgewright.core.metric import Metric, Score
from edgewright.export.alike import (
    HALF,
    aligned,
    is_likely,
    is_number,
    is_row,
    same,
    same_side,
    uncommon_lost,
    variance_lost,
    worst_part_lost,
)
from edgewright.export.running import Answers, tree_of
from edgewright.task.kind import Kind

MAY_LOSE, MAY_LOSE_OF_PART = 10.0, 50.0  # percent, where something else decides
LOST_OF = {
    "same_class": "% of the samples' classes",
    "same_values": "% of its values",
    "variance_explained": "% of its variance",
}
WHOLE = Score(name="all", value=100.0)


@dataclass(frozen=True)
class Verdict:
    """One thing that a file may lose.

    output: whose; "" of all of them.   source, found: how good both files are at it.   what: is lost, in words: "points
    of accuracy".   spare: how much of it may be lost whatever was asked.   decides: whether targets say so.   chance:
    what a guesser gets, where that is known.
    """

    output: str
    source: Score
    found: Score
    what: str
    spare: float = 0.0
    decides: bool = False
    chance: float | None = None

    @property
    def lost(self) -> float:
        """How much, where it counts; below 0 where the file is better."""
        lost = self.found.lost_from(self.source)
        return lost if lost > self.spare else min(lost, 0.0)

    def refusal(self, most: float) -> str | None:
        """Why a file must not be handed out that may lose `most`, or None."""
        if self.lost <= most:
            return None
        whose = f"output '{self.output}' " if self.output else ""
        return f"{whose}loses {self.lost:.2f} {self.what}, {max(most, self.spare):g} allowed"


class Meaning(Protocol):
    """What decides about outputs that are numbers, `found` beside `expected`, one entry for each output."""

    def same(self, names: Sequence[str], expected: Sequence[Answers], found: Sequence[Answers]) -> Score | None:
        """How many of the answers are the same, percent, where it is known what they are."""
        ...

    def verdicts(
        self, names: Sequence[str], expected: Sequence[Answers], found: Sequence[Answers]
    ) -> Iterator[Verdict]: ...


@dataclass(frozen=True)
class Known:
    """A task's outputs. metric, targets: what decides, where there are any; else how many answers are the same."""

    kind: Kind
    metric: Metric | None = None
    targets: Any = None

    def same(self, names: Sequence[str], expected: Sequence[Answers], found: Sequence[Answers]) -> Score:
        return self.kind.same(tree_of(names, expected), tree_of(names, _formed(names, expected, found)))

    def verdicts(
        self, names: Sequence[str], expected: Sequence[Answers], found: Sequence[Answers]
    ) -> Iterator[Verdict]:
        if self.metric is None:
            yield Verdict("", WHOLE, self.same(names, expected, found), "% of the answers")
        else:
            yield self._judged(self.metric, tree_of(names, expected), tree_of(names, _formed(names, expected, found)))
        for name, one, other in zip(names, expected, found, strict=True):
            yield from _kept(name, *aligned(one, other)[:2])

    def _judged(self, metric: Metric, expected: Any, found: Any) -> Verdict:
        source, score = (metric.score(metric.add(metric.start(), y, self.targets)) for y in (expected, found))
        what = f"{'points' if source.unit == '%' else source.unit} of {source.title}".strip()
        guess = self.kind.guess(self.targets).get(metric.name)
        return Verdict("", source, score, what, decides=True, chance=guess)


def _formed(names: Sequence[str], expected: Sequence[Answers], found: Sequence[Answers]) -> list[Answers]:
    """`found` in the shapes of `expected`, which may have other axes of one.   Errors: EdgewrightError for others."""
    return [_as(y, z, name) for name, y, z in zip(names, expected, found, strict=True)]


def _as(y: Answers, z: Answers, name: str) -> Answers:
    if isinstance(y, list) or isinstance(z, list) or y.size != z.size:
        raise EdgewrightError(f"output '{name}' has another shape than the task's for some samples")
    return z.reshape(y.shape)


@dataclass(frozen=True)
class Unknown:
    """Outputs of which nothing is known. labels: (N,) classes of the samples, where there are any.   count: how many
    classes there are, where that is known."""

    labels: Any = None
    count: int | None = None

    def same(self, names: Sequence[str], expected: Sequence[Answers], found: Sequence[Answers]) -> None:
        return None

    def verdicts(
        self, names: Sequence[str], expected: Sequence[Answers], found: Sequence[Answers]
    ) -> Iterator[Verdict]:
        owner = None if self.labels is None else self.owner(names, expected)
        for index, (name, one, other) in enumerate(zip(names, expected, found, strict=True)):
            y, z, _ = aligned(one, other)
            if index == owner:
                source, score = (_accuracy(_classes(values, y), np.asarray(self.labels)) for values in (y, z))
                chance = 100 / max(2, y.size // len(y))
                yield Verdict(name, source, score, "points of accuracy", decides=True, chance=chance)
            else:
                score = same(y, z)
                yield Verdict(name, WHOLE, score, LOST_OF[score.name])
                if is_number(y) and is_likely(y):
                    yield Verdict(name, WHOLE, same_side(y, z), "% of the samples, by the side of a half")
            yield from _kept(name, y, z)

    def owner(self, names: Sequence[str], expected: Sequence[Answers]) -> int:
        """The output that the labels belong to: with as many columns as there are classes; of two classes, with one
        number; with one whole number; with more columns.

        Errors: BadInput where there is none.
        """
        top = int(np.asarray(self.labels).max(initial=0))
        count, two = self.count or top + 1, top < 2
        even = [y if isinstance(y, np.ndarray) else y[0][None, None] for y in expected]
        wide = [y.size // len(y) if is_row(y) else 0 for y in even]
        number = [two and is_number(y) and y.dtype.kind == "f" for y in even]
        whole = [is_number(y) and y.dtype.kind in "iu" for y in even]
        for fits in ([width == count for width in wide], number, whole, [width > top for width in wide]):
            if True in fits:
                return fits.index(True)
        told = ", ".join(f"'{name}' {width or 1}" for name, width in zip(names, wide, strict=True))
        raise BadInput(
            f"y has the label {top}, and no output of the network has so many columns ({told}); labels count from 0"
        )


def _classes(values: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The class of each sample: the largest of a row; of one number whether it is above a half, where all of the
    source's lie between 0 and 1, else above 0; whole numbers as they are."""
    if is_row(values):
        return values.reshape(len(values), -1).argmax(1)
    if values.dtype.kind != "f":
        return values.ravel()
    middle = HALF if is_likely(source) else 0.0
    return (values.ravel() > middle).astype(np.int64)


def _accuracy(classes: np.ndarray, labels: np.ndarray) -> Score:
    return Score(name="accuracy", value=100 * float((classes == labels).mean()))


def _kept(name: str, y: np.ndarray, z: np.ndarray) -> Iterator[Verdict]:
    """What an output must keep whatever else decides."""

    def lost(percent: float, what: str, spare: float) -> Verdict:
        return Verdict(name, WHOLE, Score(name="kept", value=100 - percent), what, spare)

    if y.dtype.kind != "f":
        yield lost(uncommon_lost(y, z), "% of its uncommon values", MAY_LOSE_OF_PART)
        return
    yield lost(variance_lost(y, z), "% of its variance", MAY_LOSE)
    where, percent = worst_part_lost(y, z)
    if where:
        yield lost(percent, f"% of the variance of {where}", MAY_LOSE_OF_PART)
