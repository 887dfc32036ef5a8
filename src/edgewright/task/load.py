"""From what the user names to a task."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.core.errors import BadInput
from edgewright.core.home import user_path
from edgewright.core.tensors import Size
from edgewright.task.base import Task, Wishes
from edgewright.task.sources.arrays import arrays
from edgewright.task.sources.dataset import dataset
from edgewright.task.sources.digits import digits
from edgewright.task.sources.images import images

if TYPE_CHECKING:
    from torch.utils.data import Dataset

CHOICES = "'digits', 'images:DIR' (a folder per class) or 'arrays:FILE.npz'"

PLACES = {"images": images, "arrays": arrays}


def absolute(source: str) -> str:
    """`source` with its folder or file named from the root, so that it means the same from any working directory."""
    kind, _, place = source.partition(":")
    return f"{kind}:{user_path(place).absolute()}" if kind in PLACES and place else source


def load_task(
    source: "str | Dataset[Any] | tuple[Dataset[Any], Dataset[Any]]",
    *,
    seed: int = 0,
    val_share: float = 0.1,
    skip_bad: int = 0,
    flip: bool | None = None,
    resolution: int | Size | None = None,
    metric: str | None = None,
) -> Task:
    """Load a task; classes, channels, resolution and normalisation are inferred from the data.

    Args:
        source: "digits", "images:DIR", "arrays:FILE.npz", or (from Python) a map-style torch Dataset of (image, label),
            or a pair (train, test) of them.
        seed: decides what is split off where the source does not say.
        val_share: share of the training images that become the val part; 0 < val_share <= 0.5.
        skip_bad: how many unreadable image files are left out before they are an error (folders only).
        flip: whether a left-right flip keeps the label; None infers it.
        resolution: pixels, 8 to 512, that images are kept at: a side, or height and width; None infers it.
        metric: which of the kind's metrics decides; None leaves it to the data.

    Raises:
        BadInput: one sentence that says what is wrong, where, and what to do.
    """
    wishes = Wishes(seed=seed, val_share=val_share, skip_bad=skip_bad, flip=flip, resolution=resolution, metric=metric)
    if not isinstance(source, str):
        return dataset(source, wishes)
    kind, _, place = source.partition(":")
    if source == "digits":
        return digits(wishes)
    if kind in PLACES and place:
        return PLACES[kind](user_path(place), wishes)
    if source == "dataset":
        raise BadInput(
            "the data set of this plan was handed over from Python, and must be again: edgewright.resume(FOLDER, "
            "dataset), or edgewright.design(task=dataset, ...)"
        )
    hint = ""
    if Path(source).is_dir():
        hint = f"; for this folder write 'images:{source}'"
    elif source.endswith(".npz"):
        hint = f"; for this file write 'arrays:{source}'"
    raise BadInput(f"unknown task '{source}': give {CHOICES}{hint}")
