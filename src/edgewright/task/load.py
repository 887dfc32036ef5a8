"""From what the user names to a task."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from edgewright.core.errors import BadInput
from edgewright.core.home import user_path
from edgewright.core.progress import said_at_the_end
from edgewright.core.tensors import Size
from edgewright.task.base import Task, TaskSpec, Wishes
from edgewright.task.image_files import given_files
from edgewright.task.source import Given, Source
from edgewright.task.sources import arrays, digits, images, masks
from edgewright.task.sources.dataset import dataset

if TYPE_CHECKING:
    from torch.utils.data import Dataset

SOURCES: tuple[Source, ...] = (digits.SOURCE, images.SOURCE, masks.SOURCE, arrays.SOURCE)


def choices() -> str:
    """What may be given, for a person."""
    *most, last = map(str, SOURCES)
    return f"{', '.join(most)} or {last}"


def source_of(text: str) -> tuple[Source, Path] | None:
    """The source that a text names, and the place there; None where it names none."""
    prefix, _, place = text.partition(":")
    found = next((one for one in SOURCES if one.prefix == prefix and bool(one.place) == bool(place)), None)
    return None if found is None else (found, user_path(place))


def absolute(source: str) -> str:
    """`source` with its folder or file named from the root, so that it means the same from any working directory."""
    found = source_of(source)
    return f"{found[0].prefix}:{found[1].absolute()}" if found and found[0].place else source


class WishOptions(TypedDict, total=False):
    """The fields of `Wishes`, as `load_task` takes them."""

    seed: int
    val_share: float
    skip_bad: int
    flip: bool | None
    resolution: int | Size | None
    metric: str | None
    group: str | None
    aspect: Size | None


def load_task(source: "str | Dataset[Any] | tuple[Dataset[Any], Dataset[Any]]", **wishes: Unpack[WishOptions]) -> Task:
    """Load a task; classes, channels, resolution and normalisation are inferred from the data.

    Args:
        source: "digits", "images:DIR", "segment:DIR", "arrays:FILE.npz", or (from Python) a map-style torch Dataset of
            (image, label), or a pair (train, test) of them.
        seed: decides what is split off where the source does not say.
        val_share: share of the training images that become the val part; 0 < val_share <= 0.5.
        skip_bad: how many unreadable image files are left out before they are an error (folders only).
        flip: whether a left-right flip keeps the label; None infers it.
        resolution: pixels, 8 to 512, that images are kept at: a side, or height and width; None infers it.
        metric: which of the kind's metrics decides; None leaves it to the data.
        group: what belongs together and stays in one part: a regular expression over file names, FILE.csv with the
            columns file and group; arrays say it themselves, by `group_train` or `group`.
        aspect: with `resolution` inferred, a height and width whose shape images get, as a network that is there
            takes them.

    Raises:
        BadInput: one sentence that says what is wrong, where, and what to do.
    """
    with said_at_the_end():
        return _loaded(source, Wishes(**wishes))


def _loaded(source: Any, wishes: Wishes) -> Task:
    if not isinstance(source, str):
        return dataset(source, wishes)
    if source == "dataset":
        raise BadInput(
            "the data set of this plan was handed over from Python, and must be again: edgewright.resume(FOLDER, "
            "dataset), or edgewright.design(task=dataset, ...)"
        )
    found = source_of(source)
    if found is None:
        raise BadInput(f"unknown task '{source}': give {choices()}{_hint(source)}")
    return found[0].read(found[1], wishes)


def read_given(text: str, spec: TaskSpec, part: str | None = None) -> Given:
    """Samples for a network of the task `spec`: of a source, or of an image file or a folder of them.

    part: "train", "val" or "test" where one of these is wanted, of places that have them.
    Errors: BadInput for what is not there, or is not what the task takes.
    """
    source, place = source_of(text) or (images.SOURCE, Path(text))
    with said_at_the_end():
        return source.given(place, spec, part)


def read_all_given(texts: Sequence[str], spec: TaskSpec) -> list[Given]:
    """The same of several, in order; image files and folders that follow each other are one."""
    found: list[Given] = []
    for is_source, group in itertools.groupby(texts, lambda text: source_of(text) is not None):
        if is_source:
            found += [read_given(text, spec) for text in group]
        else:
            found.append(given_files([Path(text) for text in group], spec))
    if not found:
        raise BadInput("no images given")
    return found


def _hint(source: str) -> str:
    if Path(source).is_dir():
        return f"; for this folder write 'images:{source}'"
    return f"; for this file write 'arrays:{source}'" if source.endswith(".npz") else ""
