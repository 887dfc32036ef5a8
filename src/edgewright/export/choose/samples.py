"""Real inputs to calibrate and to compare on: of a run's own task, or of data that comes with an ONNX file.

Calibration and comparison never share an image. Pixels are kept as they came and turned into inputs one at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgewright.core.errors import BadInput
from edgewright.core.home import user_path
from edgewright.core.npz import opened_npz
from edgewright.core.progress import say
from edgewright.core.seed import rng
from edgewright.export.load import load_run_task
from edgewright.export.ship.source import Source
from edgewright.task.base import InputSpec, Split, Task, TaskSpec, normalise
from edgewright.task.sources.arrays import read_labels
from edgewright.task.sources.images import expand_images, read_images

CALIBRATION = 128
COMPARISON = 1000
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Inputs = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Samples:
    """calibration, comparison: inputs (1, ...) float32 as the network takes them.   labels: of the comparison, (N,).

    spec: how images became inputs; None where they came as arrays.   assumed: its mean and std are ImageNet's, for want
    of others.   told: what the data is, in words that name no folder.
    """

    calibration: Sequence[np.ndarray]
    comparison: Sequence[np.ndarray]
    labels: np.ndarray | None
    spec: TaskSpec | None = None
    assumed: bool = False
    told: str = "arrays that were handed over"


class Lazy(Sequence[np.ndarray]):
    """Inputs made when asked for, so that a thousand photographs are held as bytes."""

    def __init__(self, rows: Sequence[int], make: Inputs) -> None:
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
    """Of a task's train part to calibrate, of its val part to compare, `most` images; the test part is not looked at.

    shape: of the network's input, with its batch.
    """

    def part(split: Split, most: int, name: str) -> tuple[Lazy, list[int]]:
        rows = rng(seed, "export", name).sample(range(len(split)), min(most, len(split)))
        return Lazy(rows, lambda row: _input(split.take(slice(row, row + 1)).inputs, task.spec, shape)), rows

    calibration, _ = part(task.train, CALIBRATION, "calibration")
    comparison, rows = part(task.val, most, "comparison")
    told = f"{task.spec.source}, SHA-256 {task.spec.digest}"
    return Samples(calibration, comparison, task.val.targets[rows].numpy(), task.spec, told=told)


def _input(images: torch.Tensor, spec: TaskSpec, shape: tuple[int, ...]) -> np.ndarray:
    return np.ascontiguousarray(normalise(images, spec, (shape[-2], shape[-1])).numpy())


def _of_folder(
    source: Source, folder: Path, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, seed: int
) -> Samples:
    shape = source.shape
    if len(shape) != 4 or shape[1] not in (1, 3, 4) or shape[2] != shape[3]:
        told = ",".join(map(str, shape))
        raise BadInput(f"{source.path}: takes inputs of shape {told}, not square images; give --data arrays:FILE.npz")
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder")
    files, labels = _listed(source, folder)
    if len(files) < 2:
        raise BadInput(f"{folder}: {len(files) or 'no'} images; some to calibrate and some to compare are needed")
    order = rng(seed, "export", "folder").sample(range(len(files)), min(len(files), CALIBRATION + COMPARISON))
    spec = _pixel_spec(source, mean, std)
    pixels = read_images([files[index] for index in order], spec)
    few = _share(len(order))
    make = lambda row: _input(pixels[row : row + 1], spec, shape)  # noqa: E731
    rows = range(len(order))
    known = None if labels is None else np.array([labels[index] for index in order[few:]])
    told = f"{len(order)} images, {'without labels' if known is None else 'a folder for each class'}"
    assumed = mean is None and std is None and source.spec is None
    return Samples(Lazy(rows[:few], make), Lazy(rows[few:], make), known, spec, assumed, told)


def _share(count: int) -> int:
    """How many of `count` samples calibrate: a fifth, at most CALIBRATION."""
    return max(1, min(CALIBRATION, count // 5))


def _listed(source: Source, folder: Path) -> tuple[list[Path], list[int] | None]:
    """The image files and, where there is one sub-folder for each output of the network, their labels."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        return expand_images([folder]), None
    outputs = _num_outputs(source)
    if source.spec is not None:  # the network says what its outputs are called
        order = {name: label for label, name in enumerate(source.spec.names)}
        strange = [path.name for path in classes if path.name not in order]
        if strange:
            raise BadInput(f"{folder}: the network knows no class '{strange[0]}'")
        labels = {path: order[path.name] for path in classes}
    elif len(classes) == outputs:
        labels = {path: label for label, path in enumerate(classes)}
    else:
        say(f"{folder}: {len(classes)} sub-folders for {outputs} outputs; labels are left out, agreement alone is told")
        return expand_images([folder]), None
    listed = [(file, labels[path]) for path in classes for file in expand_images([path])]
    return [file for file, _ in listed], [label for _, label in listed]


def _num_outputs(source: Source) -> int:
    dims = source.model.graph.output[0].type.tensor_type.shape.dim
    return dims[-1].dim_value if len(dims) else 0


def _pixel_spec(source: Source, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> TaskSpec:
    """How images become inputs: mean and std in units of stored bytes, as a task has them."""
    channels, side = source.shape[1], source.shape[-1]
    if mean is None and std is None and source.spec is not None:
        only = source.spec.input.model_copy(update={"shape": (channels, side, side)})
        return source.spec.model_copy(update={"inputs": (only,)})
    if mean is None and std is None:
        say("the network does not say how its inputs were scaled; ImageNet's mean and std are taken (--mean, --std)")
    means, stds = mean or IMAGENET_MEAN, std or IMAGENET_STD
    if channels == 1:
        means, stds = (means if mean else (0.5,)), (stds if std else (0.5,))
    if len(means) != channels or len(stds) != channels or min(stds) <= 0:
        raise BadInput(f"--mean and --std need {channels} numbers each with commas between, and no std of 0")
    mean_, std_ = (tuple(255 * value for value in values) for values in (means, stds))
    only = InputSpec(shape=(channels, side, side), mean=mean_, std=std_)
    return TaskSpec(
        name="export", source="images", inputs=(only,), names=("?", "??"),
        flip=False, num_train=0, num_val=0, num_test=0, digest="",
    )  # fmt: skip


def _of_arrays(source: Source, path: Path, seed: int) -> Samples:
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    with opened_npz(path) as file:
        if "x" not in file.files:
            raise BadInput(f"{path}: has no array x, the inputs as the network takes them")
        x = file["x"]
        y = read_labels(file["y"], f"{path}: y").numpy() if "y" in file.files else None
    if x.ndim != len(source.shape) or tuple(x.shape[1:]) != source.shape[1:]:
        raise BadInput(f"{path}: x has shape {x.shape}; the network takes (N, {', '.join(map(str, source.shape[1:]))})")
    if len(x) < 2:
        raise BadInput(f"{path}: x is empty or one sample; some to calibrate and some to compare are needed")
    if y is not None and len(y) != len(x):
        raise BadInput(f"{path}: x has {len(x)} samples and y {len(y)}")
    if x.dtype.kind != "f":
        raise BadInput(f"{path}: x must be floats, scaled as the network takes them (it is {x.dtype})")
    if not np.isfinite(x).all():
        raise BadInput(f"{path}: x holds values that are not finite")
    if y is not None and y.max() >= (classes := _num_outputs(source)) > 0:
        raise BadInput(f"{path}: y has the label {y.max()}; the network has {classes} outputs, labels from 0")
    order = rng(seed, "export", "arrays").sample(range(len(x)), min(len(x), CALIBRATION + COMPARISON))
    few = _share(len(order))
    make = lambda row: np.ascontiguousarray(x[row : row + 1], dtype=np.float32)  # noqa: E731
    return Samples(Lazy(order[:few], make), Lazy(order[few:], make), None if y is None else y[order[few:]])
