"""How good answers are: a figure with its name and unit, and what gathers one batch by batch.

A metric streams: `start` gives an empty state, `add` a new one with a batch in it, `value` the figure. So a test part
of any size is judged in the memory of one batch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from pydantic import model_validator

from edgewright.core.data import Frozen


class Score(Frozen):
    """A figure: `accuracy` 93.1 %, `mean_iou` 71 %, `mean_absolute_error` 4.2 years."""

    name: str
    value: float
    unit: str = "%"
    higher_is_better: bool = True

    @model_validator(mode="before")
    @classmethod
    def _as_schema_1_had_it(cls, data: Any) -> Any:
        return {"name": "accuracy", "value": data} if isinstance(data, float | int) else data

    @property
    def rank(self) -> float:
        """Higher is better, whatever the figure; what is not a number is worst."""
        if math.isnan(self.value):
            return -math.inf
        return self.value if self.higher_is_better else -self.value

    def lost_from(self, before: "Score") -> float:
        """How much worse this is than `before`, in the figure's unit; below 0 where it is better."""
        return before.rank - self.rank

    @property
    def title(self) -> str:
        """For people: "balanced accuracy"."""
        return self.name.replace("_", " ")

    def __str__(self) -> str:
        return f"{self.title} {self.value:.2f} {self.unit}".rstrip()


class Metric(ABC):
    """A figure over a whole part of a task. `name`, `unit` and `higher_is_better` are those of its score; `names` are
    those of the parts in `each`, where they are not the names of all outputs."""

    name: str
    unit: str = "%"
    higher_is_better: bool = True
    names: tuple[str, ...] | None = None

    @abstractmethod
    def start(self) -> Any:
        """The state before the first batch."""

    @abstractmethod
    def add(self, state: Any, outputs: Any, targets: Any) -> Any:
        """The state with a batch: outputs of the network and targets, as trees."""

    @abstractmethod
    def value(self, state: Any) -> float:
        """The figure of all batches; NaN of none."""

    def each(self, state: Any) -> dict[str, Sequence[float]]:
        """What the figure is made of, by name, where it has such parts: {"recall": one number a class}."""
        return {}

    def score(self, state: Any) -> Score:
        """The figure as a score."""
        return self.of(self.value(state))

    def of(self, value: float) -> Score:
        """A figure that is known already, as a score."""
        return Score(name=self.name, value=value, unit=self.unit, higher_is_better=self.higher_is_better)
