"""From what a source has read to a task: parts split off, statistics taken, everything described."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from edgewright.core.errors import BadInput
from edgewright.core.plan import LEAST_SIDE
from edgewright.core.progress import say
from edgewright.core.tensors import Size, leaves, sides
from edgewright.task.base import INPUT, InputSpec, Split, Task, TaskSpec, Wishes, resize
from edgewright.task.kind import Kind
from edgewright.task.kinds.resolve import make_kind
from edgewright.task.split import shares

CHUNK = 1024  # samples converted to float at a time, so that a big array is never held twice
HASHED_BYTES = 64 * 2**20
LARGEST_INFERRED = 224  # pixels, of the shorter side: larger only where it is asked for


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a source found out about its data, before the parts are made. kind, facts: of `make_kind`.   names: of the
    outputs.   flip: whether a left-right flip keeps the targets.   white: of the maps, None to find out.   test_seed:
    of a test part that is to be the same whatever the user's seed.   digest: where the content was hashed in an order
    of its own."""

    name: str
    source: str
    names: tuple[str, ...]
    flip: bool
    kind: str = "classification"
    facts: Mapping[str, Any] = field(default_factory=dict)
    fit: Literal["crop", "whole"] = "crop"
    white: float | None = None
    test_seed: int | None = None
    digest: str | None = None


def assemble(found: Described, wishes: Wishes, *, train: Split, val: Split | None, test: Split | None) -> Task:
    """Split off the parts that are not there (test: 20 %, val: `val_share` of the rest) and describe the whole."""
    kind = make_kind(found.kind, found.names, found.facts)
    check_metric(kind, wishes.metric)
    kind.check(train.targets, 1 + (val is None) + (test is None), found.source)
    digest = found.digest or fingerprint(found.names, *(part for part in (train, val, test) if part is not None))
    if test is None:
        seed = wishes.seed if found.test_seed is None else found.test_seed
        kept, held = shares(kind, train, 0.2, seed, "test")
        train, test = train.take(kept), train.take(held)
    if val is None:
        kept, held = shares(kind, train, wishes.val_share, wishes.seed, "val")
        train, val = train.take(kept), train.take(held)
    spec = TaskSpec(
        name=found.name,
        source=without_folders(found.source),
        kind=found.kind,
        inputs=tuple(_input_spec(name, leaf, found) for name, leaf in _inputs(train.inputs)),
        names=tuple(found.names),
        facts=dict(found.facts),
        metric=wishes.metric or kind.decides(train.targets),
        flip=found.flip if wishes.flip is None else wishes.flip,
        num_train=len(train),
        num_val=len(val),
        num_test=len(test),
        digest=digest,
    )
    return Task(spec, train, val, test)


def check_metric(kind: Kind, name: str | None) -> None:
    """Errors: BadInput for a metric that the kind does not have."""
    known = [metric.name for metric in kind.metrics]
    if name is not None and name not in known:
        raise BadInput(f"unknown metric '{name}'; {kind.name} is judged by {', '.join(known)}")


def _inputs(tree: Any) -> list[tuple[str, Tensor]]:
    return list(tree.items()) if isinstance(tree, Mapping) else [(INPUT, tree)]


def _input_spec(name: str, stored: Tensor, found: Described) -> InputSpec:
    mean, std = statistics(stored)
    white = white_of(stored) if found.white is None else found.white
    return InputSpec(name=name, shape=tuple(stored.shape[1:]), mean=mean, std=std, white=white, fit=found.fit)


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
    """255 for uint8; 1 for floats that all lie in [0, 1]; else unknown, 0."""
    if images.dtype == torch.uint8:
        return 255.0
    return 1.0 if images.min() >= 0 and images.max() <= 1 else 0.0


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


def to_side(shorter: int) -> int:
    """The side that images are kept at, by their shorter one: clipped to 8..224, and told where they are enlarged."""
    if shorter < LEAST_SIDE:
        say(
            f"the images are {shorter} px on their shorter side; they are enlarged to {LEAST_SIDE} px, the least there "
            "is"
        )
    return min(max(shorter, LEAST_SIDE), LARGEST_INFERRED)


def to_size(size: Size) -> Size:
    """The size that maps of this size are kept at: as they are, or both sides times what brings the shorter one into
    8..224."""
    shorter = min(size)
    factor = to_side(shorter) / shorter
    return size if factor == 1 else (max(LEAST_SIDE, round(size[0] * factor)), max(LEAST_SIDE, round(size[1] * factor)))


def fit_size(images: Tensor, size: int | Size | None) -> Tensor:
    """Images (N, C, H, W) at `size`, or where none is given at their own (`to_size`).

    Antialiased bilinear; nothing is cut off. uint8 stays uint8.
    """
    wanted = to_size((images.shape[-2], images.shape[-1])) if size is None else sides(size)
    if tuple(images.shape[-2:]) == wanted:
        return images
    result = torch.empty((len(images), images.shape[1], *wanted), dtype=images.dtype)
    for source, target in zip(images.split(CHUNK), result.split(CHUNK), strict=True):
        x = resize(source.to(torch.float32), wanted)
        target.copy_(x.round().clamp(0, 255) if images.dtype == torch.uint8 else x)
    return result


def is_text(classes: Sequence[str]) -> bool:
    """Whether the class names are numbers or single letters: written signs, which a flip would spoil."""
    return all(name.isdigit() or (len(name) == 1 and name.isalpha()) for name in classes)
