"""A task from a folder of images, one sub-folder a class; and images read alone, for prediction."""

import itertools
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from edgewright.core.errors import BadInput, EdgewrightError, one_line
from edgewright.core.pool import cores
from edgewright.core.progress import progress, say
from edgewright.core.tensors import Size, sides
from edgewright.task.assemble import Described, assemble, fingerprint, is_text, to_side
from edgewright.task.base import InputSpec, Split, Task, TaskSpec, Wishes
from edgewright.task.kinds.classification import Classification
from edgewright.task.split import stratified

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif"}
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")  # Pillow knows many more, some of which start other programs
GRAY_MODES = {"1", "L", "LA", "I", "F"}
IN_MEMORY_BYTES = 2 * 2**30
AT_ONCE = 256  # images decoded and not yet stored, so that memory stays bounded


class Listing(NamedTuple):
    """The image files of one part, sorted by path, and the class of each."""

    paths: list[Path]
    labels: list[int]


class Header(NamedTuple):
    shorter: int
    gray: bool


def images(folder: Path, wishes: Wishes) -> Task:
    """Read a folder per class (files anywhere below it; names that begin with a dot are left out).

    `train/` with `val/` and `test/` inside are used as named; with only one of these two, it is the test part, and val
    is split off train; with none, or without `train/`, test (20 %) and val are split off, stratified by the seed.
    Each image is turned as its EXIF orientation says, laid over white where transparent, resized by its shorter side
    (antialiased) and cropped to the central square. One channel if every image is gray, else RGB; uint8.
    Resolution: the median of the shorter sides, as it is from 8 to 32 px, else rounded to a multiple of 8, at most 224.
    Flips: on, unless the class names are all numbers or single letters (text must not be mirrored).
    More than 2 GiB of pixels are kept in an unnamed temporary file (in TMPDIR), not in memory.
    """
    classes, parts = _list_parts(folder)
    pool = parts["train"]
    where = f"images:{folder}"
    least = 1 + ("val" not in parts) + ("test" not in parts)  # said now: decoding can take long
    Classification(tuple(classes), {}).check(torch.tensor(pool.labels), least, where)
    layout = _layout(parts, wishes)
    order = [path for paths, _ in layout.values() for path in paths]
    bad = _Faults(wishes.skip_bad, "; mend or remove them, or leave them out with --skip-bad N")
    with ThreadPoolExecutor(cores()) as threads:
        headers = [header for header in _through(threads, _header, order, bad, "Looking at images") if header]
        if not headers:
            bad.check()
            raise BadInput(f"{folder}: none of its {len(order)} images can be read")
        size = sides(wishes.resolution or _infer_side(header.shorter for header in headers))
        channels = 1 if all(header.gray for header in headers) else 3
        splits, paths = _decode_parts(threads, layout, channels, size, bad)
    described = Described(
        name=folder.resolve().name,
        source=where,
        names=tuple(classes),
        flip=not is_text(classes),
        digest=_digest(classes, list(splits.values()), paths),
    )
    return assemble(described, wishes, train=splits["train"], val=splits["val"], test=splits["test"])


def read_images(paths: Sequence[Path], spec: TaskSpec) -> torch.Tensor:
    """Images for prediction, as the task keeps its own: (N, C, H, W) raw.

    Folders are expanded by `expand_images`, in whose order the images come. uint8, or float32 where the task's own are
    floats within 0..1. Unreadable files are one BadInput that names them.
    """
    one = only_map(spec)
    if one.white == 0:
        raise BadInput(
            f"task '{spec.name}' learned from float arrays of unknown scale: image files cannot be read for it"
        )
    channels, *size = one.shape
    if channels not in (1, 3, 4):
        raise BadInput(f"task '{spec.name}' has {channels} channels: image files cannot be read for it")
    files = expand_images(paths)
    bad = _Faults(0)
    stored = np.empty((len(files), *one.shape), np.uint8)
    with ThreadPoolExecutor(cores()) as threads:
        decode = _decoder(channels, (size[0], size[1]), one.fit)
        for row, image in enumerate(_through(threads, decode, files, bad, "Reading images")):
            if image is not None:
                stored[row] = image
    bad.check()
    raw = torch.from_numpy(stored)
    return raw if one.white == 255 else raw.float() * (one.white / 255)


def size_of(path: Path) -> Size:
    """Height and width of an image file, as it is shown: turned as its EXIF orientation says."""
    with Image.open(path, formats=FORMATS) as image:
        width, height = ImageOps.exif_transpose(image).size
    return height, width


def only_map(spec: TaskSpec) -> InputSpec:
    """The one input of a task that takes images.   Errors: BadInput for a task that takes something else."""
    if len(spec.inputs) != 1 or not spec.inputs[0].is_map:
        told = ", ".join(one.name for one in spec.inputs)
        raise BadInput(f"task '{spec.name}' takes {told}: image files alone cannot be read for it")
    return spec.inputs[0]


def expand_images(paths: Sequence[Path]) -> list[Path]:
    """Files as given; each folder replaced by the image files below it, sorted."""
    files = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = _files(path)
            if not inside:
                raise BadInput(f"{path}: no images in this folder ({_kinds()})")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise BadInput(f"{path}: no such file or folder")
    if not files:
        raise BadInput("no images given")
    return files


def _list_parts(folder: Path) -> tuple[list[str], dict[str, Listing]]:
    if not folder.exists():
        raise BadInput(f"{folder}: no such folder")
    if not folder.is_dir():
        raise BadInput(f"{folder}: not a folder")
    if not (_folders(folder / "train") if (folder / "train").is_dir() else []):
        names = {path.name for path in _folders(folder)}
        if names and names <= {"val", "test"} and any(_folders(folder / name) for name in names):
            raise BadInput(
                f"{folder}: has {' and '.join(sorted(names))}/ but no train/ with a sub-folder for each class"
            )
        classes, listing = _list_classes(folder)
        return classes, {"train": listing}
    classes, listing = _list_classes(folder / "train")
    named = {"train": listing}
    for part in ("val", "test"):
        if (folder / part).is_dir():
            others, named[part] = _list_classes(folder / part)
            _check_same(folder, classes, part, others)
    if "val" in named and "test" not in named:
        named["test"] = named.pop("val")
    return classes, named


def _check_same(folder: Path, classes: list[str], part: str, others: list[str]) -> None:
    for mine, theirs, lacking in ((classes, others, part), (others, classes, "train")):
        missing = sorted(set(mine) - set(theirs))
        if missing:
            told = ", ".join(f"'{name}'" for name in missing[:5])
            raise BadInput(f"{folder}: classes of train/ and {part}/ must agree, but {lacking}/ has no {told}")


def _list_classes(folder: Path) -> tuple[list[str], Listing]:
    classes = [path.name for path in _folders(folder)]
    paths: list[Path] = []
    labels: list[int] = []
    empty = []
    for label, name in enumerate(classes):
        files = _files(folder / name)
        paths += files
        labels += [label] * len(files)
        if not files:
            empty.append(name)
    if not paths:
        loose = len([path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES])
        hint = f"; {loose} lie in it directly, move them into one sub-folder for each class" if loose else ""
        raise BadInput(f"{folder}: no images ({_kinds()}) in sub-folders{hint}")
    if len(classes) == 1:
        raise BadInput(f"{folder}: one class only ('{classes[0]}'); there is nothing to tell apart")
    if empty:
        raise BadInput(f"{folder}: class '{empty[0]}' has no images; add some or remove the folder")
    return classes, Listing(paths, labels)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".") and _is_image(name)]
    return sorted(found)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122 (a Path a name is slow in a big folder)


def _kinds() -> str:
    return ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))


def _layout(parts: dict[str, Listing], wishes: Wishes) -> dict[str, Listing]:
    """The listings of train, val and test; decided before decoding, so that no pixel is copied for a split."""
    train = parts["train"]
    splits: dict[str, Listing] = {}
    shares = {"test": 0.2, "val": wishes.val_share}
    for name, share in shares.items():
        if name in parts:
            splits[name] = parts[name]
        else:
            kept, held = stratified(torch.tensor(train.labels), share, wishes.seed, name)
            train, splits[name] = _take(train, kept), _take(train, held)
    return {"train": train, "val": splits["val"], "test": splits["test"]}


def _take(listing: Listing, index: torch.Tensor) -> Listing:
    rows = index.tolist()
    return Listing([listing.paths[row] for row in rows], [listing.labels[row] for row in rows])


def _infer_side(shorter: Iterable[int]) -> int:
    median = statistics.median(shorter)
    return to_side(round(median) if median <= 32 else int(median / 8 + 0.5) * 8)


class _Faults:
    """Images that could not be read; more than `allowed` of them are an error, which ends in the `remedy`."""

    def __init__(self, allowed: int, remedy: str = "") -> None:
        self.allowed, self.remedy = allowed, remedy
        self.found: dict[Path, str] = {}

    def check(self) -> None:
        """Refuse too many; say which are left out."""
        if not self.found:
            return
        first = "; ".join(f"{path} ({reason})" for path, reason in itertools.islice(self.found.items(), 5))
        rest = f"; and {len(self.found) - 5} more" if len(self.found) > 5 else ""
        allowed = f", more than the {self.allowed} that may be skipped" if self.allowed else ""
        files = f"{len(self.found)} unreadable or truncated image file{'s' if len(self.found) > 1 else ''}"
        if len(self.found) > self.allowed:
            raise BadInput(f"{files}{allowed}: {first}{rest}{self.remedy}")
        say(f"left out {files}: {first}{rest}")


def _through(
    threads: ThreadPoolExecutor, function: Callable[[Path], Any], paths: Sequence[Path], bad: _Faults, label: str
) -> Iterator[Any]:
    """function(path) for each path, in order; None, and a note in `bad`, where it fails."""

    def guarded(path: Path) -> Any:
        if path in bad.found:
            return None
        try:
            return function(path)
        except Exception as error:  # a broken file makes Pillow raise almost anything
            return error

    with progress(label, total=len(paths)) as bar:
        for start in range(0, len(paths), AT_ONCE):
            part = paths[start : start + AT_ONCE]
            for path, value in zip(part, threads.map(guarded, part), strict=True):
                if isinstance(value, Exception):
                    bad.found[path] = _reason(value)
                    value = None
                yield value
            bar.advance(len(part))


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image of a known kind"
    return one_line(error)


def _header(path: Path) -> Header:
    """Size and colour of an image without decoding it."""
    with Image.open(path, formats=FORMATS) as image:
        gray = image.mode in GRAY_MODES or image.mode.startswith("I;16")
        if image.mode == "P" and image.palette is not None:
            colours = np.array(image.getpalette("RGB") or [0]).reshape(-1, 3)
            gray = bool((colours == colours[:, :1]).all())
        return Header(min(image.size), gray)


def _decoder(channels: int, size: Size, fit: str = "crop") -> Callable[[Path], np.ndarray]:
    """A function from a path to (C, *size) uint8."""
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]

    def decode(path: Path) -> np.ndarray:
        with Image.open(path, formats=FORMATS) as image:
            # A JPEG far bigger than needed is decoded at a half, a quarter, ...
            image.draft(None, (2 * size[1], 2 * size[0]))
            image.load()
            upright = ImageOps.exif_transpose(image)
            small = _fitted(_in_mode(upright, mode), size, fit)
        pixels = np.asarray(small)
        return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)

    return decode


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip, not scale
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert(mode)
    if mode != "RGBA" and image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert(mode)
    return image if image.mode == mode else image.convert(mode)


def _fitted(image: Image.Image, size: Size, fit: str) -> Image.Image:
    """The central part of the wanted shape, or with fit "whole" all of it, at `size` in one antialiased step."""
    width, height = image.size
    if (height, width) == size:
        return image
    across, down = width, height
    if fit == "crop":
        scale = min(height / size[0], width / size[1])
        down, across = min(height, round(size[0] * scale)), min(width, round(size[1] * scale))
    left, top = (width - across) // 2, (height - down) // 2
    box = (left, top, left + across, top + down)
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box)


def _decode_parts(
    threads: ThreadPoolExecutor, layout: dict[str, Listing], channels: int, size: Size, bad: _Faults
) -> tuple[dict[str, Split], list[Path]]:
    """Every part decoded into one array, part after part, and the paths of its rows; bad images leave no gap."""
    paths = [path for part in layout.values() for path in part.paths]
    labels = [label for part in layout.values() for label in part.labels]
    stored = _room((len(paths), channels, *size))
    ends = list(itertools.accumulate(len(part.paths) for part in layout.values()))
    rows: list[int] = []
    for number, image in enumerate(_through(threads, _decoder(channels, size), paths, bad, "Decoding images")):
        if image is not None:
            stored[len(rows)] = image
            rows.append(number)
        elif len(bad.found) > max(bad.allowed, 1000):
            break  # hopeless; say so now
    bad.check()
    pixels = torch.from_numpy(stored)
    splits, start = {}, 0
    for name, end in zip(layout, ends, strict=True):
        stop = sum(row < end for row in rows)
        splits[name] = Split(pixels[start:stop], torch.tensor([labels[row] for row in rows[start:stop]]))
        if start == stop:
            raise BadInput(f"no readable image is left in the {name} part")
        start = stop
    return splits, [paths[row] for row in rows]


def _room(shape: tuple[int, ...]) -> np.ndarray:
    """An uint8 array; a big one lies in an unnamed temporary file, which vanishes with the process."""
    size = int(np.prod(shape, dtype=np.int64))
    if size <= IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile(prefix="edgewright-") as file:
        try:
            # Reserved now: a full disk must be an error here, not a crash when a page is written later.
            os.posix_fallocate(file.fileno(), 0, size) if hasattr(os, "posix_fallocate") else file.truncate(size)
        except OSError as error:
            raise EdgewrightError(
                f"{tempfile.gettempdir()}: no room for {size / 2**30:.1f} GiB of decoded images ({error.strerror}); "
                "set TMPDIR to a disk with more space, or give a smaller resolution"
            ) from None
        return np.memmap(file, np.uint8, "r+", shape=shape)


def _digest(classes: Sequence[str], splits: Sequence[Split], paths: Sequence[Path]) -> str:
    """The fingerprint in the order of the paths: the same whatever seed has split them."""
    order = torch.tensor(sorted(range(len(paths)), key=paths.__getitem__))
    base = splits[0].inputs
    whole = torch.as_strided(base, (len(paths), *base.shape[1:]), base.stride())  # the parts lie one after the other
    labels = torch.cat([split.targets for split in splits])
    return fingerprint(classes, Split(whole, labels), order=order)
