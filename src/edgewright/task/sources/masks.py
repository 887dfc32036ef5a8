"""A task from folders of images and masks: the same name in both, of each pixel a class number, a colour, or its half.

    DIR/images/a.jpg  DIR/masks/a.png       with train/, val/ and test/ above or below the two, where parts are named
    DIR/classes.txt                         a name a line in the order of the numbers; of coloured masks "name r g b"

Masks are read as they are stored. Numbers (gray, 16 bits, palette) are classes, and 255 counts for nothing; black and
white ones are two classes; coloured ones are told by `classes.txt`, or by their own colours where these are few.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from edgewright.core.errors import BadInput
from edgewright.core.plan import LEAST_SIDE, MOST_SIDE
from edgewright.core.pool import cores
from edgewright.core.progress import say
from edgewright.core.tensors import Size, sides, size_text
from edgewright.task import deep
from edgewright.task.assemble import Described, assemble
from edgewright.task.base import Split, Task, TaskSpec, Wishes
from edgewright.task.finding import LeftOut, count_beside, files_below, parts_in
from edgewright.task.group import groups_of, numbered
from edgewright.task.image_files import given_files
from edgewright.task.kinds.segmentation import IGNORE, Segmentation
from edgewright.task.pixels import (
    Faults,
    Kept,
    decoder,
    formats,
    header_of,
    is_image,
    opened,
    remarks_in_one_line,
    room,
    through,
)
from edgewright.task.source import Given, Source

IMAGES, MASKS, CLASSES = "images", "masks", "classes.txt"
MOST_COLOURS = 64  # of coloured masks without classes.txt: more are a photograph, or JPEG's noise
DEEP_IGNORE = 65535  # 255 as masks of 16 bits have it
NAMED = 3  # files in a sentence
Colour = tuple[int, int, int]


class Pair(NamedTuple):
    image: Path
    mask: Path


class Codes(NamedTuple):
    """What masks hold. names: of the classes.   colours: of these, in their order; none where masks hold numbers.
    halves: whether they are black and white, so that white is the second class."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...] = ()
    halves: bool = False


class Stored(NamedTuple):
    """What one mask holds. values: numbers, or colours as 0xRRGGBB, each once.   palette: its colours, by number."""

    size: Size
    coloured: bool
    values: tuple[int, ...]
    palette: tuple[Colour, ...]


def masks(folder: Path, wishes: Wishes) -> Task:
    """Read folders of images and masks. Images are kept whole, at the median of their sizes (a multiple of 8, at most
    512 a side) or as asked; of a mask each pixel takes the class of the nearest one.

    Errors: BadInput for images without masks and the reverse, two of one name, a mask of another size than its image,
    numbers or colours outside the classes, a class that no training pixel has, masks that say nothing.
    """
    where, left_out = f"segment:{folder}", LeftOut()
    bad = Faults(wishes.skip_bad, "; mend or remove them, or leave them out with --skip-bad N")
    parts = _pairs(folder, left_out)
    left_out.tell(where)
    every = [pair for part in parts.values() for pair in part]
    with remarks_in_one_line(where), ThreadPoolExecutor(cores()) as threads:
        headers = list(through(threads, header_of, [pair.image for pair in every], bad, "Looking at images"))
        stored = list(through(threads, stored_in, [pair.mask for pair in every], bad, "Looking at masks"))
        good = {pair for pair, header, mask in zip(every, headers, stored, strict=True) if header and mask}
        bad.check()
        known = [(pair, header, mask) for pair, header, mask in zip(every, headers, stored, strict=True)
                 if pair in good]  # fmt: skip
        if not known:
            raise BadInput(f"{where}: none of the {len(every)} pairs can be read")
        _check_sizes([(pair, (header.height, header.width), mask.size) for pair, header, mask in known])
        codes = codes_of({pair.mask: mask for pair, _, mask in known}, folder)
        size = _size([(header.height, header.width) for _, header, _ in known], wishes)
        kept = Kept(
            channels=1 if all(header.gray for _, header, _ in known) else 3,
            size=size,
            fit="whole",
            deep_white=_deep_white(threads, [pair.image for pair, header, _ in known if header.deep], bad),
        )
        decoded = {name: _read(threads, [pair for pair in part if pair in good], kept, codes, bad)
                   for name, part in parts.items()}  # fmt: skip
    read, groups = {name: split for name, (split, _) in decoded.items()}, None
    if wishes.group is not None:
        files = [pair.image.relative_to(folder).as_posix() for pair in decoded["train"][1]]
        groups = numbered(groups_of(files, wishes.group))
    if "val" in read and "test" not in read:
        read["test"] = read.pop("val")
    palette = codes.colours or next((mask.palette for _, _, mask in known if mask.palette), ())
    described = Described(
        name=folder.resolve().name,
        source=where,
        names=codes.names,
        kind=Segmentation.name,
        facts={"palette": [list(colour) for colour in palette[: len(codes.names)]]} if palette else {},
        flip=True,
        fit="whole",
        white=255.0,
        deep_white=kept.deep_white,
        groups=groups,
    )
    return assemble(described, wishes, train=read["train"], val=read.get("val"), test=read.get("test"))


def given(folder: Path, spec: TaskSpec, part: str | None) -> Given:
    """Images for a network that is there, of the test part where there are parts; with their masks, where these are."""
    if not (folder / IMAGES).is_dir() and not parts_in(folder):
        return given_files([folder], spec)
    parts = _pairs(folder, LeftOut())
    wanted = part or "test"
    chosen = parts.get(wanted) or [pair for pairs in parts.values() for pair in pairs]
    found = given_files([pair.image for pair in chosen], spec)
    read = {pair.mask: stored_in(pair.mask) for pair in chosen}
    codes = codes_of(read, folder)
    targets = np.stack([_numbers(pair.mask, codes, spec.size) for pair in chosen])
    named = wanted if len(parts) > 1 and wanted in parts else None
    return replace(found, targets=torch.from_numpy(targets), names={"": codes.names}, part=named)


SOURCE = Source("segment", "DIR", "folders images/ and masks/ with the same names", masks, given)


def _pairs(folder: Path, left_out: LeftOut) -> dict[str, list[Pair]]:
    """Images with their masks, by part, sorted; "train" alone where no parts are named."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    places = _places(folder)
    count_beside(folder, {folder / IMAGES, folder / MASKS, folder / CLASSES, *parts_in(folder).values()}, left_out)
    if "train" not in places:
        raise BadInput(f"{folder}: has {' and '.join(places)} but no train part")
    return {part: _paired(place, other, left_out) for part, (place, other) in places.items()}


def _places(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Folders of images and masks, by part: DIR/images/train, DIR/train/images, or DIR/images for all."""
    above = {part: path for part, path in parts_in(folder).items() if (path / IMAGES).is_dir()}
    if above:
        for path in above.values():
            _has_masks(path)
        return {part: (path / IMAGES, path / MASKS) for part, path in above.items()}
    if not (folder / IMAGES).is_dir():
        raise BadInput(
            f"{folder}: has no {IMAGES}/ and {MASKS}/; images lie in one, masks of the same names in the other"
        )
    _has_masks(folder)
    inside, other = parts_in(folder / IMAGES), parts_in(folder / MASKS)
    if not inside:
        return {"train": (folder / IMAGES, folder / MASKS)}
    if set(inside) != set(other):
        raise BadInput(f"{folder}: {IMAGES}/ has {', '.join(inside)} and {MASKS}/ has {', '.join(other) or 'no parts'}")
    return {part: (inside[part], other[part]) for part in inside}


def _has_masks(folder: Path) -> None:
    if not (folder / MASKS).is_dir():
        raise BadInput(f"{folder}: has {IMAGES}/ but no {MASKS}/; a mask for each image lies there, of the same name")


def _paired(place: Path, other: Path, left_out: LeftOut) -> list[Pair]:
    pictures, answers = (_by_name(folder, left_out) for folder in (place, other))
    for mine, theirs, what in ((pictures, answers, "mask"), (answers, pictures, "image")):
        missing = sorted(set(mine) - set(theirs))
        if missing:
            told = ", ".join(str(mine[name]) for name in missing[:NAMED])
            more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
            raise BadInput(f"no {what} of the same name for {told}{more}; add it, or take the file away")
    if not pictures:
        raise BadInput(f"{place}: no images in this folder")
    return [Pair(pictures[name], answers[name]) for name in sorted(pictures)]


def _by_name(folder: Path, left_out: LeftOut) -> dict[str, Path]:
    """Image files by their path below the folder, without the ending."""
    found: dict[str, Path] = {}
    for path in files_below(folder, left_out):
        if not is_image(path):
            left_out.stranger(path)
            continue
        name = str(path.relative_to(folder).with_suffix(""))
        if name in found:
            raise BadInput(f"{path}: has the name of {found[name].name}; of each name there may be one image")
        found[name] = path
    return found


def stored_in(path: Path) -> Stored:
    """What a mask holds, as it is stored: no conversion, no turning."""
    with opened(path) as image:
        array, palette = _array(image), _palette(image)
    values = tuple(np.unique(array).tolist())
    return Stored((array.shape[0], array.shape[1]), image.mode.startswith("RGB"), values, palette)


def _array(image: Image.Image) -> np.ndarray:
    """(H, W) numbers; colours as 0xRRGGBB."""
    if image.mode in ("LA", "La"):
        image = image.getchannel(0)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    array = np.asarray(image if image.mode[0] in "PLIF" and image.mode not in ("PA", "LAB") else image.convert("RGB"))
    if array.ndim == 2:
        return array
    red, green, blue = (array[..., channel].astype(np.int64) for channel in range(3))
    return red << 16 | green << 8 | blue


def _palette(image: Image.Image) -> tuple[Colour, ...]:
    if image.mode != "P":
        return ()
    flat = image.getpalette("RGB") or []
    return tuple((flat[at], flat[at + 1], flat[at + 2]) for at in range(0, len(flat) - 2, 3))


def _check_sizes(found: Sequence[tuple[Pair, Size, Size]]) -> None:
    other = [(pair, size, mask) for pair, size, mask in found if size != mask]
    if other:
        (pair, size, mask), *rest = other
        more = f", and {len(rest)} more" if rest else ""
        raise BadInput(
            f"{pair.mask}: the mask is {size_text(mask)} and its image {size_text(size)}{more}; they must be alike"
        )


def codes_of(found: Mapping[Path, Stored], folder: Path) -> Codes:
    """Which classes these masks have."""
    named = _classes(folder)
    if any(mask.coloured for mask in found.values()):
        return _coloured(found, named, folder)
    seen = {value for mask in found.values() for value in mask.values}
    numbers = seen - {IGNORE, DEEP_IGNORE}
    if not numbers:
        raise BadInput(f"{folder}: every pixel of every mask is {IGNORE}, which counts for nothing; nothing to learn")
    halves = numbers == {0} and seen != {0} and (named is None or len(named.names) == 2)
    if named is None:
        most = 1 if halves else int(max(numbers))
        named = Codes(("background", "foreground") if most == 1 else tuple(map(str, range(min(most, IGNORE) + 1))))
    outside = [] if halves else sorted(value for value in numbers if not 0 <= value < min(len(named.names), IGNORE))
    if outside or any(value != int(value) for value in numbers):
        first = next(path for path, mask in found.items() if not outside or outside[0] in mask.values)
        what = f"{outside[0]:g} is" if outside else "it holds fractions, which are"
        raise BadInput(
            f"{first}: {what} none of the {len(named.names)} classes, 0 to {len(named.names) - 1} ({IGNORE} counts for "
            "nothing)" + ("; of 254 classes at most" if len(named.names) > IGNORE - 1 else "")
        )
    if len(found) > 1 and len(numbers) > MOST_COLOURS and all(p.suffix.lower() in (".jpg", ".jpeg") for p in found):
        raise BadInput(f"{folder}: the masks are JPEG, which blurs numbers ({len(numbers)} found); store them as PNG")
    return named._replace(halves=halves, colours=())


def _coloured(found: Mapping[Path, Stored], named: Codes | None, folder: Path) -> Codes:
    """Classes by colour: as classes.txt says, or every colour that there is, darkest first."""
    if gray := [path for path, mask in found.items() if not mask.coloured]:
        raise BadInput(f"{gray[0]}: holds numbers where other masks hold colours; store all alike")
    seen = sorted({value for mask in found.values() for value in mask.values})
    if named is None:
        if len(seen) > MOST_COLOURS:
            raise BadInput(
                f"{folder}: the masks have {len(seen)} colours; store them as PNG (JPEG blurs them), and name the "
                f'classes in {CLASSES}, "name r g b" a line'
            )
        colours = tuple(_colour(value) for value in seen)
        return Codes(tuple(f"#{value:06x}" for value in seen), colours)
    if not named.colours:
        raise BadInput(
            f'{folder / CLASSES}: the masks are coloured, and no colours are given; write "name r g b" a line'
        )
    if outside := sorted(set(seen) - {_packed(colour) for colour in named.colours}):
        first = next(path for path, mask in found.items() if outside[0] in mask.values)
        raise BadInput(f"{first}: the colour {_colour(outside[0])} is none of {CLASSES}'s {len(named.colours)}")
    return named


def _classes(folder: Path) -> Codes | None:
    """What classes.txt says, where there is one."""
    path = folder / CLASSES
    if not path.is_file():
        return None
    names: list[str] = []
    colours: list[Colour] = []
    for line in filter(None, map(str.strip, path.read_text(encoding="utf-8").splitlines())):
        words = line.replace(",", " ").split()
        numbers = [int(word) for word in words[-3:] if word.isdecimal() and int(word) < 256]
        if len(words) > 3 and len(numbers) == 3:
            colours.append((numbers[0], numbers[1], numbers[2]))
            words = words[:-3]
        names.append(" ".join(words))
    if colours and len(colours) != len(names):
        raise BadInput(f"{path}: {len(colours)} of {len(names)} classes have a colour; give every class one, or none")
    if len(set(names)) != len(names):
        raise BadInput(f"{path}: two classes have one name")
    return Codes(tuple(names), tuple(colours))


def _packed(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _colour(value: int) -> Colour:
    return value >> 16, value >> 8 & 255, value & 255


def _size(found: Sequence[Size], wishes: Wishes) -> Size:
    """As it is asked for, or the median height and width, rounded to a multiple of 8."""
    if wishes.resolution is not None:
        return sides(wishes.resolution)
    height, width = (median(size[axis] for size in found) for axis in (0, 1))
    shrink = min(1.0, MOST_SIDE / max(height, width))
    down, across = (max(LEAST_SIDE, int(side * shrink / 8 + 0.5) * 8) for side in (height, width))
    if len({*found}) > 1 or shrink < 1:
        say(f"images and masks are kept whole, at {size_text((down, across))} (--resolution says other)")
    return down, across


def _deep_white(threads: ThreadPoolExecutor, paths: Sequence[Path], bad: Faults) -> float:
    spans = [
        one for one in through(threads, lambda path: deep.span(path, formats()), paths, bad, "Looking at values") if one
    ]
    return deep.white_of(spans) if spans else deep.WHITE


def _read(
    threads: ThreadPoolExecutor, pairs: Sequence[Pair], kept: Kept, codes: Codes, bad: Faults
) -> tuple[Split, list[Pair]]:
    """A part decoded, and what it is of."""
    pixels = room((len(pairs), kept.channels, *kept.size))
    numbers = room((len(pairs), *kept.size))
    pictures = through(threads, decoder(kept), [pair.image for pair in pairs], bad, "Decoding images")
    answers = through(
        threads, lambda path: _numbers(path, codes, kept.size), [pair.mask for pair in pairs], bad, "Decoding masks"
    )
    there: list[Pair] = []
    for pair, picture, answer in zip(pairs, pictures, answers, strict=True):
        if picture is not None and answer is not None:
            pixels[len(there)], numbers[len(there)] = picture, answer
            there.append(pair)
    bad.check()
    return Split(torch.from_numpy(pixels[: len(there)]), torch.from_numpy(numbers[: len(there)])), there


def _numbers(path: Path, codes: Codes, size: Size) -> np.ndarray:
    """(H, W) uint8: class numbers, IGNORE where it counts for nothing."""
    with opened(path) as image:
        found = _array(image)
    numbers = np.full(found.shape, IGNORE, np.uint8)
    if codes.colours:
        for number, colour in enumerate(codes.colours):
            numbers[found == _packed(colour)] = number
    elif codes.halves:
        numbers = (found > 0).astype(np.uint8)
    else:
        inside = (found >= 0) & (found < len(codes.names))
        numbers[inside] = found[inside]
    if numbers.shape == size:
        return numbers
    return np.asarray(Image.fromarray(numbers).resize((size[1], size[0]), Image.Resampling.NEAREST))
