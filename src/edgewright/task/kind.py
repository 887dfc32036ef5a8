"""Kinds of task: what there is to learn, and all that depends on it.

A kind says how an answer is judged (metrics, the first decides unless the user chooses another), what is learned from
(loss), what a network ends in (head), what a guesser gets, what two files must agree on, and what a person is shown.
Everything else, search, training, compression, export, reports, runs through these methods and knows no kind.

Outputs, targets and inputs are trees (`core.tensors`): one tensor, or several by name, the batch first.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from edgewright.core.errors import BadInput
from edgewright.core.metric import Metric, Score
from edgewright.core.tensors import Size, TensorSpec
from edgewright.model.head import Head
from edgewright.task.pictures import Picture

Examples = Callable[[Sequence[Tensor], Any, torch.Generator], tuple[Sequence[Tensor], Tensor]]  # see `Kind.examples`

CLEAR = 0.2  # of the way that a guesser leaves, or has gone: so much better is no accident


class Kind(ABC):
    """One kind of task, made for one task by `kinds.resolve.make_kind`.

    names: what the outputs are called, in their order.   facts: what else the kind was told when the data was read.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    aligned: ClassVar[bool] = False  # whether targets are maps that lie on the input's and move with it
    fill: ClassVar[float] = 0.0  # what comes into an aligned target from outside it

    def __init__(self, names: tuple[str, ...], facts: Mapping[str, Any]) -> None:
        self.names, self.facts = names, facts

    @classmethod
    def made(cls, names: tuple[str, ...], facts: Mapping[str, Any], make: "Maker") -> Self:
        """The kind for one task.   make: for a kind that is made of others."""
        return cls(names, facts)

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """How answers are judged; the first decides, unless the task says another."""

    @property
    @abstractmethod
    def head(self) -> Head:
        """What its networks end in."""

    @abstractmethod
    def outputs(self, size: Size) -> tuple[TensorSpec, ...]:
        """What its networks give for a map of that size."""

    @abstractmethod
    def loss(self, outputs: Any, targets: Any, smoothing: float = 0.0) -> Tensor:
        """What is learned from: a scalar, the mean over the batch.   smoothing: of targets, where that makes sense."""

    @abstractmethod
    def distil(self, student: Any, teacher: Any, temperature: float) -> Tensor:
        """How far a student's outputs are from its teacher's: a scalar, the mean over the batch."""

    @abstractmethod
    def answers(self, outputs: Any) -> Any:
        """What the outputs mean, small enough to be kept for a whole part: classes, masks."""

    @abstractmethod
    def same(self, expected: Any, found: Any) -> Score:
        """How far the outputs of two files say the same: percent of the answers."""

    @abstractmethod
    def guess(self, targets: Any) -> dict[str, float]:
        """By metric, what one gets who knows how often each answer is right, and nothing of the inputs."""

    @abstractmethod
    def pictures(self, inputs: Any, targets: Any, answers: Any, white: float) -> list[Picture]:
        """What a person is shown of raw inputs of which `white` is white, their targets and the answers."""

    @abstractmethod
    def tell(self, outputs: Any, size: Size, place: Path | None) -> dict[str, Any]:
        """What is said of one sample, whose outputs (batch 1) are given: JSON values.

        size: of the file's own image.   place: where files that belong to the answer go, their name without an ending;
        None where none are wanted.
        """

    def line(self, told: Mapping[str, Any]) -> str:
        """The same in a line for a person."""
        return "\t".join(f"{value:.4f}" if isinstance(value, float) else str(value) for value in told.values())

    def check(self, targets: Any, least: int, where: str) -> None:  # noqa: B027 (most kinds take any targets)
        """Refuse targets that nothing can be learned from, or not split: into `least` parts.   Errors: BadInput."""

    def strata(self, targets: Any) -> Tensor | None:
        """(N,) int64, what a split keeps the shares of; None where it is drawn blindly."""
        return None

    def remarks(self, targets: Any) -> list[str]:
        """What is to be known of the training part's targets before anything is learned, a sentence each."""
        return []

    def decides(self, targets: Any) -> str:
        """The name of the metric that suits these targets when nobody says otherwise."""
        return self.metrics[0].name

    def mixed(
        self, inputs: Any, targets: Any, generator: torch.Generator, mixup: float, cutmix: float
    ) -> tuple[Any, Any]:
        """Samples mixed with each other, where that makes sense for the kind; here as they came."""
        return inputs, targets

    def examples(
        self, maps: Sequence[Tensor], targets: Any, generator: torch.Generator
    ) -> tuple[Sequence[Tensor], Tensor]:
        """How what a network makes of N samples pairs with their targets; here a sample is one example.

        maps: (N, channels, *places) each.   generator: of what is drawn.
        Returns: (n, channels) for each of the maps, and their targets: (n,) int64 classes, or floats.
        Errors: BadInput for a kind, or targets, that do not pair so.
        """
        return one_a_sample(maps, targets, generator)

    def described(self) -> str:
        """What its networks do, for a model card: "tells 10 classes apart"."""
        return self.summary

    def targets(self) -> dict[str, tuple[str, ...]]:
        """What the numbers of each target mean, by its name, "" for one alone."""
        return {"": self.names}

    def reading(self) -> str:
        """How a person reads the outputs, before the names that belong to them in their order."""
        return f"{self.summary} In their order:"

    def metric(self, name: str) -> Metric:
        """The metric of that name; StopIteration for one that the kind does not have."""
        return next(metric for metric in self.metrics if metric.name == name)


def one_a_sample(maps: Sequence[Tensor], targets: Any, generator: torch.Generator) -> tuple[Sequence[Tensor], Tensor]:
    """The mean over the places, and a target for each sample: (N,) classes, or (N,) or (N, M) floats."""
    if not isinstance(targets, Tensor) or targets.ndim > (2 if targets.is_floating_point() else 1):
        given = f"of shape {tuple(targets.shape[1:])}" if isinstance(targets, Tensor) else "by name"
        raise BadInput(
            f"scores of features need a class or numbers for each sample, and here each has targets {given}; "
            "give the kind's own `examples`, or choose another score"
        )
    return [one.flatten(2).mean(2) if one.ndim > 2 else one for one in maps], targets


Maker = Callable[[str, tuple[str, ...], Mapping[str, Any]], Kind]  # a kind's name, its outputs' names, its facts


def beats(score: Score, guess: float) -> bool:
    """Whether a score is clearly better than a guesser's: by a fifth of what the guesser has, or leaves, whichever is
    less; of a figure without an end, by a fifth of the guesser's own."""
    margin = CLEAR * (min(guess, 100 - guess) if score.unit == "%" else abs(guess))
    better = score.value - guess if score.higher_is_better else guess - score.value
    return better >= max(margin, 1e-9)


def has_learned(scores: Sequence[Score], guesses: Mapping[str, float]) -> bool:
    """Whether any figure is clearly above what a guesser gets in it; without a guess nobody can say, and it counts."""
    known = [score for score in scores if score.name in guesses]
    return not known or any(beats(score, guesses[score.name]) for score in known)
