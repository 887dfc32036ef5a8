"""What an adaptation stands on: the network with its head, the data as the network takes it, the old task."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from edgewright.backward.plans.training_plan import TrainingPlan
from edgewright.core.errors import BadInput
from edgewright.core.metric import Score
from edgewright.core.progress import say
from edgewright.core.result import Result
from edgewright.core.run import RunFolder
from edgewright.core.tensors import Size, sides
from edgewright.export.load import load_model, load_run_task
from edgewright.job.adapt.plan import AdaptPlan
from edgewright.job.base import Ground
from edgewright.model.timm_model import timm_network
from edgewright.task.base import Split, Task, TaskSpec
from edgewright.task.load import load_task
from edgewright.task.sizes import LARGEST_INFERRED
from edgewright.train.evaluate import Evaluation, evaluate
from edgewright.train.head import first_lesson, put_layers, replace_outputs
from edgewright.train.loop import training_device

HELD = (8, 4, 2, 1)  # images at a time: more are hardly faster
FEW_TO_CHOOSE_BY = 20  # val images; one is 5 % of them


@dataclass
class AdaptGround(Ground):
    """What an adaptation stands on. head: name of the layer that is new.   old_head: what stood there.   result: of the
    run that the network is from.   training: what learns, and how, once that is decided."""

    plan: AdaptPlan
    model: nn.Module
    task: Task
    size: Size
    result: Result | None = None
    head: str | None = None
    old_head: dict[str, nn.Module] = field(default_factory=dict)
    training: TrainingPlan = field(init=False)

    @property
    def held(self) -> tuple[int, ...]:
        """How many images may be held at a time."""
        batch = len(self.example)
        alone = self.plan.batch is not None or self.plan.memory_bytes is None
        return (batch,) if alone else HELD[HELD.index(batch) :]

    @property
    def example(self) -> Tensor:
        batch = self.plan.batch or next(size for size in HELD if size <= len(self.task.train))
        return torch.zeros(batch, self.task.spec.input.shape[0], *self.size)


def survey(asked: AdaptPlan) -> AdaptGround:
    """The network with the head it will have, and the data as that network takes it.

    Errors: BadInput for a source, weights or data that cannot be used, and for data that does not fit the network.
    """
    ground = _timm_network(asked) if asked.source.startswith("timm:") else _network_of_a_run(asked)
    task, spec = ground.task, ground.task.spec
    if asked.batch is not None and asked.batch > len(task.train):
        raise BadInput(f"a batch of {asked.batch} is more than the {len(task.train)} training images of {asked.task}")
    if len(task.val) < FEW_TO_CHOOSE_BY:
        say(f"val, which chooses the weights that are kept, has only {len(task.val)} of the images: little to go by")
    learned = None if ground.result is None else TaskSpec.parse(ground.result.task, asked.source)
    if learned is None or (learned.kind, learned.names) != (spec.kind, spec.names):
        ground.old_head = replace_outputs(ground.model, spec, ground.example[:1])
        (ground.head,) = ground.old_head
        say(f"the network knows other outputs: its last layer, {ground.head}, is replaced by one of {len(spec.names)}")
    return ground


def _check_one_input(spec: TaskSpec, where: str) -> None:
    if len(spec.inputs) > 1:
        told = " and ".join(one.name for one in spec.inputs)
        raise BadInput(f"{where}: the inputs are {told}, and only networks of one input can be adapted so far")


def _timm_network(asked: AdaptPlan) -> AdaptGround:
    model, source = timm_network(asked.source.removeprefix("timm:"), Path(asked.weights) if asked.weights else None)
    if asked.weights is None:
        say("no --weights given: this network has learned nothing yet, and its frozen layers never will")
    channels, *square = source["input_size"]
    resolution = asked.resolution or min(int(square[-1]), LARGEST_INFERRED)
    task = load_task(asked.task, seed=asked.seed, skip_bad=asked.skip_bad, group=asked.group, resolution=resolution)
    _check_channels(task, int(channels), asked.task)
    if white := task.spec.input.white:  # timm's figures are for a white of 1
        task = task.normalised(source["mean"], source["std"], white)
    return AdaptGround(asked, model, task, sides(resolution))


def _network_of_a_run(asked: AdaptPlan) -> AdaptGround:
    if asked.weights or asked.resolution:
        raise BadInput("weights and resolution are for networks of timm; a run's network has its own")
    result = RunFolder(Path(asked.source)).read_result()
    model, old = load_model(asked.source), TaskSpec.parse(result.task, f"{asked.source}/result.json")
    _check_one_input(old, asked.source)
    size = sides(result.architecture["resolution"])
    task = load_task(
        asked.task, seed=asked.seed, skip_bad=asked.skip_bad, group=asked.group, flip=old.flip, aspect=size
    )
    before = old.input
    _check_channels(task, before.shape[0], asked.task)
    white = task.spec.input.white
    if bool(white) == bool(before.white):  # else the units of one are not known, and the data keeps its own figures
        task = task.normalised(before.mean, before.std, white / before.white if white else 1.0)
    return AdaptGround(asked, model, task, size, result)


def _check_channels(task: Task, taken: int, source: str) -> None:
    _check_one_input(task.spec, source)
    if (found := task.spec.input.shape[0]) != taken:
        words = {1: "1 channel (grey)", 3: "3 channels (colour)"}
        given = words.get(found, f"{found} channels")
        needed = words.get(taken, f"{taken} channels")
        raise BadInput(f"{source}: the images have {given}, and the network takes {needed}; convert them first")


@contextlib.contextmanager
def training_place(model: nn.Module) -> Iterator[str]:
    """The model on the device where training runs; on the CPU again on leaving."""
    device = training_device()
    try:
        model.to(device)
        yield device
    finally:
        model.to("cpu")


def teach_head(ground: AdaptGround) -> None:
    """A new head learns alone, first: before that nobody can say what the other layers would bring."""
    if ground.head is not None:
        task = ground.task
        with training_place(ground.model):
            first_lesson(ground.model, ground.head, task.train, task.spec, ground.size, ground.plan.seed)


def judged(ground: AdaptGround, split: Split, spec: TaskSpec) -> Evaluation:
    with training_place(ground.model) as device:
        return evaluate(ground.model, split, spec, ground.size, device=device)


def old_task(ground: AdaptGround) -> Task | str:
    """The data that the network came from, as its run took it, or why it is not at hand."""
    if ground.result is None:
        return "the data that this network came from is not known"
    try:
        return load_run_task(RunFolder(Path(ground.plan.source)))
    except BadInput as error:
        return str(error)


def on_old_task(ground: AdaptGround, old: Task) -> Score:
    """On the old task's test part, with the old head on the network as it is now."""
    new = put_layers(ground.model, ground.old_head)
    try:
        return judged(ground, old.test, old.spec).score
    finally:
        put_layers(ground.model, new)
