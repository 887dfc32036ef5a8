"""Data for a network of which nobody knows how its inputs were made: arrays as it takes them, and images by guess.

Arrays are called as a task's are (x, x_test, x.NAME), or as the input is, and are taken as they are, but for bytes that
are images where --mean and --std say how these become inputs. Image files are scaled by these too, else by ImageNet's.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgewright.core.errors import BadInput
from edgewright.core.npz import opened_npz
from edgewright.core.progress import say
from edgewright.core.tensors import TensorSpec, leaves
from edgewright.export.choose.pools import COMPARED, LEAST, Handed, Numbers, Pool
from edgewright.export.running import Sample
from edgewright.export.ship.source import Source
from edgewright.task.base import InputSpec, TaskSpec, normalise
from edgewright.task.named_arrays import key
from edgewright.task.sources.arrays import channels_first, read_labels, read_pixels

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHANNELS = (1, 3, 4)  # of images


def pixel_spec(source: Source, learned: TaskSpec | None, mean: Numbers, std: Numbers) -> TaskSpec:
    """A task of images of the network's shape: mean and std in units of stored bytes."""
    shape = source.shape
    if len(source.inputs) != 1 or len(shape) != 4 or shape[1] not in CHANNELS:
        told = ", ".join(",".join(map(str, spec.shape)) for spec in source.inputs)
        raise BadInput(f"{source.path}: takes inputs of shape {told}, not images; give --data arrays:FILE.npz")
    if source.inputs[0].dtype != "float32":
        raise BadInput(f"{source.path}: takes {source.inputs[0].dtype}, not scaled images; give --data arrays:FILE.npz")
    if mean is None and std is None:
        say("the network does not say how its inputs were scaled; ImageNet's mean and std are taken (--mean, --std)")
    means, stds = mean or IMAGENET_MEAN, std or IMAGENET_STD
    if shape[1] == 1:
        means, stds = (means if mean else (0.5,)), (stds if std else (0.5,))
    if len(means) != shape[1] or len(stds) != shape[1] or min(stds) <= 0:
        raise BadInput(f"--mean and --std need {shape[1]} numbers each with commas between, and no std of 0")
    white = learned.inputs[0].white if learned and learned.inputs[0].white else 255.0
    mean_, std_ = (tuple(white * value for value in values) for values in (means, stds))
    if learned is not None:
        only = learned.inputs[0].model_copy(update={"mean": mean_, "std": std_})
        return learned.model_copy(update={"inputs": (only,)})
    only = InputSpec(shape=shape[1:], mean=mean_, std=std_)
    return TaskSpec(
        name="export", source="images", inputs=(only,), names=("?", "??"),
        flip=False, num_train=0, num_val=0, num_test=0, digest="",
    )  # fmt: skip


def foreign_arrays(source: Source, path: Path, mean: Numbers, std: Numbers) -> Handed:
    """One array for each input, by its name, with or without a part; that of an only input needs no name."""
    with opened_npz(path) as file:
        parts = {part: keys for part in ("", "train", *COMPARED) if (keys := _keys(file.files, source, part))}
        compared = next((part for part in COMPARED if part in parts), None)
        if "train" in parts and compared:
            wanted = ("train", compared)
        elif parts:
            wanted = (next(iter(parts)),)
        else:
            raise BadInput(f"{path}: {_lacks(source, file.files)}")
        scaled = _Scaled(source, mean, std)
        pools = tuple(
            _array_pool(
                source, path, {name: file[name] for name in parts[part]}, _target(file, path, part, parts), scaled
            )
            for part in wanted
        )
    return Handed(pools, spec=scaled.spec)


def _keys(there: Sequence[str], source: Source, part: str) -> list[str] | None:
    """What the arrays of a part are called, one for each input; None where they are not there."""
    names = [spec.name for spec in source.inputs]
    ways = [[key("x", part, name) for name in names]]
    ways += [[key("x", part)]] if len(names) == 1 else []
    ways += [] if part else [names]
    return next((way for way in ways if {*way} <= {*there}), None)


def _target(file: Any, path: Path, part: str, parts: dict[str, list[str]]) -> Tensor | None:
    name = key("y", part)
    return read_labels(file[name], f"{path}: {name}") if name in file.files and name not in parts[part] else None


def _lacks(source: Source, there: Sequence[str]) -> str:
    has = f" (it has {', '.join(there) or 'nothing'})"
    if len(source.inputs) == 1:
        return f"has no array x; give x, the inputs as the network takes them{has}"
    missing = [spec.name for spec in source.inputs if spec.name not in there]
    return f"has no array {', '.join(missing)}; give one for each input, as the network takes them{has}"


class _Scaled:
    """How bytes become inputs, where that is said."""

    def __init__(self, source: Source, mean: Numbers, std: Numbers) -> None:
        self.source, self.mean, self.std = source, mean, std
        self.spec: TaskSpec | None = None
        self.asked = (mean is not None or std is not None) and len(source.inputs) == 1  # else nobody knows the figures

    def __call__(self, pixels: Tensor) -> np.ndarray:
        """(1, C, H, W) of any size to what the network takes."""
        self.spec = self.spec or pixel_spec(self.source, None, self.mean, self.std)
        return leaves(normalise(pixels, self.spec))[0].numpy()


def _array_pool(
    source: Source, path: Path, arrays: dict[str, np.ndarray], targets: Tensor | None, scaled: _Scaled
) -> Pool:
    columns = [_column(x, spec, f"{path}: {name}", scaled)
               for (name, x), spec in zip(arrays.items(), source.inputs, strict=True)]  # fmt: skip
    first, count = next(iter(arrays)), len(next(iter(arrays.values())))
    for name, x in arrays.items():
        if len(x) != count:
            raise BadInput(f"{path}: {first} has {count} samples and {name} {len(x)}")
    if count < LEAST:
        raise BadInput(f"{path}: {first} is empty or one sample; some to calibrate and some to compare are needed")
    if targets is not None and len(targets) != count:
        raise BadInput(f"{path}: {first} has {count} samples and y {len(targets)}")

    def hold(rows: Sequence[int]) -> Callable[[int], Sample]:
        return lambda place: [column(rows[place]) for column in columns]

    return Pool(count, hold, targets)


def _column(x: np.ndarray, spec: TensorSpec, where: str, scaled: _Scaled) -> Callable[[int], np.ndarray]:
    """From a row to what the network takes as that input."""
    images = _bytes(x, spec, where) if scaled.asked else None
    if images is not None:
        scaled(images[:1])  # what cannot be scaled is said now
        return lambda row: scaled(images[row : row + 1])
    array = _checked(x, spec, where)
    if spec.shape[:1] == (1,):  # the samples stand in the place of the batch
        return lambda row: array[row : row + 1]
    return lambda row: np.asarray(array[row])


def _is_map(spec: TensorSpec) -> bool:
    return len(spec.shape) == 4 and spec.shape[1] in CHANNELS and spec.dtype == "float32"


def _bytes(x: np.ndarray, spec: TensorSpec, where: str) -> Tensor | None:
    """(N, C, H, W) of any size where these are bytes that are images, and the network takes such."""
    if not _is_map(spec) or x.ndim not in (3, 4) or not x.size or x.dtype.kind not in "uib":
        return None
    pixels = read_pixels(x, where)
    images = channels_first(pixels, where) if pixels.dtype == torch.uint8 else pixels
    return images if images.dtype == torch.uint8 and images.shape[1] == spec.shape[1] else None


def _checked(x: np.ndarray, spec: TensorSpec, where: str) -> np.ndarray:
    """In the input's own type.   Errors: BadInput where it is of another shape or kind, or not finite."""
    wanted, form = np.dtype(spec.dtype), spec.shape[1:] if spec.shape[:1] == (1,) else spec.shape
    if _is_map(spec) and x.ndim in (3, 4) and x.size and x.dtype.kind in "fiub" and tuple(x.shape[1:]) != form:
        turned = channels_first(torch.from_numpy(np.ascontiguousarray(x)), where).numpy()
        x = turned if tuple(turned.shape[1:]) == form else x
    if x.ndim < 1 or tuple(x.shape[1:]) != form:
        raise BadInput(f"{where} has shape {x.shape}; the network takes ({', '.join(map(str, ('N', *form)))})")
    if wanted.kind == "f":
        if x.dtype.kind != "f":
            more = "; for bytes that are images give --mean and --std" if _is_map(spec) else ""
            raise BadInput(f"{where} must be floats, scaled as the network takes them (it is {x.dtype}){more}")
        if not np.isfinite(x).all():
            raise BadInput(f"{where} holds values that are not finite")
    elif x.dtype.kind not in "iub":
        raise BadInput(f"{where} must be whole numbers, which the network takes as {wanted} (it is {x.dtype})")
    elif x.size and wanted.kind in "iu" and (x.min() < np.iinfo(wanted).min or x.max() > np.iinfo(wanted).max):
        raise BadInput(f"{where} holds {x.min()} to {x.max()}, more than {wanted}, which the network takes, can hold")
    return np.ascontiguousarray(x, dtype=wanted)
