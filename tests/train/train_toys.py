"""Small tasks and networks that the tests of this room share."""

import torch
from torch import nn

from edgewright.task.base import InputSpec, Split, Task, TaskSpec
from edgewright.train.clock import StepClock
from edgewright.train.loop import Running, fit
from edgewright.train.recipe import Recipe, fine_tuning
from edgewright.train.record import Trained

RECIPE = Recipe(optimizer="sgd", lr=0.1, batch_size=16, label_smoothing=0.0)
TUNING = fine_tuning().model_copy(update={"accumulate": 2, "warmup": 0.0, "patience": 0})


def toy_task(train: int = 90, val: int = 41, classes: int = 3, side: int = 8) -> Task:
    """Linearly separable: class c is brighter than the noise in its own rows of the image."""
    generator = torch.Generator().manual_seed(5)

    def part(count: int) -> Split:
        labels = torch.arange(count) % classes
        images = torch.randint(0, 100, (count, 2, side, side), generator=generator, dtype=torch.uint8)
        for index, label in enumerate(labels.tolist()):
            images[index, :, 2 * label : 2 * label + 2] += 120
        return Split(images, labels)

    spec = TaskSpec(
        name="toy",
        source="dataset",
        names=tuple("abcdefgh"[:classes]),
        inputs=(InputSpec(shape=(2, side, side), mean=(80.0, 80.0), std=(50.0, 50.0)),),
        flip=False,
        num_train=train,
        num_val=val,
        num_test=val,
        digest="toy",
    )
    return Task(spec, part(train), part(val), part(val))


class Untouchable:
    """A part that nobody may look at."""

    def __getattr__(self, name: str):
        raise AssertionError(f"it was touched: {name}")

    def __len__(self) -> int:
        raise AssertionError("it was touched: len")


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one: nn.Module, other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.state_dict().items())


def learned(model: nn.Module, task: Task | None = None, recipe: Recipe = RECIPE, steps: int = 40, **options) -> Trained:
    """Trained on the toy task, seed 3; `running`'s fields and `fit`'s as options."""
    names = {"checkpoint", "tell", "threads"}
    running = Running(**{name: options.pop(name) for name in names & options.keys()})
    given = {"size": (8, 8), "seed": 3, "clock": StepClock(steps), "running": running} | options
    return fit(model, toy_task() if task is None else task, recipe, **given)


def timeless(found: Trained) -> dict:
    """All of it that two equal trainings have in common."""
    told = found.model_dump(exclude={"seconds", "samples_per_second"})
    for record in told["history"]:
        record.pop("seconds")
    return told


def linear_net(classes: int = 3) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(2 * 8 * 8, classes))


def conv_net(classes: int = 3, width: int = 8) -> nn.Module:
    """With what makes resuming hard: batch norm, dropout, a dense 3x3 convolution (memory layouts), a tied weight."""
    torch.manual_seed(3)
    tied = nn.Linear(width, width)
    return nn.Sequential(
        nn.Conv2d(2, width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        tied,
        nn.Dropout(0.2),
        tied,
        nn.Linear(width, classes),
    )
