"""Starts by what people write: a network's name, a run, a folder of either, "auto"; and the spaces that they open."""

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

from edgewright.core.data import read_json
from edgewright.core.errors import BadInput
from edgewright.core.home import user_path
from edgewright.core.result import Result
from edgewright.core.run import RunFolder
from edgewright.model.timm_model import is_timm
from edgewright.space.base import Space
from edgewright.space.resolve import make_space
from edgewright.start.shrunk import ShrunkSpace
from edgewright.start.sources import run as runs
from edgewright.start.sources import timm, torchvision
from edgewright.start.start import Opened, Start
from edgewright.task.base import TaskSpec, kind_of

NAMED = {one.PREFIX: one for one in (timm, torchvision)}
AUTO = "auto"
ENDING = ".safetensors"


def find_starts(
    text: str, weights: str | None = None, *, download: bool = False, beside: Path | None = None
) -> list[Start]:
    """The starts that a text names, in its order; several are set apart by commas.

    "timm:NAME", "torchvision:NAME": with `weights`, a safetensors file.   A folder: a run, or every run and network in
    it.   "auto": what is at hand, in the folder `beside` and in the hub's cache.
    Errors: BadInput for what is nothing of these, and for two of one name or of the same weights.
    """
    texts = [one.strip() for one in text.split(",") if one.strip()]
    if weights is not None and (len(texts) > 1 or not any(texts[0].startswith(prefix) for prefix in NAMED)):
        raise BadInput("--weights belongs to one start that is named, timm:NAME or torchvision:NAME")
    found: list[Start] = []
    for one in texts:
        found += _one(one, None if weights is None else user_path(weights), download, beside)
    _check_apart(found)
    return found


def rooted(text: str) -> str:
    """The same with folders named from the root."""
    texts = [one.strip() for one in text.split(",") if one.strip()]
    plain = (AUTO, *NAMED)
    return ",".join(one if one.startswith(plain) else str(user_path(one).absolute()) for one in texts)


def _one(text: str, weights: Path | None, download: bool, beside: Path | None) -> list[Start]:
    for prefix, source in NAMED.items():
        if text.startswith(prefix):
            return [source.find(text, weights, download=download)]
    if text == AUTO:
        return list(at_hand(*([] if beside is None else [beside])))
    folder = user_path(text)
    if not folder.is_dir():
        known = ", ".join(f"{prefix}NAME" for prefix in NAMED)
        raise BadInput(f"{text}: no start; give {known}, the folder of a run or of several networks, or auto")
    if RunFolder(folder).begun_by:
        return [runs.find(folder)]
    found = list(_in_folder(folder))
    if not found:
        raise BadInput(f"{folder}: holds neither a finished run nor a NAME{ENDING} of a network of timm")
    return found


def at_hand(*folders: Path) -> Iterator[Start]:
    """What could be started from here: finished runs and networks in folders, and the hub's cache; equal ones once."""
    seen = set[str]()
    places = (_in_folder(folder) for folder in folders if folder.is_dir())
    for one in itertools.chain(*places, timm.at_hand()):
        if one.digest not in seen:
            seen.add(one.digest)
            yield one


def _in_folder(folder: Path) -> Iterator[Start]:
    """Finished runs, hub's folders (config.json and model.safetensors) and files NAME.safetensors."""
    for place in sorted(folder.iterdir()):
        if place.is_dir() and (place / "result.json").exists() and (place / "plan.yaml").exists():
            try:
                yield runs.find(place)
            except BadInput:  # of another version, or altered: it is no start, and the others are
                continue
        elif place.is_dir() and (place / "config.json").exists() and (place / timm.FILE).exists():
            name = read_json(place / "config.json").get("architecture", "")
            yield timm.find(str(name), place / timm.FILE)
        elif place.suffix == ENDING and place.is_file() and is_timm(place.stem):
            yield timm.find(place.stem, place)


def _check_apart(starts: list[Start]) -> None:
    for number, one in enumerate(starts):
        for other in starts[:number]:
            if one.source == other.source or one.digest == other.digest:
                raise BadInput(f"two starts are the same: {other.source} and {one.source}; name each once")


@functools.lru_cache(maxsize=4)
def open_start(start: Start) -> Opened:
    """The start with its network.   Errors: BadInput for weights of another network."""
    for prefix, source in NAMED.items():
        if start.source.startswith(prefix):
            return source.open_start(start)
    return runs.open_start(start, space_of)


@functools.lru_cache(maxsize=16)
def _opened(name: str, spec: str, start: Start | None) -> Space:
    task = TaskSpec.model_validate_json(spec)
    if start is None:
        return make_space(name, task)
    taken = task.input
    white = taken.white or 1.0
    mean, std = (tuple(value / white for value in values) for values in (taken.mean, taken.std))
    opened = open_start(start)  # pyright: ignore[reportArgumentType] (frozen models are hashable)
    return ShrunkSpace(task.signature.inputs, kind_of(task).head, opened, mean, std)


def open_space(name: str, spec: TaskSpec, start: Start | None = None) -> Space:
    """The space of that name for a task; that of the start, where there is one. Kept as long as the process lives."""
    return _opened(name, spec.model_dump_json(), start)  # pyright: ignore[reportArgumentType]


def space_of(run: RunFolder, result: Result, spec: TaskSpec) -> Space:
    """The space that a finished run's architecture is of."""
    if result.start is None:
        return open_space(run.read_plan().space, spec)
    known = {name: value for name, value in result.start.items() if name in Start.model_fields}
    return open_space(ShrunkSpace.name, spec, Start.parse({**known, "weights": None}, str(run.result)))
