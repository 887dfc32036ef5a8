"""Samples that can be chosen from, as a network takes them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewright.core.tensors import Size, TensorSpec, mapped, named
from edgewright.export.running import Sample
from edgewright.task.base import TaskSpec, normalise
from edgewright.task.source import Given

LEAST = 2  # samples: one calibrates, one compares
COMPARED = ("val", "test")  # the first that is there compares
Numbers = tuple[float, ...] | None


@dataclass(frozen=True, eq=False)
class Pool:
    """Samples to choose from.   hold: rows to a function from a place among them to that sample, batch 1, as the
    network takes it.   targets: of all, where they are known."""

    count: int
    hold: Callable[[Sequence[int]], Callable[[int], Sample]]
    targets: Any = None


@dataclass(frozen=True, eq=False)
class Handed:
    """pools: one that is to be split, or what calibrates and what compares.   what: they are, for a person.   spec: how
    images became inputs.   assumed: by ImageNet's figures.   task: what the network learned, where its outputs are
    those.   count: of what the targets number, where nobody knows the task."""

    pools: tuple[Pool, ...]
    what: str = "samples"
    spec: TaskSpec | None = None
    assumed: bool = False
    task: TaskSpec | None = None
    count: int | None = None


def pool_of(given: Given, spec: TaskSpec, size: Size | None, inputs: Sequence[TensorSpec] = ()) -> Pool:
    """Samples of a task, their maps at `size`; in the order of the network's `inputs` where these are called as the
    task's are."""
    order = inputs if {one.name for one in inputs} == {one.name for one in spec.inputs} else spec.inputs

    def hold(rows: Sequence[int]) -> Callable[[int], Sample]:
        raw = given.take(rows)

        def make(place: int) -> Sample:
            tree = normalise(mapped(lambda values: values[place : place + 1], raw), spec, size)
            return [np.ascontiguousarray(values.numpy()) for values in named(tree, order).values()]

        return make

    return Pool(len(given), hold, given.targets)
