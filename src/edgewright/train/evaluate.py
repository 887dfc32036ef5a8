"""How good a network is on a part of a task."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgewright.core.errors import BadInput
from edgewright.core.metric import Score
from edgewright.core.tensors import Size, ask, gathered, leaves, mapped, rows
from edgewright.task.base import Split, TaskSpec, batches, kind_of


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network answered on a split.

    score: the figure that decides.   scores: by name, that one among them.   each: what figures are made of, by name,
    one number for each of the outputs' names.   loss: mean over the samples.   answers: a tree, of all samples in
    order.   finite: whether all outputs were numbers.
    """

    score: Score
    scores: dict[str, Score]
    each: dict[str, dict[str, float]]
    loss: float
    answers: Any
    finite: bool

    @property
    def values(self) -> dict[str, float]:
        """The figures alone, by name."""
        return {name: score.value for name, score in self.scores.items()}


@torch.no_grad()  # not inference_mode: what the network keeps of this pass must be of use when it learns
def evaluate(
    model: nn.Module,
    split: Split,
    spec: TaskSpec,
    size: Size | None = None,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Run every sample of `split` through `model` in evaluation mode; weights and training mode stay as they were.

    Outputs are judged batch by batch and only answers are kept, so memory does not grow with maps of outputs.
    """
    if len(split) == 0:
        raise BadInput(f"{spec.name}: there are no samples to evaluate on")
    kind = kind_of(spec)
    states = [metric.start() for metric in kind.metrics]
    answers, total, finite = [], 0.0, True
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        for inputs, targets in batches(split, spec, batch_size=batch_size, size=size):
            found = ask(model, mapped(lambda x: x.to(device), inputs))
            outputs = mapped(lambda y: y.float().cpu(), found)
            finite &= all(bool(y.isfinite().all()) for y in leaves(outputs))
            total += float(kind.loss(outputs, targets)) * rows(targets)
            states = [metric.add(state, outputs, targets) for metric, state in zip(kind.metrics, states, strict=True)]
            answers.append(kind.answers(outputs))
    finally:
        for module, training in modes:
            module.training = training
    scores = {metric.name: metric.score(state) for metric, state in zip(kind.metrics, states, strict=True)}
    each: dict[str, dict[str, float]] = {}
    for metric, state in zip(kind.metrics, states, strict=True):
        each |= {name: dict(zip(metric.names or kind.names, map(float, values), strict=True))
                 for name, values in metric.each(state).items()}  # fmt: skip
    return Evaluation(
        score=scores[spec.decides],
        scores=scores,
        each=each,
        loss=total / len(split),
        answers=gathered(answers, torch.cat),
        finite=finite,
    )
