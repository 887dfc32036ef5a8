"""What suits a task when nobody says otherwise, and how it is done to trees of inputs and targets."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgewright.core.tensors import Size, leaves, mapped
from edgewright.task.augment.image import Augment, Follow
from edgewright.task.base import TaskSpec, Transform, kind_of


def default_augment(spec: TaskSpec) -> Augment:
    """What suits the task when nobody says otherwise; flips only where the task allows them.

    Tiny or one-channel signs: shift (1 px at 8 px), up to 10 degrees, 10 % zoom. Up to 64 px: shift by an eighth of the
    side (4 px at 32), flip, a small rectangle erased in a quarter of the images. Larger: random-resized-crop and flip.
    """
    fill = tuple(value for one in spec.inputs if one.is_map for value in one.mean)
    side, channels = max(spec.size), sum(len(one.mean) for one in spec.inputs if one.is_map)
    erase = 0.0 if kind_of(spec).aligned else 0.25
    if side <= 16 or (channels == 1 and not spec.flip and side <= 64):
        return Augment(pad=max(1, round(side / 14)), rotate=10, zoom=0.1, flip=spec.flip)
    if side <= 64:
        return Augment(pad=round(side / 8), flip=spec.flip, erase=erase, fill=fill)
    return Augment(area=(0.35, 1.0), flip=spec.flip, fill=fill)


def moving(augment: Augment | None, spec: TaskSpec) -> Transform | None:
    """Augmentation as `batches` takes it: all maps among the inputs are moved alike, and targets that lie on them too;
    the rest stays as it is."""
    if augment is None:
        return None
    kind = kind_of(spec)

    def change(inputs: Any, targets: Any, generator: torch.Generator, size: Size) -> tuple[Any, Any]:
        maps = [x for x in leaves(inputs) if x.ndim == 4]
        follow = Follow(leaves(targets)[0], kind.fill) if kind.aligned else None
        images, moved = augment.moved(maps[0] if len(maps) == 1 else torch.cat(maps, 1), generator, size, follow)
        parts = iter(images.split([x.shape[1] for x in maps], 1))
        changed = mapped(lambda x: next(parts) if x.ndim == 4 else x, inputs)
        return changed, targets if moved is None else _in_place_of(targets, moved)

    return change


def _in_place_of(targets: Any, moved: Tensor) -> Any:
    return dict.fromkeys(targets, moved) if isinstance(targets, Mapping) else moved
