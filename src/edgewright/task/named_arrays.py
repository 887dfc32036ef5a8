"""What an .npz file of samples holds: inputs and targets by part and by name.

x_train, y_train, x_test, y_test, x_val, y_val     parts;  x, y  where they are not split yet
group_train, or group                              (N,), what belongs together and stays in one part: numbers or names
x_train.depth, y_train.colour                      one of several inputs, or targets
classes, classes.colour                            what the numbers of a target mean
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgewright.core.errors import BadInput
from edgewright.core.npz import opened_npz
from edgewright.core.progress import say

KEY = re.compile(r"(?P<side>[xy])(?:_(?P<part>train|val|test))?(?:\.(?P<name>.+))?|classes(?:\.(?P<of>.+))?")
GROUP = re.compile(r"group(?:_(?P<part>train|val|test))?")
NEEDED = ("x_train", "y_train", "x_test", "y_test")
UNSPLIT = ""  # the part of x and y
MOST_TOLD = 5


@dataclass(frozen=True)
class NamedArrays:
    """x, y: inputs and targets by part, then by name; one alone is called "".   classes: names by target.   groups: by
    part.   keys: all that the file has; `strange` ones say nothing."""

    path: Path
    x: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    y: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    groups: dict[str, np.ndarray] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that a task is made of: train first, or what is not split alone."""
        if UNSPLIT in self.x and "train" not in self.x:
            return (UNSPLIT,)
        return tuple(part for part in ("train", "val", "test") if part in self.x)

    def class_key(self, target: str) -> str:
        """The name under which a target's classes are named: its own, or none where it is the only one."""
        alone = len(self.y[self.parts[0]]) == 1
        return "" if alone and target not in self.classes else target

    def names_of(self, part: str) -> dict[str, list[str]]:
        """What the numbers of a part's targets mean, by target, "" for one alone; where the file says it."""
        targets = self.y.get(part, {})
        if len(targets) == 1:
            (name,) = targets
            found = self.classes.get(name) or self.classes.get("")
            return {"": found} if found else {}
        return {name: self.classes[name] for name in targets if name in self.classes}


def key(side: str, part: str, name: str = "") -> str:
    """What an array is called in the file: x_train.depth."""
    return f"{side}{'_' if part else ''}{part}{'.' if name else ''}{name}"


def read_arrays(path: Path) -> NamedArrays:
    """All of a file that says something, whatever of it is there.

    Errors: BadInput for what is no .npz file, and for names that are not the same in every part.
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    with path.open("rb") as file:
        if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
            raise BadInput(f"{path}: not an .npz file; write one with numpy.savez, with {', '.join(NEEDED)}")
    found = NamedArrays(path)
    with opened_npz(path) as file:
        found.keys.extend(file.files)
        for name in file.files:
            match = KEY.fullmatch(name)
            if grouped := GROUP.fullmatch(name):
                found.groups[grouped["part"] or UNSPLIT] = file[name]
            elif match is None:
                found.strange.append(name)
            elif match["side"]:
                side = found.x if match["side"] == "x" else found.y
                side.setdefault(match["part"] or UNSPLIT, {})[match["name"] or ""] = file[name]
            else:
                found.classes[match["of"] or ""] = _names(file[name], f"{path}: {name}")
    _check_names(found)
    return found


def check_whole(file: NamedArrays) -> None:
    """Refuse a file that no task can be made of; say which arrays are not used."""
    unsplit = UNSPLIT in file.x and not {"train", "test"} & {*file.x, *file.y}
    wanted = [("x", file.x), ("y", file.y)]
    parts = [UNSPLIT] if unsplit else ["train", "test"]
    missing = [key(side, part) for part in parts for side, there in wanted if part not in there]
    if missing:
        raise BadInput(f"{file.path}: {', '.join(missing)} missing; the file has {', '.join(file.keys) or 'nothing'}")
    if ("val" in file.x) != ("val" in file.y):
        raise BadInput(
            f"{file.path}: x_val and y_val come together; only {'x' if 'val' in file.x else 'y'}_val is there"
        )
    unused = [key(side, part, name) for side, there in wanted for part, inside in there.items() for name in inside
              if part not in file.parts]  # fmt: skip
    used = {file.class_key(name) for name in file.y[file.parts[0]]}
    unused += [f"classes{'.' * bool(name)}{name}" for name in file.classes if name not in used]
    if others := [*unused, *file.strange]:
        more = ", ..." if len(others) > MOST_TOLD else ""
        say(f"{file.path}: left out {len(others)} arrays: {', '.join(others[:MOST_TOLD])}{more}")


def _check_names(file: NamedArrays) -> None:
    for side, parts in (("x", file.x), ("y", file.y)):
        first = parts.get("train", next(iter(parts.values()), {}))
        for part, arrays in parts.items():
            alike = {*arrays} == {*first} or (part == UNSPLIT and "train" in parts)
            if not alike or ("" in arrays and len(arrays) > 1):
                told = " and ".join(key(side, part, name) for name in arrays)
                raise BadInput(f"{file.path}: {told}: give every part the same names, or one array without a name")
        strange = [name for name in first if name and (not name.isidentifier() or name == "self")]
        if strange:
            raise BadInput(
                f"{file.path}: {side}_....{strange[0]}: '{strange[0]}' is not a name of letters, digits and _"
            )


def _names(given: np.ndarray, where: str) -> list[str]:
    if given.ndim != 1 or given.dtype.kind not in "US":
        raise BadInput(f"{where} must be a one-dimensional array of strings, not {given.dtype}")
    names = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in given.tolist()]
    if len(set(names)) != len(names):
        raise BadInput(f"{where} has a name twice")
    return names
