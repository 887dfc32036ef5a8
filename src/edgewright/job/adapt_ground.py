"""What an adaptation stands on: the network with its head, the data as the network takes it, the old task."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from edgewright.core.data import Asked
from edgewright.core.errors import BadInput
from edgewright.core.progress import say
from edgewright.core.result import Result
from edgewright.core.run import RunFolder
from edgewright.export.load import load_model
from edgewright.model.timm_model import timm_network
from edgewright.task.base import Task, TaskSpec
from edgewright.task.load import load_task
from edgewright.train.evaluate import evaluate
from edgewright.train.head import find_head, first_lesson, put_head, replace_head


class AdaptPlan(Asked):
    """What is asked.

    source: a run folder, or timm:NAME.   weights: safetensors file for a timm network.   task: the new data.
    memory_bytes, macs: ceilings of one batch's training step (see `backward.training_plan`); None: none.
    minutes: of the fine-tuning and what comes before it; default 10 unless epochs are given.   batch: images held at
    a time; gradients of several make one step of 32 images.   methods: what the planner may choose from, None: all.
    resolution: side of the network's input for a timm network; a run's network keeps its own.
    """

    source: str
    task: str
    weights: str | None = None
    memory_bytes: int | None = Field(default=None, ge=0)
    macs: int | None = Field(default=None, ge=0)
    minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    epochs: int | None = Field(default=None, ge=1)
    batch: int = Field(default=8, ge=1)
    lr: float = Field(default=0.02, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    methods: tuple[str, ...] | None = None
    resolution: int | None = Field(default=None, ge=8, le=224)
    seed: int = Field(default=0, ge=0)


@dataclass
class Ground:
    """What an adaptation stands on. before: the network's own head where it was replaced; result: of its run."""

    asked: AdaptPlan
    model: nn.Module
    task: Task
    resolution: int
    head: str | None
    old_head: nn.Linear | None
    result: Result | None

    @property
    def example(self) -> Tensor:
        return torch.zeros(self.asked.batch, self.task.spec.channels, self.resolution, self.resolution)


def survey(asked: AdaptPlan) -> Ground:
    """The network with the head it will have, and the data as that network takes it."""
    if asked.source.startswith("timm:"):
        model, source = timm_network(asked.source.removeprefix("timm:"), Path(asked.weights) if asked.weights else None)
        if asked.weights is None:
            say("no --weights given: this network has learned nothing yet, and its frozen layers never will")
        resolution = asked.resolution or min(int(source["input_size"][-1]), 224)
        task = load_task(asked.task, seed=asked.seed, resolution=resolution)
        task = _normalised(task, source["mean"], source["std"], task.spec.white)
        result = None
    else:
        result = RunFolder(Path(asked.source)).read_result()
        if asked.weights or asked.resolution:
            raise BadInput("--weights and --resolution are for timm networks; a run's network has its own")
        model = load_model(asked.source)
        resolution = int(result.architecture["resolution"])
        old = TaskSpec.parse(result.task, f"{asked.source}/result.json")
        task = load_task(asked.task, seed=asked.seed, flip=old.flip)
        scale = task.spec.white / old.white if task.spec.white and old.white else 1.0
        task = _normalised(task, [m * scale for m in old.mean], [s * scale for s in old.std], 1.0)
    if task.spec.channels != (3 if result is None else result.task["channels"]):
        raise BadInput(f"{asked.task}: its images have {task.spec.channels} channels, which the network does not take")
    ground = Ground(asked, model, task, resolution, None, None, result)
    if result is None or tuple(result.classes) != task.spec.classes:
        ground.head = find_head(model, ground.example[:1])
        ground.old_head = replace_head(model, ground.head, len(task.spec.classes))
        say(f"the network knows other classes: layer '{ground.head}' is a new head of {len(task.spec.classes)} classes")
    return ground


def _normalised(task: Task, mean: Any, std: Any, white: float) -> Task:
    """The task with the network's own normalisation, given for pixels whose white is `white`; without a white, its
    own."""
    if not white:
        return task
    update = {"mean": tuple(m * white for m in mean), "std": tuple(s * white for s in std)}
    return Task(task.spec.model_copy(update=update), task.train, task.val, task.test)


def teach_head(ground: Ground) -> None:
    """A new head learns alone, first: before that nobody can say what the other layers would bring."""
    if ground.head is not None:
        task = ground.task
        first_lesson(ground.model, ground.head, task.train, task.spec, ground.resolution, ground.asked.seed)


def old_task(ground: Ground) -> Task | str:
    """The data that the network came from, as its run took it, or why it is not at hand."""
    if ground.result is None:
        return "the data that this network came from is not known"
    run_plan = RunFolder(Path(ground.asked.source)).read_plan()
    if run_plan.task == "dataset":
        return "the network's run was given its data from Python"
    try:
        old = load_task(run_plan.task, seed=run_plan.seed, skip_bad=run_plan.skip_bad, resolution=run_plan.resolution)
    except BadInput as error:
        return str(error)
    spec = TaskSpec.parse(ground.result.task, "result.json")
    if old.spec.digest != spec.digest:
        return f"{run_plan.task}: has changed since the network learned it"
    return Task(spec, old.train, old.val, old.test)


def old_accuracy(ground: Ground, old: Task | str) -> float:
    """On the old task's test part, with the old head on the network as it is now."""
    assert not isinstance(old, str)
    if ground.head is None or ground.old_head is None:
        return evaluate(ground.model, old.test, old.spec, ground.resolution).accuracy
    new = ground.model.get_submodule(ground.head)
    assert isinstance(new, nn.Linear)
    put_head(ground.model, ground.head, ground.old_head)
    try:
        return evaluate(ground.model, old.test, old.spec, ground.resolution).accuracy
    finally:
        put_head(ground.model, ground.head, new)
