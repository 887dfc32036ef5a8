"""Starts by what people write: a network's name, a run, a folder of either, "auto"; and the spaces that they open."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

from edgewright.core.errors import BadInput
from edgewright.core.home import user_path
from edgewright.core.progress import say
from edgewright.core.result import Result
from edgewright.core.run import RunFolder
from edgewright.core.weights import PICKLES, no_pickle
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
    it.   NAME.safetensors: a network of timm.   "auto": what is at hand, in the folder `beside` and in the hub's cache.
    Errors: BadInput for what is nothing of these, and for two of one name or of the same weights.
    """
    texts = _texts(text)
    if weights is not None and (len(texts) > 1 or not texts[0].startswith(tuple(NAMED))):
        raise BadInput("--weights belongs to one start that is named, timm:NAME or torchvision:NAME")
    found: list[Start] = []
    for one in texts:
        found += _one(one, None if weights is None else user_path(weights), download, beside)
    _check_apart(found)
    return found


def rooted(text: str) -> str:
    """The same with files and folders named from the root."""
    return ",".join(
        one if one == AUTO or one.startswith(tuple(NAMED)) else str(user_path(one).absolute()) for one in _texts(text)
    )


def named(start: Start) -> str:
    """A text that names this very start, whatever comes to lie beside it later."""
    file = Path(start.weights or "")
    for text in (start.source, str(file), str(file.parent)):
        with contextlib.suppress(BadInput):
            if [one.digest for one in _one(text, None, False, None)] == [start.digest]:
                return text
    raise BadInput(f"{file}: was there a moment ago, and cannot be read any more")


def _texts(text: str) -> list[str]:
    texts = [one.strip() for one in text.split(",") if one.strip()]
    if not texts:
        raise BadInput(f"--start '{text}' names nothing; give {_known()}, a run, a folder of either, or auto")
    return texts


def _known() -> str:
    return ", ".join(f"{prefix}NAME" for prefix in NAMED)


def _one(text: str, weights: Path | None, download: bool, beside: Path | None) -> list[Start]:
    for prefix, source in NAMED.items():
        if text.startswith(prefix):
            return [source.find(text, weights, download=download)]
    if text == AUTO:
        return list(at_hand(*([] if beside is None else [beside])))
    place = user_path(text)
    if (alone := _in_place(place)) is not None:
        return [alone]
    if not place.is_dir():
        raise BadInput(
            f"{text}: no start; give {_known()}, a run, NAME{ENDING} of a network of timm, a folder of such, or auto"
        )
    if RunFolder(place).begun_by:
        return [runs.find(place)]
    found, refused = _in_folder(place)
    if not found:
        why = f" ({refused[0]})" if refused else ""
        raise BadInput(f"{place}: holds neither a finished run nor a NAME{ENDING} of a network of timm{why}")
    for reason in refused:
        say(f"no start: {reason}")
    return found


def at_hand(*folders: Path) -> Iterator[Start]:
    """What could be started from here, of equal names or weights one: finished runs and networks in these folders, and
    the hub's cache."""
    seen, found = set[str](), list[Start]()
    for folder in folders:
        if folder.is_dir():
            here, refused = _in_folder(folder)
            found += here
            for reason in refused:
                say(f"no start: {reason}")
    for one in (*found, *timm.at_hand()):
        if not {one.source, one.digest} & seen:
            seen |= {one.source, one.digest}
            yield one


def _in_folder(folder: Path) -> tuple[list[Start], list[str]]:
    """The starts in a folder, and why others that look like one are none."""
    found, refused = list[Start](), list[str]()
    for place in sorted(folder.iterdir()):
        try:
            one = _in_place(place)
        except BadInput as error:
            refused.append(str(error) if str(place) in str(error) else f"{place}: {error}")
        else:
            found += [] if one is None else [one]
    return found, refused


def _in_place(place: Path) -> Start | None:
    """A finished run, a hub's folder (config.json and model.safetensors), a file NAME.safetensors; None for others."""
    if (place / "result.json").exists() and (place / "plan.yaml").exists():
        return runs.find(place)
    if (place / "config.json").exists() and (place / timm.FILE).exists():
        name = timm.name_in(place / "config.json")
        return None if name is None else timm.find(name, place / timm.FILE)
    if place.suffix in PICKLES and place.is_file():
        raise BadInput(no_pickle(place))
    return timm.find(place.stem, place) if place.suffix == ENDING and place.is_file() else None


def _check_apart(starts: list[Start]) -> None:
    for number, one in enumerate(starts):
        for other in starts[:number]:
            if one.source == other.source or one.digest == other.digest:
                raise BadInput(
                    f"two starts are the same: {other.source} ({other.weights}) and {one.source} ({one.weights}); "
                    "name each once"
                )


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
    if start.pixels != bool(taken.white):  # the units of one of them are not known
        mean = std = ()
    try:
        space = ShrunkSpace(task.signature.inputs, kind_of(task).head, opened, mean, std)
        space.stem(space.whole())  # what cannot be drawn is refused here, not in the middle of a search
        return space
    except BadInput as error:
        raise BadInput(f"{start.source}: cannot be started from: {error}") from None


def open_space(name: str, spec: TaskSpec, start: Start | None = None) -> Space:
    """The space of that name for a task; that of the start, where there is one. Kept as long as the process lives."""
    return _opened(name, spec.model_dump_json(), start)  # pyright: ignore[reportArgumentType]


def space_of(run: RunFolder, result: Result, spec: TaskSpec) -> Space:
    """The space that a finished run's architecture is of."""
    if result.start is None:
        return open_space(run.read_plan().space, spec)
    known = {name: value for name, value in result.start.items() if name in Start.model_fields}
    start = Start.parse({**known, "weights": None}, str(run.result))
    if run.start.is_dir():
        start = start.model_copy(update={"source": str(run.start)})
    return open_space(ShrunkSpace.name, spec, start)


def stands_alone(start: Start, run: RunFolder) -> None:
    """Keep in a run what its network's structure follows from, where no library has it."""
    if not start.source.startswith(tuple(NAMED)):
        runs.keep(RunFolder(Path(start.source)), run)
