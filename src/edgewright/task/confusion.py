"""Figures over classes from counts of right and wrong answers: what classification and segmentation are judged by.

Of each class c:  tp_c answered c and right,  fp_c answered c and wrong,  fn_c is c and answered otherwise
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgewright.core.metric import Metric


@dataclass(frozen=True, eq=False)
class Counts:
    """(classes,) int64 each."""

    right: Tensor
    said: Tensor
    true: Tensor

    @classmethod
    def none(cls, classes: int) -> "Counts":
        return cls(*(torch.zeros(classes, dtype=torch.int64) for _ in range(3)))

    def plus(self, said: Tensor, true: Tensor) -> "Counts":
        """With answers and truths (any shape, int64, none to be ignored)."""
        classes, said, true = len(self.true), said.flatten().cpu(), true.flatten().cpu()
        tally = [torch.bincount(part, minlength=classes) for part in (true[said == true], said, true)]
        return Counts(self.right + tally[0], self.said + tally[1], self.true + tally[2])

    @property
    def recall(self) -> Tensor:
        """Percent of each class that is found; NaN of a class that is not there."""
        return 100 * self.right / self.true

    @property
    def iou(self) -> Tensor:
        """tp / (tp + fp + fn), percent; NaN of a class that neither is there nor was said."""
        return 100 * self.right / (self.said + self.true - self.right)

    @property
    def f1(self) -> Tensor:
        """2 tp / (2 tp + fp + fn), percent; NaN as `iou`."""
        return 200 * self.right / (self.said + self.true)

    @property
    def accuracy(self) -> float:
        """Percent of all answers that are right."""
        return 100 * int(self.right.sum()) / total if (total := int(self.true.sum())) else float("nan")


class OverClasses(Metric):
    """A figure of `Counts`.

    answer: outputs and targets to answers and truths, those that do not count left out.   figure: of the counts.
    parts: name of what it is the mean of, and that of each class.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        answer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        figure: Callable[[Counts], float],
        parts: tuple[str, Callable[[Counts], Tensor]] | None = None,
    ) -> None:
        self.name, self.classes, self.answer, self.figure, self.of_each = name, classes, answer, figure, parts

    def start(self) -> Counts:
        return Counts.none(self.classes)

    def add(self, state: Counts, outputs: Tensor, targets: Tensor) -> Counts:
        return state.plus(*self.answer(outputs, targets))

    def value(self, state: Counts) -> float:
        return self.figure(state)

    def each(self, state: Counts) -> dict[str, Sequence[float]]:
        return {} if self.of_each is None else {self.of_each[0]: self.of_each[1](state).tolist()}


def mean_of_present(values: Tensor) -> float:
    """The mean without what is not a number."""
    return float(values[~values.isnan()].mean())
