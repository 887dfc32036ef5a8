"""A task from a map-style torch Dataset whose items are (image, label)."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from edgewright.core.errors import BadInput
from edgewright.core.progress import progress
from edgewright.core.tensors import Size, sides
from edgewright.task.assemble import Described, assemble, fit_size, is_text, to_side, to_size
from edgewright.task.base import Split, Task, Wishes


def dataset(data: Any, wishes: Wishes) -> Task:
    """Materialise a Dataset, or a pair (train, test) of them.

    An image is a tensor (C, H, W) or (H, W), a PIL image, or an ndarray (H, W, C), (C, H, W) or (H, W); uint8 stays
    uint8, other numbers become float32. A label is an integer. Images of unequal sizes are cropped to their central
    square and resized to the median shorter side; equal ones keep their shape. Class
    names come from the Dataset's `classes`, if it has them. Flips: on with three or more channels, unless the names are
    all numbers or single letters. Random transforms inside the Dataset are drawn once, here.
    """
    pair = isinstance(data, (tuple, list))
    if pair and len(data) != 2:
        raise BadInput(f"dataset: a tuple of Datasets must be (train, test), not {len(data)} of them")
    first, second = (data[0], data[1]) if pair else (data, None)
    train_items = _items(first, "dataset")
    test_items = None if second is None else _items(second, "test dataset")
    size = _size([*train_items, *(test_items or [])]) if wishes.resolution is None else sides(wishes.resolution)
    train = _split(train_items, size, "dataset")
    test = None if test_items is None else _split(test_items, size, "test dataset")
    given = _names(first)
    classes = given or [str(label) for label in range(int(train.targets.max()) + 1)]
    if int(train.targets.max()) >= len(classes):
        raise BadInput(f"dataset: label {int(train.targets.max())} is out of range: it names {len(classes)} classes")
    if test is not None:
        _check_test(train, test)
    described = Described(
        name=type(first).__name__,
        source="dataset",
        names=tuple(classes),
        flip=train.inputs.shape[1] >= 3 and not (given is not None and is_text(classes)),
    )
    return assemble(described, wishes, train=train, val=None, test=test)


def _items(data: Any, where: str) -> list[tuple[torch.Tensor, int]]:
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise BadInput(f"{where}: {type(data).__name__} is not map-style; it needs __len__ and __getitem__")
    if len(data) == 0:
        raise BadInput(f"{where}: {type(data).__name__} is empty")
    items = []
    with progress("Reading the data set", total=len(data)) as bar:
        for index in range(len(data)):
            item = data[index]
            if not (isinstance(item, (tuple, list)) and len(item) == 2):
                raise BadInput(f"{where}: item {index} is not a pair (image, label)")
            items.append((_image(item[0], f"{where}: item {index}"), _label(item[1], f"{where}: item {index}")))
            bar.advance()
    return items


def _image(x: Any, where: str) -> torch.Tensor:
    if isinstance(x, Image.Image):
        gray = x.mode in ("1", "L", "LA", "I;16", "I", "F")
        x = np.array(x.convert("L" if gray else "RGB"))
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "iufb":
            raise BadInput(f"{where}: the image holds {x.dtype}, not numbers")
        last = x.ndim == 3 and x.shape[2] in (1, 3, 4) and (x.shape[0] not in (1, 3, 4) or x.shape[0] == x.shape[1])
        x = torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1) if last else x))
    if not isinstance(x, torch.Tensor):
        raise BadInput(f"{where}: the image is a {type(x).__name__}, not a tensor, an ndarray or a PIL image")
    x = x.detach().cpu()
    x = x.unsqueeze(0) if x.ndim == 2 else x
    if x.ndim != 3 or x.numel() == 0:
        raise BadInput(f"{where}: the image has shape {tuple(x.shape)}, not (channels, height, width)")
    if x.dtype == torch.uint8:
        return x.clone()
    x = x.to(torch.float32, copy=True)
    if not x.isfinite().all():
        raise BadInput(f"{where}: the image has {int((~x.isfinite()).sum())} values that are NaN or infinite")
    return x


def _label(y: Any, where: str) -> int:
    if isinstance(y, (torch.Tensor, np.ndarray, np.generic)) and np.ndim(y) == 0:
        y = y.item()
    if not isinstance(y, int):
        raise BadInput(f"{where}: the label is {y!r}, not an integer")
    if y < 0:
        raise BadInput(f"{where}: the label {y} is negative; classes count from 0")
    return int(y)


def _size(items: Sequence[tuple[torch.Tensor, int]]) -> Size:
    """Their own where all have one, else the square of the median shorter side."""
    found = {tuple(x.shape[-2:]) for x, _ in items}
    if len(found) == 1:
        return to_size(sides(found.pop()))
    return sides(to_side(int(statistics.median(min(x.shape[-2:]) for x, _ in items))))


def _split(items: Sequence[tuple[torch.Tensor, int]], size: Size, where: str) -> Split:
    kinds = {(x.shape[0], x.dtype) for x, _ in items}
    if len(kinds) > 1:
        told = " and ".join(sorted(f"{channels} channels of {dtype}" for channels, dtype in kinds))
        raise BadInput(f"{where}: the images disagree: {told}")
    if len({x.shape for x, _ in items}) == 1:
        images = fit_size(torch.stack([x for x, _ in items]), size)
    else:
        images = torch.cat([fit_size(_central_square(x).unsqueeze(0), size) for x, _ in items])
    return Split(images, torch.tensor([y for _, y in items], dtype=torch.int64))


def _central_square(x: torch.Tensor) -> torch.Tensor:
    height, width = x.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return x[:, top : top + side, left : left + side]


def _names(data: Any) -> list[str] | None:
    names = getattr(data, "classes", None)
    if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
        return list(names)
    return None


def _check_test(train: Split, test: Split) -> None:
    if train.inputs.shape[1] != test.inputs.shape[1] or train.inputs.dtype != test.inputs.dtype:
        raise BadInput(
            f"dataset: the images of train ({train.inputs.shape[1]} channels, {train.inputs.dtype}) and test "
            f"({test.inputs.shape[1]} channels, {test.inputs.dtype}) disagree"
        )
    new = sorted(set(test.targets.tolist()) - set(train.targets.tolist()))
    if new:
        raise BadInput(f"test dataset: it has class {new[0]}, which the training data lack")
