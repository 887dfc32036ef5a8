"""Kinds of place that data comes from, and what a finished network is asked about.

A source reads a place in two ways: as a task (samples in three parts, targets known, everything inferred), and as
samples for a network that is there already, kept as that network's task keeps its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from edgewright.core.tensors import Size
from edgewright.task.base import Task, TaskSpec, Wishes


@dataclass(frozen=True, eq=False)
class Given:
    """Samples for a network that is there.

    files: what each is called: "photo.jpg", "F.npz[3]".   stems: the same for files that belong to it: "photo", "F-3".
    take: indices to the tree of their raw inputs, as the task keeps them (`task.base.normalise` makes them the
    network's); images are read only then.   size: of one sample's own map, by its index.   targets: where they are
    known.   names: of what they number, by target, "" for one alone, where the place says them.   part: of a place in
    parts which one this is.
    """

    files: Sequence[str]
    stems: Sequence[str]
    take: Callable[[Sequence[int]], Any]
    size: Callable[[int], Size]
    targets: Tensor | dict[str, Tensor] | None = None
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    part: str | None = None

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class Source:
    """One kind of place.

    prefix: what stands before the colon.   place: what is said after it, "DIR"; "" for a source that is one place.
    summary: what lies there.   read: the task.   given: samples for a network of that task: of one part where a name
    of a part is given and there are parts; by default all, of parts the test part.
    """

    prefix: str
    place: str
    summary: str
    read: Callable[[Path, Wishes], Task]
    given: Callable[[Path, TaskSpec, str | None], Given]

    def __str__(self) -> str:
        """ "'images:DIR' (a folder for each class)"."""
        said = f" ({self.summary})" if self.summary else ""
        return f"'{self.prefix}{':' if self.place else ''}{self.place}'{said}"


def given_of(task: Task, part: str | None, name: str) -> Given:
    """Samples of a task that was read, by default of its test part."""
    split = {"train": task.train, "val": task.val, "test": task.test}[part or "test"]
    return Given(
        files=[f"{name}[{index}]" for index in range(len(split))],
        stems=[f"{name}-{index}" for index in range(len(split))],
        take=lambda rows: split.take(list(rows)).inputs,
        size=lambda index: task.spec.size,
        targets=split.targets,
        part=part or "test",
    )
