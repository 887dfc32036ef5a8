r"""Several targets for each sample, each learned as a kind of its own.

    loss, distil    sums of the parts'
    mean_score      the mean of the parts' deciding figures, in percent; it decides
    NAME.FIGURE     every figure of each part, "colour.accuracy"

Targets are a tree by the parts' names, outputs one by "NAME.OUTPUT". A split keeps the shares of the first part that
has strata; two files agree as far as the part on which they agree least.

facts: `parts`, a list of {"name", "kind", "names", "facts", "metric"}: the last is the figure that decides in the part.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput
from edgewright.core.metric import Metric, Score
from edgewright.core.tensors import Size, TensorSpec, leaves
from edgewright.model.head import Head
from edgewright.model.several_heads import SeveralHeads
from edgewright.task.kind import Kind, Maker
from edgewright.task.pictures import Picture

MEAN = "mean_score"
ANY_SIZE = (8, 8)  # what outputs are called does not depend on it


class Part(Frozen):
    """One target: what it is called, and the kind that it is learned as.   metric: "" for the kind's first."""

    name: str
    kind: str
    names: tuple[str, ...]
    facts: dict[str, Any] = Field(default_factory=dict)
    metric: str = ""


class Several(Kind):
    name = "several"
    summary = "Several targets for each sample, each of a kind of its own."

    def __init__(self, names: tuple[str, ...], facts: Mapping[str, Any], parts: Mapping[str, Kind]) -> None:
        super().__init__(names, facts)
        self.parts = dict(parts)
        told = {part["name"]: part.get("metric") for part in facts["parts"]}
        self._decides = {name: told[name] or kind.metrics[0].name for name, kind in parts.items()}
        self._outputs = {name: f"{name}.{kind.outputs(ANY_SIZE)[0].name}" for name, kind in parts.items()}

    @classmethod
    def made(cls, names: tuple[str, ...], facts: Mapping[str, Any], make: Maker) -> "Several":
        """Errors: BadInput for facts that do not say the parts, and for parts that cannot be learned side by side."""
        asked = [Part.parse(part, "several targets") for part in facts.get("parts", ())]
        if len(asked) < 2:
            raise BadInput(f"several targets: {len(asked)} are named; one alone is its own kind")
        parts = {part.name: make(part.kind, part.names, part.facts) for part in asked}
        for name, kind in parts.items():
            if kind.aligned or len(kind.outputs(ANY_SIZE)) != 1:
                raise BadInput(f"several targets: '{name}' is {kind.name}, which is learned alone so far")
            if any(metric.unit != "%" or not metric.higher_is_better for metric in kind.metrics):
                raise BadInput(
                    f"several targets: '{name}' is not judged in percent, so there is no mean of the figures"
                )
        return cls(names, facts, parts)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        deciding = [self._of_part(name, kind.metric(self._decides[name])) for name, kind in self.parts.items()]
        each = [self._of_part(name, metric) for name, kind in self.parts.items() for metric in kind.metrics]
        return (Mean(deciding), *each)

    def _of_part(self, name: str, metric: Metric) -> Metric:
        return OfPart(metric, name, self._outputs[name], [f"{name}.{one}" for one in self.parts[name].names])

    @property
    def head(self) -> Head:
        return SeveralHeads({self._outputs[name]: kind.head for name, kind in self.parts.items()})

    def outputs(self, size: Size) -> tuple[TensorSpec, ...]:
        return tuple(kind.outputs(size)[0].model_copy(update={"name": self._outputs[name]})
                     for name, kind in self.parts.items())  # fmt: skip

    def loss(self, outputs: Any, targets: Any, smoothing: float = 0.0) -> Tensor:
        losses = [
            kind.loss(outputs[self._outputs[name]], targets[name], smoothing) for name, kind in self.parts.items()
        ]
        return sum(losses[1:], losses[0])

    def distil(self, student: Any, teacher: Any, temperature: float) -> Tensor:
        losses = [kind.distil(student[key], teacher[key], temperature) for key, kind in self._by_output()]
        return sum(losses[1:], losses[0])

    def answers(self, outputs: Any) -> Any:
        return {name: kind.answers(outputs[self._outputs[name]]) for name, kind in self.parts.items()}

    def same(self, expected: Any, found: Any) -> Score:
        scores = [(key.split(".")[0], kind.same(expected[key], found[key])) for key, kind in self._by_output()]
        name, worst = min(scores, key=lambda one: one[1].rank)
        return worst.model_copy(update={"name": f"{name}.{worst.name}"})

    def guess(self, targets: Any) -> dict[str, float]:
        guesses = {name: kind.guess(targets[name]) for name, kind in self.parts.items()}
        deciding = [guesses[name][self._decides[name]] for name in guesses]
        each = {f"{name}.{figure}": value for name, found in guesses.items() for figure, value in found.items()}
        return {MEAN: sum(deciding) / len(deciding), **each}

    def pictures(self, inputs: Any, targets: Any, answers: Any, white: float) -> list[Picture]:
        """All that the parts show, on the first map among the inputs."""
        shown = next((x for x in leaves(inputs) if x.ndim == 4), inputs)
        return [
            picture.model_copy(update={"title": f"{name}: {picture.title}"})
            for name, kind in self.parts.items()
            for picture in kind.pictures(shown, targets[name], answers[name], white)
        ]

    def tell(self, outputs: Any, size: Size, place: Path | None) -> dict[str, Any]:
        return {
            name: kind.tell(outputs[self._outputs[name]], size, place and place.with_name(f"{place.name}-{name}"))
            for name, kind in self.parts.items()
        }

    def line(self, told: Mapping[str, Any]) -> str:
        return "\t".join(f"{name}\t{kind.line(told[name])}" for name, kind in self.parts.items())

    def check(self, targets: Any, least: int, where: str) -> None:
        for name, kind in self.parts.items():
            kind.check(targets[name], least, f"{where}, {name}")

    def strata(self, targets: Any) -> Tensor | None:
        found = (kind.strata(targets[name]) for name, kind in self.parts.items())
        return next((strata for strata in found if strata is not None), None)

    def remarks(self, targets: Any) -> list[str]:
        return [f"{name}: {one}" for name, kind in self.parts.items() for one in kind.remarks(targets[name])]

    def targets(self) -> dict[str, tuple[str, ...]]:
        return {name: kind.names for name, kind in self.parts.items()}

    def examples(
        self, maps: Sequence[Tensor], targets: Any, generator: torch.Generator
    ) -> tuple[Sequence[Tensor], Tensor]:
        raise BadInput("scores of features look at one target, and this task has several; choose another score")

    def described(self) -> str:
        return "; ".join(f"{name}: {kind.described()}" for name, kind in self.parts.items())

    def _by_output(self) -> list[tuple[str, Kind]]:
        return [(self._outputs[name], kind) for name, kind in self.parts.items()]


class OfPart(Metric):
    """A part's figure.   output: name of the part's own.   names: of what the part's outputs number."""

    def __init__(self, metric: Metric, part: str, output: str, names: Sequence[str]) -> None:
        self.metric, self.part, self.output, self.names = metric, part, output, tuple(names)
        self.name, self.unit, self.higher_is_better = f"{part}.{metric.name}", metric.unit, metric.higher_is_better

    def start(self) -> Any:
        return self.metric.start()

    def add(self, state: Any, outputs: Any, targets: Any) -> Any:
        return self.metric.add(state, outputs[self.output], targets[self.part])

    def value(self, state: Any) -> float:
        return self.metric.value(state)

    def each(self, state: Any) -> dict[str, Sequence[float]]:
        return {f"{self.part}.{name}": values for name, values in self.metric.each(state).items()}


class Mean(Metric):
    """The mean of figures in percent."""

    name = MEAN

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = tuple(metrics)

    def start(self) -> Any:
        return [metric.start() for metric in self.metrics]

    def add(self, state: Any, outputs: Any, targets: Any) -> Any:
        return [metric.add(one, outputs, targets) for metric, one in zip(self.metrics, state, strict=True)]

    def value(self, state: Any) -> float:
        values = [metric.value(one) for metric, one in zip(self.metrics, state, strict=True)]
        return sum(values) / len(values)
