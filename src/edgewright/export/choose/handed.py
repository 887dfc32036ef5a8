"""Data that is handed over with a network.

A network of ours says which task it learned. Data for it is read as the task's own is, by the same sources: images:DIR
is images, arrays:FILE.npz holds x_train, y_train, ... in the units that it learned from. For others see `foreign`.
"""

from typing import Any

from torch import Tensor

from edgewright.core.errors import BadInput
from edgewright.core.progress import say
from edgewright.core.tensors import Size, TensorSpec, as_tree, named
from edgewright.export.choose.foreign import foreign_arrays, pixel_spec
from edgewright.export.choose.pools import COMPARED, LEAST, Handed, Numbers, Pool, pool_of
from edgewright.export.ship.source import Source
from edgewright.task.base import InputSpec, TaskSpec, kind_of
from edgewright.task.load import choices, read_given, source_of
from edgewright.task.source import Given
from edgewright.task.targets import as_learned


def pools_of(source: Source, data: str, mean: Numbers, std: Numbers) -> Handed:
    """What `data` names, for a network.   Errors: BadInput for what is not there, or is not what it takes."""
    place = source_of(data)
    if place is None:
        raise BadInput(f"unknown data '{data}': give {choices()}")
    learned = _learned(source)
    if learned is None and place[0].prefix == "arrays":
        found = foreign_arrays(source, place[1], mean, std)
    else:
        found = _given(source, data, learned, mean, std)
    count = sum(pool.count for pool in found.pools)
    if count < LEAST:
        raise BadInput(f"{place[1]}: {count or 'no'} {found.what}; some to calibrate and some to compare are needed")
    return found


def _learned(source: Source) -> TaskSpec | None:
    """The task whose inputs the network takes."""
    spec, taken = source.spec, {one.name: one for one in source.inputs}
    if spec is None or (len(taken) > 1 and {*taken} != {one.name for one in spec.inputs}):
        return None
    found = named(as_tree(taken), spec.inputs)
    fits = len(taken) == len(spec.inputs) and all(_takes(found[one.name], one) for one in spec.inputs)
    return spec if fits else None


def _takes(taken: TensorSpec, stored: InputSpec) -> bool:
    return taken.dtype == "float32" and len(taken.shape) == 1 + len(stored.shape) and taken.shape[1] == stored.shape[0]


def _given(source: Source, data: str, learned: TaskSpec | None, mean: Numbers, std: Numbers) -> Handed:
    """As a task reads it: the network's own, or one of images of the network's shape."""
    assumed = mean is None and std is None and learned is None
    spec = learned if learned and mean is None and std is None else pixel_spec(source, learned, mean, std)
    parts = _given_parts(data, spec)
    wanted = [one.name for one in learned.signature.outputs] if learned else []
    task = learned if wanted and wanted == [one.name for one in source.outputs] else None
    size = next(((one.shape[2], one.shape[3]) for one in source.inputs if len(one.shape) == 4), None)
    pools, count = [], None
    for given in parts:
        targets = _by_folder(source, given, data) if task is None else _known(given, task, data)
        count = len(given.names[""]) if task is None and targets is not None else None
        pool = pool_of(given, spec, _fixed(size), source.inputs)
        pools.append(Pool(pool.count, pool.hold, targets))
    what = "images" if data.startswith("images:") else "samples"
    return Handed(tuple(pools), what, spec, assumed, task, count)


def _fixed(size: tuple[int | None, int | None] | None) -> Size | None:
    return None if size is None else (size[0] or 1, size[1] or 1)


def _given_parts(data: str, spec: TaskSpec) -> tuple[Given, ...]:
    train = read_given(data, spec, "train")
    if train.part == "train":
        for name in COMPARED:
            other = read_given(data, spec, name)
            if other.part == name:
                return train, other
    return (train,)


def _known(given: Given, task: TaskSpec, where: str) -> Any:
    """Targets in the task's own numbers."""
    kind = kind_of(task)
    whole = kind.aligned and isinstance(given.targets, Tensor) and given.targets.ndim == 1  # folders of whole images
    return None if given.targets is None or whole else as_learned(given.targets, given.names, kind, where)


def _by_folder(source: Source, given: Given, where: str) -> Tensor | None:
    """Targets for a network whose task nobody knows: where there are as many as one of its outputs tells apart."""
    if not isinstance(given.targets, Tensor) or given.targets.ndim != 1:
        return None
    wide, found = [_columns(spec) for spec in source.outputs], len(given.names.get("", ()))
    if found in wide:
        return given.targets
    told = " and ".join(map(str, wide))
    say(f"{where}: {found} sub-folders for {told} outputs; targets are left out, agreement alone is told")
    return None


def _columns(output: TensorSpec) -> int:
    """How many things an output can tell apart: as many as its row has numbers, two by one number; 0 for others."""
    wide = [size for size in output.shape if size != 1]
    if len(wide) > 1 or None in wide:
        return 0
    return next((size for size in wide if size), 2)
