"""Which samples each step learns from: a function of the seed and the step's number."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgewright.core.seed import derive
from edgewright.core.tensors import Size
from edgewright.task.augment.default import moving
from edgewright.task.base import Task, batches
from edgewright.train.clock import steps_per_epoch
from edgewright.train.recipe import Recipe


@dataclass(frozen=True)
class Samples:
    """The training part, as a recipe takes it.

    size: height and width of the maps that the network takes, pixels.   seed: of order and augmentation.
    """

    task: Task
    recipe: Recipe
    size: Size
    seed: int

    @property
    def batch_size(self) -> int:
        return min(self.recipe.batch_size, len(self.task.train))

    @property
    def per_epoch(self) -> int:
        """Steps in one pass over the data; fewer samples than a step takes are one step."""
        return steps_per_epoch(len(self.task.train), self.recipe.step_samples)

    def steps(self, step: int) -> Iterator[list[tuple[Any, Any]]]:
        """The batches of each step from that number on, without end; each epoch has an order of its own."""
        epoch, done = divmod(step, self.per_epoch)
        for number in itertools.count(epoch):
            one = batches(
                self.task.train,
                self.task.spec,
                batch_size=self.batch_size,
                size=self.size,
                shuffle=derive(self.seed, "epoch", number),
                augment=moving(self.recipe.augment, self.task.spec),
                drop_last=not self.recipe.freeze_norms,  # a batch of one has no statistics
                start=done * self.recipe.accumulate,
            )
            for _ in range(done, self.per_epoch):
                yield list(itertools.islice(one, self.recipe.accumulate))
            done = 0

    def as_they_are(self, step: int) -> Iterator[tuple[Any, Any]]:
        """Whole batches without augmentation, in an order of this step's own."""
        return batches(
            self.task.train,
            self.task.spec,
            batch_size=self.batch_size,
            size=self.size,
            shuffle=derive(self.seed, "settle", step),
            drop_last=True,
        )
