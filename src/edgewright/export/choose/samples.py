"""Real inputs to calibrate and to compare on: of a run's own task, or of data that comes with an ONNX file.

Calibration and comparison never share an image. Pixels are kept as they came and turned into inputs one at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgewright.core.errors import BadInput
from edgewright.core.home import user_path
from edgewright.core.npz import opened_npz
from edgewright.core.progress import say
from edgewright.core.seed import rng
from edgewright.core.tensors import Size, TensorSpec, leaves, mapped
from edgewright.export.load import load_run_task
from edgewright.export.meaning import Known, Meaning, Unknown
from edgewright.export.running import Sample
from edgewright.export.ship.source import Source
from edgewright.task.base import InputSpec, Split, Task, TaskSpec, kind_of, normalise
from edgewright.task.image_files import expand_images, read_images
from edgewright.task.sources.arrays import read_labels

CALIBRATION = 128
COMPARISON = 1000
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Make = Callable[[int], Sample]


@dataclass(frozen=True)
class Samples:
    """calibration, comparison: as the network takes them, batch 1.

    targets: of the comparison, where known: the tree of the task's, or of a network whose task nobody knows its classes
    (N,).   spec: how images became inputs; None where they came as arrays.   assumed: its mean and std are ImageNet's,
    for want of others.   told: what the data is, in words that name no folder.   task: what the network learned, where
    that is known.   classes: how many there are otherwise, where known.
    """

    calibration: Sequence[Sample]
    comparison: Sequence[Sample]
    targets: Any = None
    spec: TaskSpec | None = None
    assumed: bool = False
    told: str = "arrays that were handed over"
    task: TaskSpec | None = None
    classes: int | None = None

    @property
    def meaning(self) -> Meaning:
        """What is known of the outputs for the comparison."""
        if self.task is None:
            return Unknown(self.targets, self.classes)
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
        data: None for a run's own task (its train part calibrates, its val part compares; the test part is not looked
            at), images:DIR (a folder for each class in the order of the network's outputs, or no folders and no
            labels), or arrays:FILE.npz with x and, if wanted, y: inputs as the network takes them, (N, ...) float.
        mean, std: of each channel, for pixels between 0 and 1. Default: those of the task that the network learned, and
            where it does not say, ImageNet's.
        seed: which images calibrate and which compare.
    Errors: BadInput for data that is missing, empty, or of another shape than the network's input.
    """
    if data is None:
        if source.run is None:
            raise BadInput(f"{source.path}: say on which data it is to be compared: --data images:DIR")
        return _of_task(source, seed)
    kind, _, place = data.partition(":")
    if kind == "images" and place:
        return _of_folder(source, user_path(place), mean, std, seed)
    if kind == "arrays" and place:
        return _of_arrays(source, user_path(place), seed)
    raise BadInput(f"unknown data '{data}': give images:DIR or arrays:FILE.npz")


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

    def part(split: Split, most: int, name: str) -> tuple[Lazy, list[int]]:
        rows = rng(seed, "export", name).sample(range(len(split)), min(most, len(split)))
        return Lazy(rows, lambda row: _sample(split.take(slice(row, row + 1)).inputs, task.spec, size)), rows

    calibration, _ = part(task.train, CALIBRATION, "calibration")
    comparison, rows = part(task.val, most, "comparison")
    told = f"{task.spec.source}, SHA-256 {task.spec.digest}"
    targets = mapped(lambda values: values[rows], task.val.targets)
    return Samples(calibration, comparison, targets, task.spec, told=told, task=task.spec)


def _sample(inputs: Any, spec: TaskSpec, size: Size | None) -> Sample:
    """One sample of raw inputs, (1, ...) each, as the network takes it."""
    return [np.ascontiguousarray(values.numpy()) for values in leaves(normalise(inputs, spec, size))]


def _of_folder(
    source: Source, folder: Path, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, seed: int
) -> Samples:
    shape = source.shape
    if len(source.inputs) != 1 or len(shape) != 4 or shape[1] not in (1, 3, 4):
        told = ", ".join(",".join(map(str, spec.shape)) for spec in source.inputs)
        raise BadInput(f"{source.path}: takes inputs of shape {told}, not images; give --data arrays:FILE.npz")
    if source.inputs[0].dtype != "float32":
        raise BadInput(f"{source.path}: takes {source.inputs[0].dtype}, not scaled images; give --data arrays:FILE.npz")
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder")
    files, labels = _listed(source, folder)
    if len(files) < 2:
        raise BadInput(f"{folder}: {len(files) or 'no'} images; some to calibrate and some to compare are needed")
    order = rng(seed, "export", "folder").sample(range(len(files)), min(len(files), CALIBRATION + COMPARISON))
    spec = _pixel_spec(source, mean, std)
    pixels = read_images([files[index] for index in order], spec)
    few = _share(len(order))
    make = lambda row: _sample(pixels[row : row + 1], spec, spec.size)  # noqa: E731
    rows, task = range(len(order)), _task(source)
    known = None if labels is None else torch.tensor([labels[index] for index in order[few:]])
    told = f"{len(order)} images, {'without labels' if known is None else 'a folder for each class'}"
    assumed = mean is None and std is None and source.spec is None
    count = None if labels is None else max(labels) + 1
    return Samples(Lazy(rows[:few], make), Lazy(rows[few:], make), known, spec, assumed, told, task, count)


def _task(source: Source) -> TaskSpec | None:
    """The task that the network says it learned, if its outputs are what that asks for."""
    if source.spec is None:
        return None
    wanted = [spec.name for spec in source.spec.signature.outputs]
    return source.spec if wanted == [spec.name for spec in source.outputs] else None


def _share(count: int) -> int:
    """How many of `count` samples calibrate: a fifth, at most CALIBRATION."""
    return max(1, min(CALIBRATION, count // 5))


def _listed(source: Source, folder: Path) -> tuple[list[Path], list[int] | None]:
    """The image files and, where there is one sub-folder for each output of the network, their labels."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes or (source.spec is not None and kind_of(source.spec).aligned):  # folders are classes of whole images
        return expand_images([folder]), None
    outputs = [_columns(spec) for spec in source.outputs]
    if source.spec is not None:  # the network says what its outputs are called
        order = {name: label for label, name in enumerate(source.spec.names)}
        strange = [path.name for path in classes if path.name not in order]
        if strange:
            raise BadInput(f"{folder}: the network knows no class '{strange[0]}'")
        labels = {path: order[path.name] for path in classes}
    elif len(classes) in outputs:
        labels = {path: label for label, path in enumerate(classes)}
    else:
        told = " and ".join(map(str, outputs))
        say(f"{folder}: {len(classes)} sub-folders for {told} outputs; labels are left out, agreement alone is told")
        return expand_images([folder]), None
    listed = [(file, labels[path]) for path in classes for file in expand_images([path])]
    return [file for file, _ in listed], [label for _, label in listed]


def _columns(output: TensorSpec) -> int:
    """How many classes an output can tell apart: as many as its row has numbers, two by one number; 0 for others."""
    wide = [size for size in output.shape if size != 1]
    if len(wide) > 1 or None in wide:
        return 0
    return next((size for size in wide if size), 2)


def _pixel_spec(source: Source, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> TaskSpec:
    """How images become inputs: mean and std in units of stored bytes, as a task has them."""
    channels, *_ = shape = source.shape[1:]
    if mean is None and std is None and source.spec is not None:
        only = source.spec.input.model_copy(update={"shape": shape})
        return source.spec.model_copy(update={"inputs": (only,)})
    if mean is None and std is None:
        say("the network does not say how its inputs were scaled; ImageNet's mean and std are taken (--mean, --std)")
    means, stds = mean or IMAGENET_MEAN, std or IMAGENET_STD
    if channels == 1:
        means, stds = (means if mean else (0.5,)), (stds if std else (0.5,))
    if len(means) != channels or len(stds) != channels or min(stds) <= 0:
        raise BadInput(f"--mean and --std need {channels} numbers each with commas between, and no std of 0")
    mean_, std_ = (tuple(255 * value for value in values) for values in (means, stds))
    only = InputSpec(shape=shape, mean=mean_, std=std_)
    return TaskSpec(
        name="export", source="images", inputs=(only,), names=("?", "??"),
        flip=False, num_train=0, num_val=0, num_test=0, digest="",
    )  # fmt: skip


def _of_arrays(source: Source, path: Path, seed: int) -> Samples:
    """One array for each input, by its name; that of an only input may be called x."""
    names = [spec.name for spec in source.inputs]
    with opened_npz(path) as file:
        keys = ["x"] if len(names) == 1 and names[0] not in file.files else names
        missing = [key for key in keys if key not in file.files]
        if missing:
            raise BadInput(f"{path}: has no array {', '.join(missing)}; give {_wanted(source)}")
        arrays = [_checked(file[key], spec, f"{path}: {key}") for key, spec in zip(keys, source.inputs, strict=True)]
        has_labels = "y" in file.files and "y" not in keys
        y, task = None, _task(source)
        if has_labels:
            y = _targets(file["y"], f"{path}: y", task)
    count = len(arrays[0])
    odd = next((index for index, array in enumerate(arrays) if len(array) != count), None)
    if odd is not None:
        raise BadInput(f"{path}: {keys[0]} has {count} samples and {keys[odd]} {len(arrays[odd])}")
    if count < 2:
        raise BadInput(f"{path}: {keys[0]} is empty or one sample; some to calibrate and some to compare are needed")
    if y is not None and len(y) != count:
        raise BadInput(f"{path}: {keys[0]} has {count} samples and y {len(y)}")
    order = rng(seed, "export", "arrays").sample(range(count), min(count, CALIBRATION + COMPARISON))
    few = _share(len(order))

    def make(row: int) -> Sample:
        return [array[row : row + 1] if _batched(spec) else np.asarray(array[row])
                for array, spec in zip(arrays, source.inputs, strict=True)]  # fmt: skip

    return Samples(Lazy(order[:few], make), Lazy(order[few:], make), None if y is None else y[order[few:]], task=task)


def _targets(y: np.ndarray, where: str, task: TaskSpec | None) -> torch.Tensor:
    """What is right of each sample: a class, or a map where the task's kind has such."""
    if task is not None and kind_of(task).aligned:
        if y.dtype.kind not in "iu":
            raise BadInput(f"{where} must be maps of whole numbers (it is {y.dtype})")
        return torch.from_numpy(np.ascontiguousarray(y))
    labels = read_labels(y, where)
    if task is not None and len(labels) and int(labels.max()) >= len(task.names):
        raise BadInput(
            f"{where} has the label {int(labels.max())}, and the network knows {len(task.names)}; labels count from 0"
        )
    return labels


def _wanted(source: Source) -> str:
    if len(source.inputs) == 1:
        return "x, the inputs as the network takes them"
    return "one for each input, as the network takes them"


def _batched(spec: TensorSpec) -> bool:
    """Whether an input's first dimension is the batch, in whose place samples stand in an array."""
    return spec.shape[:1] == (1,)


def _checked(x: np.ndarray, spec: TensorSpec, where: str) -> np.ndarray:
    """In the input's own type.   Errors: BadInput where it is of another shape or kind, or not finite."""
    form = spec.shape[1:] if _batched(spec) else spec.shape
    if tuple(x.shape[1:]) != form or x.ndim < 1:
        raise BadInput(f"{where} has shape {x.shape}; the network takes ({', '.join(map(str, ('N', *form)))})")
    wanted = np.dtype(spec.dtype)
    if wanted.kind == "f":
        if x.dtype.kind != "f":
            raise BadInput(f"{where} must be floats, scaled as the network takes them (it is {x.dtype})")
        if not np.isfinite(x).all():
            raise BadInput(f"{where} holds values that are not finite")
    elif x.dtype.kind not in "iub":
        raise BadInput(f"{where} must be whole numbers, which the network takes as {wanted} (it is {x.dtype})")
    elif x.size and wanted.kind in "iu" and (x.min() < np.iinfo(wanted).min or x.max() > np.iinfo(wanted).max):
        raise BadInput(f"{where} holds {x.min()} to {x.max()}, more than {wanted}, which the network takes, can hold")
    return np.ascontiguousarray(x, dtype=wanted)
