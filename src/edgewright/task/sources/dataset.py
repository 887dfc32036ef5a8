"""A task from a map-style torch Dataset whose items are (input, target)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from edgewright.core.errors import BadInput
from edgewright.core.progress import progress
from edgewright.core.tensors import Size, as_tree, sides
from edgewright.task.assemble import Described, assemble, is_text
from edgewright.task.base import Split, Task, Wishes
from edgewright.task.group import refuse_wish
from edgewright.task.sizes import Frame, central, fit_size, frame_of, to_size
from edgewright.task.targets import class_numbers, what_is_learned

ALONE = ""  # the name of an input or a target that is alone
GRAY_MODES = ("1", "L", "LA")


class Item(NamedTuple):
    """One sample: tensors by name, and integers by name."""

    inputs: dict[str, Tensor]
    targets: dict[str, int]


def dataset(data: Any, wishes: Wishes) -> Task:
    """Materialise a Dataset, or a pair (train, test) of them.

    An image is a tensor (C, H, W) or (H, W), a PIL image, or an ndarray (H, W, C), (C, H, W) or (H, W); uint8 stays
    uint8, other numbers become float32. A target is an integer. Several inputs, or targets, are a dict of them by name;
    beside an image there an input may be a vector (F,). Images of unequal sizes become what a folder's do
    (`sizes.frame_of`); equal ones keep their shape. Class names come from the Dataset's `classes`, if it has them: a
    list, or a dict of lists by target. Flips: on with three or more channels, unless the names are all numbers or
    single letters. Random transforms inside the Dataset are drawn once, here.
    """
    refuse_wish(wishes.group, "data sets from Python", "by handing over (train, test)")
    pair = isinstance(data, (tuple, list))
    if pair and len(data) != 2:
        raise BadInput(f"dataset: a tuple of Datasets must be (train, test), not {len(data)} of them")
    first, second = (data[0], data[1]) if pair else (data, None)
    train_items = _items(first, "dataset")
    test_items = [] if second is None else _items(second, "test dataset")
    frame = _frame([*train_items, *test_items], wishes)
    inputs, test_inputs = _inputs(train_items, frame, "dataset"), _inputs(test_items, frame, "test dataset")
    targets, test_targets = _targets(train_items), _targets(test_items)
    _check_same(inputs, test_inputs)
    given = _class_names(first)
    names = {name: class_numbers(target, {"the test dataset": test_targets[name]} if test_items else {},
                                 given.get(name), "dataset", " of ".join(filter(None, ("the training data", name))))
             for name, target in targets.items()}  # fmt: skip
    learned = what_is_learned(targets, names, "dataset")
    described = Described(
        name=type(first).__name__,
        source="dataset",
        kind=learned.kind,
        names=learned.names,
        facts=learned.facts,
        flip=max(x.shape[1] for x in inputs.values() if x.ndim == 4) >= 3 and not any(map(is_text, given.values())),
        white=255.0 if isinstance(first[0][0], Image.Image) else None,
        units=True,
    )
    test = Split(as_tree(test_inputs), as_tree(test_targets)) if test_items else None
    return assemble(described, wishes, train=Split(as_tree(inputs), as_tree(targets)), val=None, test=test)


def _items(data: Any, where: str) -> list[Item]:
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise BadInput(f"{where}: {type(data).__name__} is not map-style; it needs __len__ and __getitem__")
    if len(data) == 0:
        raise BadInput(f"{where}: {type(data).__name__} is empty")
    items: list[Item] = []
    with progress("Reading the data set", total=len(data)) as bar:
        for index in range(len(data)):
            item = data[index]
            if not (isinstance(item, (tuple, list)) and len(item) == 2):
                raise BadInput(f"{where}: item {index} is not a pair (image, label)")
            items.append(Item(_named(item[0], _image, _vector, f"{where}: item {index}"),
                              _named(item[1], _label, _label, f"{where}: item {index}")))  # fmt: skip
            for mine, others in zip(items[-1], items[0], strict=True):
                if {*mine} != {*others}:
                    raise BadInput(
                        f"{where}: item {index} has {' and '.join(mine)}, the first one {' and '.join(others)}"
                    )
            bar.advance()
    return items


def _named(given: Any, alone: Callable[..., Any], one_of: Callable[..., Any], where: str) -> dict[str, Any]:
    """What an item says, by name, read by `alone`, or of several by `one_of`."""
    if not isinstance(given, Mapping):
        return {ALONE: alone(given, where)}
    strange = [name for name in given if not (isinstance(name, str) and name.isidentifier() and name != "self")]
    if strange or not given:
        raise BadInput(f"{where}: {strange[0] if strange else 'nothing'!r} is not a name of letters, digits and _")
    return {name: one_of(value, f"{where}, {name}") for name, value in given.items()}


def _vector(x: Any, where: str) -> Tensor:
    """A vector, or an image, beside others."""
    if isinstance(x, (Tensor, np.ndarray)) and x.ndim < 2:
        return _numbers(torch.as_tensor(x).reshape(-1).float(), where)
    return _image(x, where)


def _image(x: Any, where: str) -> Tensor:
    if isinstance(x, Image.Image):  # more than 8 bits are kept as numbers: Pillow would clip them
        x = np.array(x if x.mode[0] in "IF" else x.convert("L" if x.mode in GRAY_MODES else "RGB"))
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "iufb":
            raise BadInput(f"{where}: the image holds {x.dtype}, not numbers")
        last = x.ndim == 3 and x.shape[2] in (1, 3, 4) and (x.shape[0] not in (1, 3, 4) or x.shape[0] == x.shape[1])
        x = torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1) if last else x))
    if not isinstance(x, Tensor):
        raise BadInput(f"{where}: the image is a {type(x).__name__}, not a tensor, an ndarray or a PIL image")
    x = x.detach().cpu()
    x = x.unsqueeze(0) if x.ndim == 2 else x
    if x.ndim != 3 or x.numel() == 0:
        raise BadInput(f"{where}: the image has shape {tuple(x.shape)}, not (channels, height, width)")
    return x.clone() if x.dtype == torch.uint8 else _numbers(x.to(torch.float32, copy=True), where)


def _numbers(x: Tensor, where: str) -> Tensor:
    if not x.isfinite().all():
        raise BadInput(f"{where}: the image has {int((~x.isfinite()).sum())} values that are NaN or infinite")
    return x


def _label(y: Any, where: str) -> int:
    if isinstance(y, (Tensor, np.ndarray, np.generic)) and np.ndim(y) == 0:
        y = y.item()
    if not isinstance(y, int):
        raise BadInput(f"{where}: the label is {y!r}, not an integer")
    if y < 0:
        raise BadInput(f"{where}: the label {y} is negative; classes count from 0")
    return int(y)


def _frame(items: Sequence[Item], wishes: Wishes) -> Frame:
    """The largest map's own size where all have one; else what becomes of images of these sizes."""
    maps = [max((x for x in item.inputs.values() if x.ndim == 3), key=lambda x: x[0].numel(), default=None)
            for item in items]  # fmt: skip
    found: list[Size] = [(x.shape[-2], x.shape[-1]) for x in maps if x is not None]
    if len(found) < len(items):
        raise BadInput("dataset: an image is needed among the inputs; networks take vectors only beside one")
    if len(set(found)) > 1:
        return frame_of(found, wishes.resolution, wishes.aspect)
    return Frame(to_size(found[0]) if wishes.resolution is None else sides(wishes.resolution), "whole")


def _inputs(items: Sequence[Item], frame: Frame, where: str) -> dict[str, Tensor]:
    return {
        name: _stacked([item.inputs[name] for item in items], frame, where)
        for name in (items[0].inputs if items else ())
    }


def _stacked(found: Sequence[Tensor], frame: Frame, where: str) -> Tensor:
    kinds = {(x.shape[0], x.dtype) for x in found}
    if len(kinds) > 1 or len({x.ndim for x in found}) > 1:
        told = " and ".join(sorted(f"{channels} channels of {dtype}" for channels, dtype in kinds))
        raise BadInput(f"{where}: the images disagree: {told}")
    if len({x.shape for x in found}) == 1:
        x = torch.stack(list(found))
        return x if x.ndim == 2 else fit_size(x, frame.size)
    return torch.cat([fit_size(_part(x, frame).unsqueeze(0), frame.size) for x in found])


def _part(x: Tensor, frame: Frame) -> Tensor:
    if frame.fit == "whole":
        return x
    box = central((x.shape[-2], x.shape[-1]), frame.size)
    return x[:, box.top : box.top + box.height, box.left : box.left + box.width]


def _targets(items: Sequence[Item]) -> dict[str, Tensor]:
    names = items[0].targets if items else {}
    return {name: torch.tensor([item.targets[name] for item in items], dtype=torch.int64) for name in names}


def _class_names(data: Any) -> dict[str, list[str]]:
    """By target, where the Dataset says them."""
    said = getattr(data, "classes", None)
    named = said if isinstance(said, Mapping) else {ALONE: said}
    return {name: list(names) for name, names in named.items()
            if isinstance(names, (list, tuple)) and names and all(isinstance(one, str) for one in names)}  # fmt: skip


def _check_same(train: Mapping[str, Tensor], test: Mapping[str, Tensor]) -> None:
    """Refuse a test part whose inputs are of other names, channels or types."""
    if test and {*train} != {*test}:
        raise BadInput(f"dataset: train has {' and '.join(train)}, and test {' and '.join(test)}")
    for name, x in test.items():
        if train[name].shape[1] != x.shape[1] or train[name].dtype != x.dtype:
            raise BadInput(
                f"dataset: the images of train ({train[name].shape[1]} channels, {train[name].dtype}) and test "
                f"({x.shape[1]} channels, {x.dtype}) disagree"
            )
