"""Real inputs to calibrate and to compare on: of a run's own task, or of data that comes with an ONNX file.

Calibration and comparison never share a sample. Pixels are kept as they came and turned into inputs one at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from edgewright.core.errors import BadInput
from edgewright.core.progress import said_at_the_end
from edgewright.core.seed import rng
from edgewright.core.tensors import mapped
from edgewright.export.choose.handed import pools_of
from edgewright.export.choose.pools import Pool, pool_of
from edgewright.export.load import load_run_task
from edgewright.export.meaning import Known, Meaning, Unknown
from edgewright.export.running import Sample
from edgewright.export.ship.source import Source
from edgewright.task.base import Task, TaskSpec, kind_of
from edgewright.task.source import given_of

CALIBRATION = 128
COMPARISON = 1000
Make = Callable[[int], Sample]


@dataclass(frozen=True)
class Samples:
    """calibration, comparison: as the network takes them, batch 1.

    targets: of the comparison, where known: the tree of the task's, or of a network whose task nobody knows, numbers
    (N,).   spec: how images became inputs; None where they came as arrays.   assumed: its mean and std are ImageNet's,
    for want of others.   told: what the data is, in words that name no folder.   task: what the network learned, where
    that is known.   count: of what the numbers name otherwise, where known.
    """

    calibration: Sequence[Sample]
    comparison: Sequence[Sample]
    targets: Any = None
    spec: TaskSpec | None = None
    assumed: bool = False
    told: str = "samples that were handed over"
    task: TaskSpec | None = None
    count: int | None = None

    @property
    def meaning(self) -> Meaning:
        """What is known of the outputs for the comparison."""
        if self.task is None:
            return Unknown(self.targets, self.count)
        kind = kind_of(self.task)
        return Known(kind, None if self.targets is None else kind.metric(self.task.decides), self.targets)

    def first(self, count: int) -> "Samples":
        """With so many to compare on."""
        targets = None if self.targets is None else mapped(lambda values: values[:count], self.targets)
        return replace(self, comparison=self.comparison[:count], targets=targets)


class Lazy(Sequence[Sample]):
    """Samples made when asked for, so that a thousand photographs are held as bytes."""

    def __init__(self, rows: Sequence[int], make: Make) -> None:
        self.rows, self.make = list(rows), make

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(index, slice):
            return Lazy(self.rows[index], self.make)
        return self.make(self.rows[index])


def read_samples(
    source: Source,
    data: str | None,
    *,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    seed: int = 0,
) -> Samples:
    """What to calibrate and to compare `source` on.

    Args:
        data: None for a run's own task, else as `edgewright design` reads it (see `handed`). Of data in parts train
            calibrates and val, or else test, compares; of others a fifth calibrates. Of a run's own task the test part
            is not looked at.
        mean, std: of each channel, for pixels between 0 and 1. Default: those of the task that the network learned, and
            where it does not say, ImageNet's.
        seed: which samples calibrate and which compare.
    Errors: BadInput for data that is missing, empty, or not what the network takes.
    """
    if data is None:
        if source.run is None:
            raise BadInput(f"{source.path}: say on which data it is to be compared: --data images:DIR")
        return _of_task(source, seed)
    with said_at_the_end():
        found = pools_of(source, data, mean, std)
        few, many = _parts(found.pools, seed)
    right = "without targets" if many.targets is None else "with targets"
    told = f"{len(few.samples) + len(many.samples)} {found.what}, {right}"
    return Samples(few.samples, many.samples, many.targets, found.spec, found.assumed, told, found.task, found.count)


def _of_task(source: Source, seed: int) -> Samples:
    assert source.run is not None
    try:
        task = load_run_task(source.run)
    except BadInput as error:
        raise BadInput(f"{source.run.path}: {error}; give data with --data") from None
    return samples_of(task, source.shape, seed)


def samples_of(task: Task, shape: tuple[int, ...], seed: int, most: int = COMPARISON) -> Samples:
    """Of a task's train part to calibrate, of its val part to compare, `most` samples; the test part is not looked at.

    shape: of the network's first input, with its batch.
    """
    size = (shape[-2], shape[-1]) if len(shape) == 4 else None
    own, held = (pool_of(given_of(task, part, task.spec.name), task.spec, size) for part in ("train", "val"))
    few, many = _of_both(own, held, seed, most)
    told = f"{task.spec.source}, SHA-256 {task.spec.digest}"
    return Samples(few.samples, many.samples, many.targets, task.spec, told=told, task=task.spec)


class _Part(NamedTuple):
    """Some of a pool's samples, and what is right of them."""

    samples: Lazy
    targets: Any

    @classmethod
    def of(cls, pool: Pool, rows: Sequence[int], places: Sequence[int], make: Make) -> Self:
        """rows: of the pool.   places: theirs among those that `make` was made of."""
        targets = None if pool.targets is None else mapped(lambda values: values[list(rows)], pool.targets)
        return cls(Lazy(places, make), targets)


def _of_both(few: Pool, many: Pool, seed: int, most: int) -> tuple[_Part, _Part]:
    found = []
    for pool, name, count in ((few, "calibration", CALIBRATION), (many, "comparison", most)):
        rows = _some(name, pool.count, count, seed)
        found.append(_Part.of(pool, rows, range(len(rows)), pool.hold(rows)))
    return found[0], found[1]


def _parts(pools: Sequence[Pool], seed: int) -> tuple[_Part, _Part]:
    """What calibrates, and what compares."""
    if len(pools) > 1:
        return _of_both(pools[0], pools[1], seed, COMPARISON)
    (pool,) = pools
    order = _some("data", pool.count, CALIBRATION + COMPARISON, seed)
    share = max(1, min(CALIBRATION, len(order) // 5))
    make = pool.hold(order)  # read at once, so that all faults are told at once
    return (
        _Part.of(pool, order[:share], range(share), make),
        _Part.of(pool, order[share:], range(share, len(order)), make),
    )


def _some(name: str, count: int, most: int, seed: int) -> list[int]:
    return rng(seed, "export", name).sample(range(count), min(most, count))
