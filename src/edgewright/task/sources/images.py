"""A task from a folder of images, one sub-folder a class."""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from edgewright.core.errors import BadInput
from edgewright.core.pool import cores
from edgewright.core.progress import say
from edgewright.task import deep
from edgewright.task.assemble import Described, assemble, fingerprint, is_text
from edgewright.task.base import Split, Task, TaskSpec, Wishes
from edgewright.task.finding import LeftOut, count_beside, files_below, folders_in, part_of, parts_in
from edgewright.task.group import groups_of, numbered, torn
from edgewright.task.image_files import given_files
from edgewright.task.kinds.classification import Classification
from edgewright.task.pixels import (
    Faults,
    Header,
    Kept,
    decoder,
    endings,
    formats,
    header_of,
    remarks_in_one_line,
    room,
    through,
)
from edgewright.task.sizes import frame_of
from edgewright.task.source import Given, Source
from edgewright.task.split import stratified


class Listing(NamedTuple):
    """The image files of one part, sorted by path, and the class of each."""

    paths: list[Path]
    labels: list[int]


def images(folder: Path, wishes: Wishes) -> Task:
    """Read a folder per class: files anywhere below it, behind links too, of every format that Pillow reads, whatever
    their names end in. What is not used is counted and told.

    `train/` with `val/` and `test/` inside (in any case, or as `finding.WORDS` has them) are used as named; with only
    one of these two, it is the test part, and val is split off train; with none, or without `train/`, test (20 %) and
    val are split off, stratified by the seed.
    Each image is turned as its EXIF orientation says, laid over white where transparent, and brought to one size
    (antialiased), whole where all have one aspect, else the central part (`sizes.frame_of`). One channel if every
    image is gray, else RGB; uint8 (`deep` says what becomes of more bits).
    Flips: on, unless the class names are all numbers or single letters (text must not be mirrored).
    More than 2 GiB of pixels are kept in an unnamed temporary file (in TMPDIR), not in memory.
    """
    where, left_out = f"images:{folder}", LeftOut()
    bad = Faults(wishes.skip_bad, "; mend or remove them, or leave them out with --skip-bad N")
    classes, parts = _found(folder, left_out)
    with remarks_in_one_line(where), ThreadPoolExecutor(cores()) as threads:
        parts, headers = _looked_at(threads, parts, bad, left_out)
        _check(folder, classes, parts)
        groups = _groups(folder, parts, wishes.group)
        least = 1 + ("val" not in parts) + ("test" not in parts)  # said now: decoding can take long
        Classification(tuple(classes), {}).check(torch.tensor(parts["train"].labels), least, where)
        layout = _layout(parts, wishes, groups)
        kept = _kept(threads, headers, wishes, bad)
        splits, paths = _decode_parts(threads, layout, kept, bad)
    left_out.tell(where)
    described = Described(
        name=folder.resolve().name,
        source=where,
        names=tuple(classes),
        flip=not is_text(classes),
        fit=kept.fit,
        test_drawn="test" not in parts,
        white=255.0,
        deep_white=kept.deep_white,
        digest=_digest(classes, list(splits.values()), paths),
    )
    return assemble(described, wishes, train=splits["train"], val=splits["val"], test=splits["test"])


def given(folder: Path, spec: TaskSpec, part: str | None) -> Given:
    """The images below a folder (or an image); with the names of its sub-folders as targets, where it has some."""
    places = parts_in(folder) if part and folder.is_dir() else {}
    place = places.get(part or "", folder)
    found = replace(given_files([place], spec), part=part if part in places else None)
    names = [path.name for path in folders_in(place)] if place.is_dir() else []
    known = {name: index for index, name in enumerate(names)}
    labels = [known.get(Path(file).relative_to(place).parts[0]) for file in found.files] if known else []
    if not labels or None in labels:
        return found
    return replace(found, targets=torch.tensor(labels), names={"": names})


SOURCE = Source("images", "DIR", "a folder for each class", images, given)


def _found(folder: Path, left_out: LeftOut) -> tuple[list[str], dict[str, Listing]]:
    """Names of the classes, and by part the files in their folders, whatever they are."""
    if not folder.exists():
        raise BadInput(f"{folder}: no such folder")
    if not folder.is_dir():
        raise BadInput(f"{folder}: not a folder")
    places = _places(folder, left_out)
    classes = [path.name for path in folders_in(places["train"])]
    if not classes:
        raise BadInput(f"{places['train']}: no images in sub-folders{_loose(places['train'])}")
    parts = {}
    for part, place in places.items():
        folders = folders_in(place)
        _check_same(folder, classes, place.name, [path.name for path in folders])
        count_beside(place, {*folders}, left_out)
        files = [files_below(path, left_out) for path in folders]
        labels = [label for label, inside in enumerate(files) for _ in inside]
        parts[part] = Listing(list(itertools.chain(*files)), labels)
    return classes, parts


def _places(folder: Path, left_out: LeftOut) -> dict[str, Path]:
    """The folder that holds the classes of each part that is there."""
    places = parts_in(folder)
    if "train" not in places or not folders_in(places["train"]):
        inside = folders_in(folder)
        if inside and all(part_of(path.name) in ("val", "test") for path in inside) and any(map(folders_in, inside)):
            told = " and ".join(path.name for path in inside)
            raise BadInput(f"{folder}: has {told}/ but no train/ with a sub-folder for each class")
        return {"train": folder}
    count_beside(folder, {*places.values()}, left_out)
    if "val" in places and "test" not in places:
        places["test"] = places.pop("val")
    return places


def _check_same(folder: Path, classes: list[str], part: str, others: list[str]) -> None:
    for mine, theirs, lacking in ((classes, others, part), (others, classes, "train")):
        missing = sorted(set(mine) - set(theirs))
        if missing:
            told = ", ".join(f"'{name}'" for name in missing[:5])
            raise BadInput(f"{folder}: classes of train/ and {part}/ must agree, but {lacking}/ has no {told}")


def _loose(folder: Path) -> str:
    loose = [path for path in folder.iterdir() if path.suffix.lower() in endings()]
    return f"; {len(loose)} lie in it directly, move them into one sub-folder for each class" if loose else ""


def _looked_at(
    threads: ThreadPoolExecutor, parts: dict[str, Listing], bad: Faults, left_out: LeftOut
) -> tuple[dict[str, Listing], dict[Path, Header]]:
    """The parts without files that are no images, and what the headers of the others say."""
    files = [path for part in parts.values() for path in part.paths]
    headers: dict[Path, Header] = {}
    strangers: set[Path] = set()
    for path, header in zip(files, through(threads, header_of, files, bad, "Looking at images"), strict=True):
        if header is not None:
            headers[path] = header
        elif path not in bad.found:
            strangers.add(path)
            left_out.stranger(path)
    kept = {name: _take(part, [i for i, path in enumerate(part.paths) if path not in strangers])
            for name, part in parts.items()}  # fmt: skip
    if not headers and bad.found:
        bad.check()
        raise BadInput(f"none of the {len(files)} images can be read")
    return kept, headers


def _check(folder: Path, classes: list[str], parts: dict[str, Listing]) -> None:
    """Refuse what has no images, or nothing to tell apart."""
    if not parts["train"].paths:
        raise BadInput(f"{folder}: no images in sub-folders{_loose(folder)}")
    if len(classes) == 1:
        only = folder / classes[0]
        hint = f"; did you mean images:{only}?" if only.is_dir() and len(folders_in(only)) > 1 else ""
        raise BadInput(f"{folder}: one class only ('{classes[0]}'); there is nothing to tell apart{hint}")
    for part in parts.values():
        there = {*part.labels}
        if empty := [name for label, name in enumerate(classes) if label not in there]:
            raise BadInput(f"{folder}: class '{empty[0]}' has no images; add some or remove the folder")


def _groups(folder: Path, parts: dict[str, Listing], wish: str | None) -> Tensor | None:
    """Of the images in train, what belongs together; None where nobody said."""
    if wish is None:
        return None
    files = {name: [path.relative_to(folder).as_posix() for path in part.paths] for name, part in parts.items()}
    found = iter(groups_of(list(itertools.chain(*files.values())), wish))
    of_parts = {name: list(itertools.islice(found, len(paths))) for name, paths in files.items()}
    for remark in torn(of_parts):
        say(f"images:{folder}: {remark}")
    return numbered(of_parts["train"])


def _layout(parts: dict[str, Listing], wishes: Wishes, groups: Tensor | None) -> dict[str, Listing]:
    """The listings of train, val and test; decided before decoding, so that no pixel is copied for a split."""
    train = parts["train"]
    splits: dict[str, Listing] = {}
    shares = {"test": 0.2, "val": wishes.val_share}
    for name, share in shares.items():
        if name in parts:
            splits[name] = parts[name]
        else:
            kept, held = stratified(torch.tensor(train.labels), share, wishes.seed, name, groups=groups)
            groups = None if groups is None else groups[kept]
            train, splits[name] = _take(train, kept.tolist()), _take(train, held.tolist())
    return {"train": train, "val": splits["val"], "test": splits["test"]}


def _take(listing: Listing, rows: Sequence[int]) -> Listing:
    return Listing([listing.paths[row] for row in rows], [listing.labels[row] for row in rows])


def _kept(threads: ThreadPoolExecutor, headers: dict[Path, Header], wishes: Wishes, bad: Faults) -> Kept:
    """What becomes of images of which the headers say this."""
    found = headers.values()
    frame = frame_of([(header.height, header.width) for header in found], wishes.resolution, wishes.aspect)
    if frames := sum(header.frames for header in found):
        say(f"of {frames} images with more than one frame the first one is taken")
    channels = 1 if all(header.gray for header in found) else 3
    more = [path for path, header in headers.items() if header.deep]
    spans = [one for one in through(threads, lambda path: deep.span(path, formats()), more, bad, "Looking at values")
             if one is not None]  # fmt: skip
    if not spans:
        return Kept(channels, *frame)
    white, top = deep.white_of(spans), max(one.largest for one in spans)
    fewer = ", and 256 levels are kept" if white > 255 else ""
    below = sum(one.least < 0 for one in spans)
    dark = f"; values below 0, in {below} of them, become black" if below else ""
    told = f"the largest value of {len(more)} images of more than 8 bits a channel is {top:g}"
    say(f"{told}, so {white:g} is taken for white{fewer}{dark}")
    return Kept(channels, *frame, deep_white=white)


def _decode_parts(
    threads: ThreadPoolExecutor, layout: dict[str, Listing], kept: Kept, bad: Faults
) -> tuple[dict[str, Split], list[Path]]:
    """Every part decoded into one array, part after part, and the paths of its rows; bad images leave no gap."""
    paths = [path for part in layout.values() for path in part.paths]
    labels = [label for part in layout.values() for label in part.labels]
    stored = room((len(paths), kept.channels, *kept.size))
    ends = list(itertools.accumulate(len(part.paths) for part in layout.values()))
    rows: list[int] = []
    for number, image in enumerate(through(threads, decoder(kept), paths, bad, "Decoding images")):
        if image is not None:
            stored[len(rows)] = image
            rows.append(number)
        elif bad.hopeless:
            break
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


def _digest(classes: Sequence[str], splits: Sequence[Split], paths: Sequence[Path]) -> str:
    """The fingerprint in the order of the paths: the same whatever seed has split them."""
    order = torch.tensor(sorted(range(len(paths)), key=paths.__getitem__))
    base = splits[0].inputs
    whole = torch.as_strided(base, (len(paths), *base.shape[1:]), base.stride())  # the parts lie one after the other
    labels = torch.cat([split.targets for split in splits])
    return fingerprint(classes, Split(whole, labels), order=order)
