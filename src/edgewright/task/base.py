"""What must be learned: samples in three parts that share none, and what is to be known of them.

The law of this room: `train` fits weights and statistics, `val` selects, `test` is looked at once, at the end. Samples
stay as they came (uint8 where they were uint8) at one size; a batch is normalised only when it is asked for.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput
from edgewright.core.plan import LEAST_SIDE, MOST_SIDE
from edgewright.core.seed import derive
from edgewright.core.tensors import (
    Shape,
    Signature,
    Size,
    TensorSpec,
    as_tree,
    compact,
    leaves,
    mapped,
    named,
    rows,
    sides,
)
from edgewright.task.kind import Kind
from edgewright.task.kinds.resolve import make_kind

INPUT = "input"  # the name of an input that is alone

Transform = Callable[..., tuple[Any, Any]]


class InputSpec(Frozen):
    """One input as a task keeps it. shape: without the batch.   mean, std: of each channel (or number) of the training
    part, in the units of what is stored.   white: stored value of a white pixel; 0 where that is not known.   fit: how
    an image file of another shape becomes one: its central part of this shape, or the whole of it.   deep_white: value
    of a white pixel in image files of more than 8 bits a channel."""

    name: str = INPUT
    shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    white: float = 255.0
    fit: Literal["crop", "whole"] = "crop"
    deep_white: float = 65535.0

    @model_validator(mode="after")
    def _channels_agree(self) -> Self:
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ValueError(f"mean and std need one number for each of the {self.shape[0]} channels")
        return self

    @property
    def is_map(self) -> bool:
        """Whether it is an image, or laid out as one: (C, H, W)."""
        return len(self.shape) == 3


class TaskSpec(Frozen):
    """All that the other rooms need to know of a task without its samples.

    source: "digits", "images:flowers", "arrays:c10.npz" or "dataset"; no folders, it ships with the model.
    names: what the outputs are called, in their order.   facts: what else the kind was told.   metric: the one that
    decides, by name; "" leaves it to the kind.   flip: whether a left-right flip keeps the targets.   digest: sha256 of
    the content, whatever the split.   num_train, num_val, num_test: samples.
    """

    name: str
    source: str
    kind: str = "classification"
    inputs: tuple[InputSpec, ...] = Field(min_length=1)
    names: tuple[str, ...]
    facts: dict[str, Any] = Field(default_factory=dict)
    metric: str = ""
    flip: bool
    num_train: int
    num_val: int
    num_test: int
    digest: str

    @model_validator(mode="before")
    @classmethod
    def _as_version_1_had_it(cls, data: Any) -> Any:
        """Tasks of version 0.1 were square images in classes, and said so in other words."""
        if not isinstance(data, Mapping) or "resolution" not in data or "inputs" in data:
            return data
        old = dict(data)
        side, white = old.pop("resolution"), old.pop("white", 255.0)
        shape = (old.pop("channels", None), side, side)
        only = {"shape": shape, "mean": old.pop("mean", ()), "std": old.pop("std", ()), "white": white}
        names = {"names": old.pop("classes")} if "classes" in old else {}
        return {**old, "inputs": [only], **names}

    @property
    def input(self) -> InputSpec:
        """The first input that is a map: what is looked at where one is asked for."""
        return next((spec for spec in self.inputs if spec.is_map), self.inputs[0])

    @property
    def size(self) -> Size:
        """Height and width of the maps, as they are kept."""
        return sides(self.input.shape[1:])

    @property
    def resolution(self) -> int | Size:
        """`size`, as version 0.1 called it: a square by its side."""
        return compact(self.size)

    @property
    def classes(self) -> tuple[str, ...]:
        """`names`, as version 0.1 called them."""
        return self.names

    @property
    def signature(self) -> Signature:
        """What a network for this task takes and gives."""
        return self.signature_at(self.size)

    def signature_at(self, size: Size) -> Signature:
        """The same with maps of that size."""
        shapes = {spec.name: (spec.shape[0], *size) if spec.is_map else spec.shape for spec in self.inputs}
        inputs = tuple(TensorSpec(name=name, shape=shape) for name, shape in shapes.items())
        return Signature(inputs=inputs, outputs=kind_of(self).outputs(size))

    @property
    def decides(self) -> str:
        """The name of the metric that decides."""
        return self.metric or kind_of(self).metrics[0].name


def kind_of(spec: TaskSpec) -> Kind:
    """The task's kind.   Errors: BadInput for one that this version does not know."""
    return make_kind(spec.kind, spec.names, spec.facts)


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a task: trees of inputs and targets. Images are (N, C, H, W), uint8 or float32; classes (N,)."""

    inputs: Any
    targets: Any

    def __len__(self) -> int:
        return rows(self.targets)

    @property
    def images(self) -> Any:
        """`inputs`, as version 0.1 called them."""
        return self.inputs

    def take(self, index: Any) -> "Split":
        return Split(mapped(lambda x: x[index], self.inputs), mapped(lambda x: x[index], self.targets))


@dataclass(frozen=True, eq=False)
class Task:
    spec: TaskSpec
    train: Split
    val: Split
    test: Split

    @functools.cached_property
    def kind(self) -> Kind:
        return kind_of(self.spec)

    def normalised(self, mean: Sequence[float], std: Sequence[float], scale: float = 1.0) -> "Task":
        """The same with another normalisation of its only input, `scale` times; of one number a channel, or of as many
        as there are, the mean where the channels are others."""
        channels = len(self.spec.input.mean)

        def fitted(values: Sequence[float]) -> tuple[float, ...]:
            own = tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
            return tuple(scale * value for value in own)

        update = {"mean": fitted(mean), "std": fitted(std)}
        inputs = (self.spec.input.model_copy(update=update),)
        return Task(self.spec.model_copy(update={"inputs": inputs}), self.train, self.val, self.test)


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user may decide about a task; None leaves it to the data."""

    seed: int = 0
    val_share: float = 0.1
    skip_bad: int = 0
    flip: bool | None = None
    resolution: int | Size | None = None
    metric: str | None = None
    group: str | None = None  # what belongs together: see `task.group`
    aspect: Size | None = None  # what has the shape that images are cut to, whatever size they are kept at

    def __post_init__(self) -> None:
        if not 0 < self.val_share <= 0.5:
            raise BadInput(f"val_share must be above 0 and at most 0.5 (got {self.val_share})")
        if self.skip_bad < 0:
            raise BadInput(f"skip_bad must not be negative (got {self.skip_bad})")
        for side in sides(self.resolution or LEAST_SIDE):
            if not LEAST_SIDE <= side <= MOST_SIDE:
                raise BadInput(f"resolution must be from {LEAST_SIDE} to {MOST_SIDE} pixels (got {self.resolution})")


def normalise(inputs: Any, spec: TaskSpec, size: Size | None = None) -> Any:
    """Raw inputs to what every network takes: (x - mean) / std, maps at `size`.

    Args:    inputs: a tree of (N, C, H, W) or (N, F), uint8 or float, in the units of what the task stores.
             size: height and width; None for the task's own.
    Returns: the tree in float32; antialiased bilinear where the size changes.
    """
    found = {}
    for one in spec.inputs:
        x = named(inputs, spec.inputs)[one.name].to(torch.float32)
        if one.is_map and x.shape[-2:] != (size or spec.size):
            x = resize(x, size or spec.size)
        shape = (-1, 1, 1) if one.is_map else (-1,)
        mean, std = (torch.tensor(values, device=x.device).view(shape) for values in (one.mean, one.std))
        found[one.name] = (x - mean).div_(std)
    return as_tree(found)


def resize(x: Tensor, size: Size) -> Tensor:
    return functional.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)


def batches(
    split: Split,
    spec: TaskSpec,
    *,
    batch_size: int,
    size: Size | None = None,
    shuffle: int | None = None,
    augment: Transform | None = None,
    drop_last: bool = False,
    start: int = 0,
) -> Iterator[tuple[Any, Any]]:
    """One pass over a split: normalised inputs, maps at `size`, and targets, as trees.

    Args:
        shuffle: a seed; the order and the augmentation depend on it only. None keeps the stored order.
        augment: raw inputs, targets, generator, size -> raw inputs, targets (see `Augment`).
        drop_last: leave out a last batch that is not full (batch norm cannot train on a batch of one).
        start: the number of the first batch, for a pass that goes on; each batch is what it is in a whole pass.
    """
    if batch_size < 1:
        raise BadInput(f"batch_size must be at least 1 (got {batch_size})")
    order = None
    if shuffle is not None:
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(derive(shuffle, "order")))
    noise = torch.Generator(leaves(split.inputs)[0].device)
    end = len(split) - len(split) % batch_size if drop_last else len(split)
    for first in range(start * batch_size, end, batch_size):
        stop = min(first + batch_size, end)
        part = split.take(slice(first, stop) if order is None else order[first:stop])
        inputs, targets = part.inputs, part.targets
        if augment is not None:
            noise.manual_seed(derive(shuffle or 0, "augment", first))
            inputs, targets = augment(inputs, targets, noise, size or spec.size)
        yield normalise(inputs, spec, size), targets
