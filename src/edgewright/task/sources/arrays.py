"""A task from one .npz file with x_train, y_train, x_test, y_test (and, if wanted, x_val, y_val, classes), or x and y.

`task/named_arrays.py` says how several inputs and several targets are called.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgewright.core.errors import BadInput
from edgewright.core.progress import say
from edgewright.core.tensors import Size, as_tree, leaves, mapped, rows, sides, size_text
from edgewright.task.assemble import Described, assemble, is_text
from edgewright.task.base import Split, Task, TaskSpec, Wishes
from edgewright.task.checks import APART
from edgewright.task.group import numbered, refuse_wish, torn
from edgewright.task.named_arrays import UNSPLIT, NamedArrays, check_whole, key, read_arrays
from edgewright.task.sizes import fit_answers, fit_size, to_size
from edgewright.task.source import Given, Source
from edgewright.task.targets import class_numbers, counted, what_is_learned

CHANNELS = (1, 3, 4)


def arrays(path: Path, wishes: Wishes) -> Task:
    """Read and check the file; every fault is one BadInput sentence.

    Images: (N, H, W, C), (N, C, H, W) or (N, H, W). Four axes are read as NHWC where the last has 1, 3 or 4 entries, as
    NCHW where the second has; where both have, the reading with square images wins, and NHWC if both or neither is
    square. Where neither has, the reading with square images wins (NCHW first). Images keep their shape; where the
    shorter side is outside 8..224 px, or the longer above 512, both are scaled so that it is not. uint8 (and integers
    within 0..255) are kept as uint8, other numbers as float32, finite only. Beside a map, inputs may be vectors (N, F).
    Targets: (N,) or (N, 1) integers 0..K-1, or one for each pixel, (N, H, W). `classes`: K names. The test part is
    y_test's, in its order. x and y alone are split: 20 % are test, and val as for a folder.
    `group_train` (or `group`): numbers or names of what stays in one part where val, or test, is split off.
    Flips: on with three or more channels, unless given class names are all numbers or single letters.
    """
    refuse_wish(wishes.group, "arrays", "as group_train, or group, among the arrays")
    file = read_arrays(path)
    check_whole(file)
    first, parts = file.parts[0], file.parts
    targets = {part: _targets(file, part) for part in parts}
    inputs = _of_one_type(file, {part: read_inputs(file, part) for part in parts})
    _check(file, inputs)
    names = {name: _class_names(file, name, targets) for name in targets[first]}
    learned = what_is_learned(targets[first], names, str(path))
    size = sides(wishes.resolution) if wishes.resolution else _size(inputs[first])
    splits = {}
    for part in parts:
        fitted = {name: fit_size(x, size) if x.ndim == 4 else x for name, x in inputs.pop(part).items()}
        answers = {name: fit_answers(y, size) if y.ndim == 3 else y for name, y in targets[part].items()}
        splits[part] = Split(as_tree(fitted), as_tree(answers))
    colours = max(x.shape[1] for x in leaves(splits[first].inputs) if x.ndim == 4)
    described = Described(
        name=path.stem,
        source=f"arrays:{path}",
        kind=learned.kind,
        names=learned.names,
        facts=learned.facts,
        flip=colours >= 3 and not any(is_text(names) for names in file.classes.values()),
        units=True,
        groups=_groups(file, len(splits[first])),
    )
    return assemble(described, wishes, train=splits[first], val=splits.get("val"), test=splits.get("test"))


def _groups(file: NamedArrays, samples: int) -> Tensor | None:
    """Of the first part; None where the file has none."""
    first = file.parts[0]
    if first not in file.groups:
        return None
    for part, found in file.groups.items():
        if found.ndim != 1 or found.dtype.kind not in "iuUS" or (part == first and len(found) != samples):
            raise BadInput(
                f"{file.path}: {key('group', part)}: numbers or names, one for each sample, not {found.dtype} of shape "
                f"{found.shape}"
            )
    named = {part: [str(one) for one in found.tolist()] for part, found in file.groups.items() if part in file.parts}
    for remark in torn({"train" if part == first else part: names for part, names in named.items()}):
        say(f"{file.path}: {remark}")
    return numbered(named[first])


def given(path: Path, spec: TaskSpec, part: str | None) -> Given:
    """Samples of the part that is named, or x where the file has it; without a name x, else the test part."""
    file = read_arrays(path)
    wanted = next((one for one in (part, UNSPLIT, "test") if one is not None and one in file.x), None)
    if wanted is None:
        raise BadInput(f"{path}: {key('x', part or 'test')} missing, and there is no x")
    inputs = as_tree(read_inputs(file, wanted))
    _check_as_learned(inputs, spec, f"{path}: {key('x', wanted)}")
    targets = as_tree(_targets(file, wanted)) if wanted in file.y else None
    return Given(
        files=[f"{path.name}[{index}]" for index in range(rows(inputs))],
        stems=[f"{path.stem}-{index}" for index in range(rows(inputs))],
        take=lambda index: mapped(lambda x: x[list(index)], inputs),
        size=lambda index: next((x.shape[-2], x.shape[-1]) for x in leaves(inputs) if x.ndim == 4),
        targets=targets,
        names=file.names_of(wanted),
        part=wanted or None,
    )


SOURCE = Source("arrays", "FILE.npz", "x_train, y_train, x_test and y_test, or x and y", arrays, given)


def read_inputs(file: NamedArrays, part: str) -> dict[str, Tensor]:
    """The inputs of a part by name: maps (N, C, H, W), and vectors (N, F) beside them."""
    found = {}
    for name, x in file.x[part].items():
        where = f"{file.path}: {key('x', part, name)}"
        pixels = read_pixels(x, where)
        found[name] = pixels.float().flatten(1) if name and x.ndim < 3 else channels_first(pixels, where)
    if not any(x.ndim == 4 for x in found.values()):
        told = " and ".join(key("x", part, name) for name in found)
        raise BadInput(f"{file.path}: {told}: a map (N, H, W) is needed among the inputs; vectors come only beside one")
    if len(set(map(len, found.values()))) > 1:
        told = ", ".join(f"{key('x', part, name)} {len(x)}" for name, x in found.items())
        raise BadInput(f"{file.path}: the inputs disagree in the number of samples: {told}")
    return found


def _targets(file: NamedArrays, part: str) -> dict[str, Tensor]:
    """The targets of a part by name: classes (N,), or one for each pixel (N, H, W)."""
    found = {}
    for name, y in file.y[part].items():
        where = f"{file.path}: {key('y', part, name)}"
        found[name] = _integers(y, where) if y.ndim == 3 else read_labels(y, where)
        x = next(iter(file.x[part].values()))
        if x.ndim == 0 or len(x) != len(found[name]):
            told = f"{key('x', part)} {x.shape} and {key('y', part, name)} {y.shape}"
            raise BadInput(f"{file.path}: {told} disagree in the number of images")
        if len(x) == 0:
            raise BadInput(f"{file.path}: {key('x', part)} is empty")
        if y.ndim == 3 and y.shape[1:] not in {x.shape[1:3], x.shape[2:4]}:
            told = f"{key('x', part)} {x.shape} and {key('y', part, name)} {y.shape}"
            raise BadInput(f"{file.path}: {told} disagree in height and width")
    return found


def _of_one_type(file: NamedArrays, inputs: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Inputs that the user gave in one type, in one type: integers that are within 0..255 in some parts only."""
    for name in inputs[file.parts[0]]:
        given = {file.x[part][name].dtype for part in inputs}
        if len(given) == 1 and len({inside[name].dtype for inside in inputs.values()}) > 1:
            for inside in inputs.values():
                inside[name] = inside[name].float()
    return inputs


def _check(file: NamedArrays, inputs: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Refuse parts whose inputs are of other shapes or types."""
    for name in inputs[file.parts[0]]:
        found = {part: (tuple(inside[name].shape[1:]), inside[name].dtype) for part, inside in inputs.items()}
        if len(set(found.values())) > 1:
            told = ", ".join(f"{key('x', part, name)} {shape} {dtype}" for part, (shape, dtype) in found.items())
            raise BadInput(
                f"{file.path}: the images of the parts disagree as (channels, height, width) and type: {told}"
            )


def _class_names(file: NamedArrays, name: str, targets: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
    first, *others = file.parts
    where, called = str(file.path), key("y", first, name)
    rest = {key("y", part, name): counted(targets[part][name], where) for part in others}
    return class_numbers(
        counted(targets[first][name], where), rest, file.classes.get(file.class_key(name)), where, called
    )


def _size(inputs: Mapping[str, Tensor]) -> Size:
    """The size that all maps are kept at: the largest one's."""
    found = {name: (x.shape[-2], x.shape[-1]) for name, x in inputs.items() if x.ndim == 4}
    size = to_size(max(found.values(), key=lambda one: one[0] * one[1]))
    if len(set(found.values())) > 1:
        told = ", ".join(f"{name} {size_text(one)}" for name, one in found.items())
        say(f"the maps have different sizes ({told}); all are brought to {size_text(size)}")
    return size


def _check_as_learned(inputs: Any, spec: TaskSpec, where: str) -> None:
    """Refuse inputs that are not what the task's are: other names, shapes, or units."""
    wanted = {one.name: one for one in spec.inputs}
    found = inputs if isinstance(inputs, Mapping) else {spec.inputs[0].name: inputs}
    fits = {*found} == {*wanted} and all(_is_like(x, wanted[name].shape) for name, x in found.items())
    if not fits:
        told = ", ".join(f"{name} {tuple(x.shape[1:])}" for name, x in found.items())
        taken = ", ".join(f"{name} {one.shape}" for name, one in wanted.items())
        raise BadInput(f"{where}: holds {told}; the network's task takes {taken}")
    for name, one in wanted.items():
        top = float(found[name].abs().max()) if len(found[name]) else one.white
        if one.white and (top > APART * one.white or top <= 1 < one.white / APART):
            told = f"its numbers reach {top:g}, those that the network learned {one.white:g}"
            raise BadInput(f"{where}: {told}: give them in the same units")


def _is_like(x: Tensor, shape: tuple[int, ...]) -> bool:
    """A map of any size, or a vector of that length."""
    return x.ndim == 1 + len(shape) and x.shape[1] == shape[0]


def _integers(y: np.ndarray, where: str) -> Tensor:
    if y.dtype.kind not in "iub":
        raise BadInput(f"{where}: labels must be integers, not {y.dtype}")
    if y.size and y.min() < 0:
        raise BadInput(f"{where}: {int((y < 0).sum())} labels are negative (least {y.min()}); classes count from 0")
    if y.size and y.max() >= 2**31:
        raise BadInput(f"{where}: label {y.max()} is out of range; classes count from 0 without gaps")
    return torch.from_numpy(y.astype(np.int64))


def read_labels(y: np.ndarray, where: str) -> Tensor:
    """(N,) int64 from (N,) or (N, 1) integers that are not negative."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise BadInput(f"{where}: labels must be one integer an image, shape (N,), not {y.shape}")
    return _integers(y, where)


def read_pixels(x: np.ndarray, where: str) -> Tensor:
    """uint8 where the values are, else finite float32."""
    if x.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(x))
    if x.dtype.kind == "b" or (x.dtype.kind in "iu" and x.size and x.min() >= 0 and x.max() <= 255):
        return torch.from_numpy(x.astype(np.uint8))
    if x.dtype.kind not in "iuf":
        raise BadInput(f"{where}: images must be uint8 or floating point, not {x.dtype}")
    with np.errstate(over="ignore"):
        values = x.astype(np.float32)
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise BadInput(f"{where}: {bad} of {values.size} values are NaN or infinite; clean them first")
    return torch.from_numpy(values)


def channels_first(images: Tensor, where: str) -> Tensor:
    """(N, H, W), NHWC or NCHW to contiguous NCHW, by the rule `arrays` states."""
    if images.ndim == 3:
        return images.unsqueeze(1)
    if images.ndim != 4 or 0 in images.shape:
        raise BadInput(f"{where}: images must be (N, H, W), (N, H, W, C) or (N, C, H, W), not {tuple(images.shape)}")
    _, second, third, last = images.shape
    if (last in CHANNELS) != (second in CHANNELS):
        is_last = last in CHANNELS
    elif last in CHANNELS:
        is_last = second == third or third != last
    elif third == last or second == third:
        is_last = third != last
    else:
        raise BadInput(
            f"{where}: cannot tell the channels in shape {tuple(images.shape)}; "
            "1, 3 or 4 are expected, first or last, or square images"
        )
    return images.permute(0, 3, 1, 2).contiguous() if is_last else images
