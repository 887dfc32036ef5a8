"""Files below a folder, and which folder is which part of a data set.

What is not used is counted by its reason and told in one line: nothing is left out in silence.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from edgewright.core.errors import BadInput
from edgewright.core.progress import say

# What people call the parts of a data set, in any case.
WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
STRANGER = "not images"
LOOP = "behind links to folders that are read already"
HIDDEN = "hidden"
BESIDE = "beside the folders that are read"
SPECIAL = "neither files nor folders"
MOST_ENDINGS = 5


class LeftOut:
    """Files (and hidden folders) that are not used: how many by reason, and which endings those that are no images
    have."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.endings: Counter[str] = Counter()

    def add(self, reason: str, count: int = 1) -> None:
        self.reasons[reason] += count

    def stranger(self, path: Path) -> None:
        """A file that holds no image."""
        self.reasons[STRANGER] += 1
        self.endings[path.suffix.lower() or "no ending"] += 1

    def __str__(self) -> str:
        """ "12 files: 10 not images (.txt, .csv), 2 hidden"; "" where nothing was left out."""
        told = [f"{count:,} {self._said(reason)}" for reason, count in self.reasons.items() if count]
        count = self.reasons.total()
        return f"{count:,} file{'s' if count > 1 else ''}: {', '.join(told)}" if count else ""

    def _said(self, reason: str) -> str:
        if reason != STRANGER:
            return reason
        names = [name for name, _ in self.endings.most_common(MOST_ENDINGS)]
        more = ", ..." if len(self.endings) > MOST_ENDINGS else ""
        return f"{'not an image' if self.reasons[reason] == 1 else reason} ({', '.join(names)}{more})"

    def tell(self, where: object) -> None:
        """Say it, where there is something to say."""
        if self.reasons.total():
            say(f"{where}: left out {self}")


def part_of(name: str) -> str | None:
    """ "train", "val" or "test" for a folder that is called so in one of the usual words; else None."""
    return next((part for part, words in WORDS.items() if name.lower() in words), None)


def folders_in(folder: Path) -> list[Path]:
    """The folders in it, links among them, sorted by name; not the hidden ones."""
    return sorted(path for path in _inside(folder) if path.is_dir() and not path.name.startswith("."))


def parts_in(folder: Path) -> dict[str, Path]:
    """The folders in it that are called as a part of a data set is, by part.

    Errors: BadInput where two are called as the same part, and one is there to train on.
    """
    found: dict[str, list[Path]] = {}
    for path in folders_in(folder):
        if part := part_of(path.name):
            found.setdefault(part, []).append(path)
    for part, paths in found.items() if "train" in found else ():
        if len(paths) > 1:
            both = " and ".join(f"{path.name}/" for path in paths)
            raise BadInput(f"{folder}: {both} both say '{part}'; put their files into one of them, or rename one")
    return {part: paths[0] for part, paths in found.items()}


def files_below(folder: Path, left_out: LeftOut) -> list[Path]:
    """Every file below a folder, sorted by path, behind links too; a folder that is reached twice is read once, one
    that it lies in not at all.

    Names that begin with a dot, and what is neither file nor folder, are left out.
    """
    around = (folder, *folder.absolute().parents)  # a link to one of them would bring in other classes
    return sorted(_files(folder, {_identity(one) for one in around}, left_out))


def count_beside(folder: Path, used: set[Path], left_out: LeftOut) -> None:
    """Note what lies in a folder besides those that are used: files, hidden names, other folders' files."""
    for path in _inside(folder):
        if path in used:
            continue
        if path.name.startswith("."):
            left_out.add(HIDDEN)
        else:
            left_out.add(BESIDE, len(files_below(path, LeftOut())) if path.is_dir() else 1)


def _files(folder: Path, seen: set[tuple[int, int]], left_out: LeftOut) -> Iterator[Path]:
    with _scanned(folder) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        if entry.name.startswith("."):
            left_out.add(HIDDEN)
        elif entry.is_dir():
            identity = _identity(Path(entry.path))
            if identity in seen:
                left_out.add(LOOP)
            else:
                seen.add(identity)
                yield from _files(Path(entry.path), seen, left_out)
        elif entry.is_file() or entry.is_symlink():  # a link to nowhere is a file that cannot be read
            yield Path(entry.path)
        else:  # reading from a pipe or a socket would wait for ever
            left_out.add(SPECIAL)


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _scanned(folder: Path) -> AbstractContextManager[Iterator["os.DirEntry[str]"]]:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read ({error.strerror})") from None


def _inside(folder: Path) -> list[Path]:
    with _scanned(folder) as entries:
        return [Path(entry.path) for entry in entries]
