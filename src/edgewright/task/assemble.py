"""From what a source has read to a task: parts split off, statistics taken, everything described."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from edgewright.core.errors import BadInput
from edgewright.core.progress import say
from edgewright.core.tensors import leaves
from edgewright.task import checks, deep
from edgewright.task.base import INPUT, InputSpec, Split, Task, TaskSpec, Wishes
from edgewright.task.group import nearly_repeated
from edgewright.task.kind import Kind
from edgewright.task.kinds.resolve import make_kind
from edgewright.task.split import shares
from edgewright.task.symmetry import flip_spoils

CHUNK = 1024  # samples converted to float at a time, so that a big array is never held twice
HASHED_BYTES = 64 * 2**20
# What white may be where the numbers are whole: full scales of bits, and those that people count to.
WHITES = (1, 15, 16, 31, 63, 64, 127, 255, 1023, 4095, 16383, 65535)


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a source found out about its data, before the parts are made. kind, facts: of `make_kind`.   names: of the
    outputs.   flip: whether a left-right flip keeps the targets.   fit, white, deep_white: of the maps; white None to
    find out.   test_seed: of a test part that is to be the same whatever the user's seed.   digest: where the content
    was hashed in an order of its own.   units: whether the numbers are the user's own, so that parts can be on other
    scales by mistake.   groups: (N,) int64, of the training part, or what is not split: what stays together.
    test_drawn: whether the source has drawn the test part itself, from where train is from."""

    name: str
    source: str
    names: tuple[str, ...]
    flip: bool
    kind: str = "classification"
    facts: Mapping[str, Any] = field(default_factory=dict)
    fit: Literal["crop", "whole"] = "crop"
    white: float | None = None
    deep_white: float = deep.WHITE
    units: bool = False
    test_seed: int | None = None
    digest: str | None = None
    groups: Tensor | None = None
    test_drawn: bool = False


def assemble(found: Described, wishes: Wishes, *, train: Split, val: Split | None, test: Split | None) -> Task:
    """Split off the parts that are not there (test: 20 %, val: `val_share` of the rest) and describe the whole."""
    kind = make_kind(found.kind, found.names, found.facts)
    check_metric(kind, wishes.metric)
    kind.check(train.targets, 1 + (val is None) + (test is None), found.source)
    if found.units:
        checks.refuse_other_scales({"train": train, "val": val, "test": test}, found.source)
    digest = found.digest or fingerprint(found.names, *(part for part in (train, val, test) if part is not None))
    groups, given_test = found.groups, None if found.test_drawn else test
    if test is None:
        seed = wishes.seed if found.test_seed is None else found.test_seed
        kept, held = shares(kind, train, 0.2, seed, "test", groups=groups)
        train, test = train.take(kept), train.take(held)
        groups = None if groups is None else groups[kept]
    if val is None:
        kept, held = shares(kind, train, wishes.val_share, wishes.seed, "val", groups=groups)
        train, val = train.take(kept), train.take(held)
    remarks = (
        *kind.remarks(train.targets),
        *checks.constant(train),
        *checks.repeated(kind, train, val, test),
        *(nearly_repeated(train, val, given_test) if groups is None and wishes.group is None else ()),
        *checks.unseen(kind, train, val),
    )
    for remark in remarks:
        say(f"{found.source}: {remark}")
    spoilt = _spoilt(kind, train) if found.flip and wishes.flip is None else None
    if spoilt is not None:
        say(f"{found.source}: {spoilt}")
    spec = TaskSpec(
        name=found.name,
        source=without_folders(found.source),
        kind=found.kind,
        inputs=tuple(_input_spec(name, leaf, found) for name, leaf in _inputs(train.inputs)),
        names=tuple(found.names),
        facts=dict(found.facts),
        metric=wishes.metric or kind.decides(train.targets),
        flip=found.flip and spoilt is None if wishes.flip is None else wishes.flip,
        num_train=len(train),
        num_val=len(val),
        num_test=len(test),
        digest=digest,
    )
    return Task(spec, train, val, test)


def _spoilt(kind: Kind, train: Split) -> str | None:
    """What a left-right flip spoils, in words; None where nothing is known of it, or where it keeps the targets."""
    maps = [x for x in leaves(train.inputs) if x.ndim == 4]
    strata = kind.strata(train.targets)
    return None if strata is None or len(maps) != 1 or kind.aligned else flip_spoils(maps[0], strata)


def check_metric(kind: Kind, name: str | None) -> None:
    """Errors: BadInput for a metric that the kind does not have."""
    known = [metric.name for metric in kind.metrics]
    if name is not None and name not in known:
        raise BadInput(f"unknown metric '{name}'; {kind.name} is judged by {', '.join(known)}")


def _inputs(tree: Any) -> list[tuple[str, Tensor]]:
    return list(tree.items()) if isinstance(tree, Mapping) else [(INPUT, tree)]


def _input_spec(name: str, stored: Tensor, found: Described) -> InputSpec:
    mean, std = statistics(stored)
    return InputSpec(
        name=name,
        shape=tuple(stored.shape[1:]),
        mean=mean,
        std=std,
        white=_white(name, stored, found),
        fit=found.fit,
        deep_white=found.deep_white,
    )


def _white(name: str, stored: Tensor, found: Described) -> float:
    """As the source says, or found out and told where it is not what people expect."""
    if found.white is not None or stored.ndim != 4:
        return found.white or 0.0
    white = white_of(stored)
    if white not in (0, 1, 255) or (white == 1 and stored.dtype == torch.uint8):
        of = "" if name == INPUT else f" of {name}"
        say(f"{found.source}: the largest value{of} is {float(stored.max()):g}, so {white:g} is taken for white where "
            "image files are read for the network")  # fmt: skip
    return white


def without_folders(source: str) -> str:
    """What may be told to whoever gets the model: images:flowers for images:/data/flowers."""
    kind, colon, place = source.partition(":")
    return f"{kind}{colon}{Path(place).name}"


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and (population) standard deviation per channel of (N, C, ...), in double precision; a constant channel
    gets std 1."""
    count = images.numel() / images.shape[1]
    chunks = images.split(CHUNK)
    if images.dtype == torch.uint8:
        return _byte_statistics(chunks, count)
    others = [axis for axis in range(images.ndim) if axis != 1]
    mean = torch.stack([chunk.double().sum(others) for chunk in chunks]).sum(0) / count
    centre = mean.view(-1, *[1] * (images.ndim - 2))
    squares = torch.stack([(chunk.double() - centre).square().sum(others) for chunk in chunks]).sum(0)
    return _never_zero(mean, (squares / count).sqrt())


def _byte_statistics(chunks: Sequence[Tensor], count: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """From one histogram per channel: exact, and many times faster than summing doubles."""
    channels = range(chunks[0].shape[1])
    times = torch.stack(
        [torch.stack([torch.bincount(chunk[:, c].flatten(), minlength=256) for c in channels]) for chunk in chunks]
    ).sum(0)
    values = torch.arange(256, dtype=torch.float64)
    mean = (times * values).sum(1) / count
    squares = (times * (values - mean.unsqueeze(1)).square()).sum(1)
    return _never_zero(mean, (squares / count).sqrt())


def _never_zero(mean: Tensor, std: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # Below this the channel is constant up to rounding, and dividing by it would only amplify noise.
    std = torch.where(std > 1e-7 * (1e-30 + mean.abs()), std, torch.ones_like(std))
    return tuple(mean.tolist()), tuple(std.tolist())


def white_of(images: Tensor) -> float:
    """1 for numbers within 0 to 1; for whole ones from 0 on the least of WHITES that holds them; else unknown, 0."""
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > WHITES[-1]:
        return 0.0
    if high > 1 and not _all_whole(images):
        return 0.0
    return float(next(white for white in WHITES if white >= high))


def _all_whole(images: Tensor) -> bool:
    if not images.is_floating_point():
        return True
    return all(bool((chunk == chunk.round()).all()) for chunk in images.split(CHUNK))


def fingerprint(names: Sequence[str], *parts: Split, order: Tensor | None = None) -> str:
    """sha256 of the outputs' names, shapes, all targets and the inputs (in `order`, where one is given).

    Above 64 MiB an input gives only every k-th of its samples (k the least that stays below), so that a big task is
    hashed in a moment; a change to a sample in between goes unnoticed, a change of number, order or target does not.
    """
    state = hashlib.sha256("\n".join(names).encode())
    for part in parts:
        index = torch.arange(len(part)) if order is None else order
        for stored in leaves(part.inputs):
            state.update(f"{tuple(stored.shape)} {stored.dtype}".encode())
        for target in leaves(part.targets):
            state.update(target[index].contiguous().numpy().tobytes())
        for stored in leaves(part.inputs):
            step = max(1, -(-stored.numel() * stored.element_size() // HASHED_BYTES))
            for chunk in index[::step].split(CHUNK):
                state.update(stored[chunk].numpy().tobytes())
    return state.hexdigest()


def is_text(classes: Sequence[str]) -> bool:
    """Whether the class names are numbers or single letters: written signs, which a flip would spoil."""
    return all(name.isdigit() or (len(name) == 1 and name.isalpha()) for name in classes)
