"""Image files: which there are, what their headers say, and their pixels as a task keeps them."""

import contextlib
import functools
import itertools
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps

from edgewright.core.errors import BadInput, EdgewrightError, one_line
from edgewright.core.progress import progress, say
from edgewright.core.tensors import Size
from edgewright.task import deep
from edgewright.task.sizes import Fit, central

# Formats that start other programs, need a handler of the caller's, or hold no picture that Pillow decodes.
OUTSIDE = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
FIRST = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM", "TIFF")  # the common ones are tried first
ANIMATED = {"GIF", "PNG", "WEBP", "TIFF", "AVIF"}  # of others, further frames are thumbnails, layers and depths
GRAY_MODES = {"1", "L", "LA", "I", "F"}
ORIENTATION, STORED_WIDTH = 0x0112, 0x0100  # EXIF: from 5 on the image lies on its side
SAYING = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # where an image may say its orientation
PLUGINS = {".heic": "pillow-heif", ".heif": "pillow-heif", ".hif": "pillow-heif"}
IN_MEMORY_BYTES = 2 * 2**30
AT_ONCE = 256  # images decoded and not yet stored, so that memory stays bounded
HOPELESS = 1000  # unreadable files after which no more are looked at


class Header(NamedTuple):
    """What an image file says of itself. height, width: as it is shown.   deep: more than 8 bits a channel.   frames:
    it has more than one."""

    height: int
    width: int
    gray: bool
    deep: bool
    frames: bool


class Kept(NamedTuple):
    """How a task keeps the images of files. deep_white: of those of more than 8 bits a channel."""

    channels: int
    size: Size
    fit: Fit = "crop"
    deep_white: float = deep.WHITE


@functools.cache
def formats() -> tuple[str, ...]:
    """All that Pillow and its plug-ins read, by name, but those that start other programs."""
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener  # pyright: ignore[reportMissingImports]

        register_heif_opener()
    Image.init()
    known = [name for name in Image.ID if name in Image.OPEN and name not in OUTSIDE]
    return tuple(sorted(known, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST)))


@functools.cache
def endings() -> frozenset[str]:
    """What the names of image files usually end in; such a file that is none is a fault."""
    known = set(formats())
    return frozenset({ending for ending, name in Image.registered_extensions().items() if name in known} | {*PLUGINS})


def opened(path: Path) -> ImageFile.ImageFile:
    return Image.open(path, formats=formats())


def is_image(path: Path) -> bool:
    """Whether it is an image file, or should be one: by its ending, else by what is in it."""
    if path.suffix.lower() in endings():
        return True
    try:
        with opened(path):
            return True
    except Exception:  # Pillow raises almost anything for what is no image
        return False


def header_of(path: Path) -> Header | None:
    """Size and colour of an image without decoding it; None where it is no image and does not say that it is one."""
    try:
        with opened(path) as image:
            return _header(image)
    except Exception as error:
        if path.suffix.lower() in endings() or isinstance(error, (Image.DecompressionBombError, PermissionError)):
            raise
        return None


def _header(image: ImageFile.ImageFile) -> Header:
    gray = image.mode in GRAY_MODES or image.mode.startswith("I;16")
    if image.mode == "P" and image.palette is not None:
        colours = np.array(image.getpalette("RGB") or [0]).reshape(-1, 3)
        gray = bool((colours == colours[:, :1]).all())
    frames = image.format in ANIMATED and bool(getattr(image, "is_animated", False))
    # Only where it can be said: a PNG that says nothing before its pixels would be decoded to find out.
    says = image.format == "TIFF" or any(name in image.info for name in SAYING)
    height, width = _as_shown(image) if says else image.size[::-1]
    return Header(height, width, gray, deep.is_deep(image), frames)


def _as_shown(image: ImageFile.ImageFile) -> Size:
    width, height = image.size
    as_stored = width == getattr(image, "tag_v2", {}).get(STORED_WIDTH, width)  # TIFFs come turned, in newer Pillows
    return (width, height) if as_stored and image.getexif().get(ORIENTATION, 1) >= 5 else (height, width)


def size_of(path: Path) -> Size:
    """Height and width of an image file, as it is shown: turned as its EXIF orientation says."""
    with opened(path) as image:
        return _as_shown(image)


def decoder(kept: Kept) -> Callable[[Path], np.ndarray]:
    """A function from a path to (C, *size) uint8."""
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[kept.channels]
    draft = (2 * kept.size[1], 2 * kept.size[0])

    def decode(path: Path) -> np.ndarray:
        with opened(path) as image:
            # A JPEG far bigger than needed is decoded at a half, a quarter, ...
            image.draft(None, draft)
            if deep.is_deep(image):
                upright = deep.in_bytes(deep.numbers(path, formats()), kept.deep_white)
            else:
                image.load()
                upright = ImageOps.exif_transpose(image)
            small = _fitted(_in_mode(upright, mode), kept)
        pixels = np.asarray(small)
        return pixels[None] if kept.channels == 1 else pixels.transpose(2, 0, 1)

    return decode


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode != "RGBA" and image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert(mode)
    return image if image.mode == mode else image.convert(mode)


def _fitted(image: Image.Image, kept: Kept) -> Image.Image:
    """The central part of the wanted shape, or with fit "whole" all of it, at its size in one antialiased step."""
    width, height = image.size
    if (height, width) == kept.size:
        return image
    left, top, across, down = (0, 0, width, height) if kept.fit == "whole" else central((height, width), kept.size)
    box = (left, top, left + across, top + down)
    return image.resize((kept.size[1], kept.size[0]), Image.Resampling.BILINEAR, box)


class Faults:
    """Images that could not be read; more than `allowed` of them are an error, which ends in the `remedy`."""

    def __init__(self, allowed: int, remedy: str = "") -> None:
        self.allowed, self.remedy = allowed, remedy
        self.found: dict[Path, str] = {}

    @property
    def hopeless(self) -> bool:
        """There are so many that it is better said now."""
        return len(self.found) > max(self.allowed, HOPELESS)

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


def through(
    threads: ThreadPoolExecutor, function: Callable[[Path], Any], paths: Sequence[Path], bad: Faults, label: str
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
                    bad.found[path] = _reason(path, value)
                    value = None
                yield value
            bar.advance(len(part))


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        plugin = PLUGINS.get(path.suffix.lower())
        return "not an image of a known kind" + (f"; the package {plugin} reads such" if plugin else "")
    return one_line(error)


@contextlib.contextmanager
def remarks_in_one_line(where: object) -> Iterator[None]:
    """What Pillow warns of while the block runs, counted and said at its end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    counts = Counter(" ".join(str(one.message).split())[:160] for one in caught)
    if counts:
        told = "; ".join(f"{text} ({count})" for text, count in counts.most_common(3))
        say(f"{where}: {counts.total()} remarks of Pillow's: {told}{'; ...' if len(counts) > 3 else ''}")


def room(shape: tuple[int, ...]) -> np.ndarray:
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
