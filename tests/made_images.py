"""Image files for tests: folders of noise, and PNGs of 16 bits, which Pillow does not write in colour."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def noise(seed: int, height: int = 12, width: int = 12, level: int = 100) -> Image.Image:
    values = np.random.default_rng(seed).integers(level, level + 60, (height, width, 3))
    return Image.fromarray(values.astype(np.uint8))


def folder_of(
    folder: Path, classes: Sequence[str] = ("cat", "dog"), count: int = 8, height: int = 12, width: int = 12
) -> Path:
    """A folder a class, of images that differ; a class is darker than the next."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            seed = zlib.crc32(f"{folder.name}/{name}/{index}".encode())
            noise(seed, height, width, 20 + 60 * number).save(folder / name / f"{index}.png")
    return folder


def save_png_16(path: Path, values: np.ndarray) -> None:
    """(H, W), (H, W, 3) or (H, W, 4) of 16 bits."""
    height, width, *channels = values.shape
    kind = {(): 0, (3,): 2, (4,): 6}[tuple(channels)]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def save_tiff_16(path: Path, values: np.ndarray, order: str = "<", packed: bool = False) -> None:
    """(H, W, 3) of 16 bits, in either byte order, as it is or deflated."""
    height, width, channels = values.shape
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if packed else data
    short, long, first = 3, 4, 8
    tags = {256: (short, width), 257: (short, height), 259: (short, 8 if packed else 1), 262: (short, 2),
            277: (short, channels), 278: (short, height), 279: (long, len(data))}  # fmt: skip
    depths = first + 2 + 12 * (len(tags) + 2) + 4
    tags |= {258: (short, depths), 273: (long, depths + 2 * channels)}
    entries = b""
    for tag, (kind, value) in sorted(tags.items()):
        packed_value = (
            struct.pack(f"{order}HH", value, 0) if kind == short and tag != 258 else struct.pack(f"{order}I", value)
        )
        entries += struct.pack(f"{order}HHI", tag, kind, channels if tag == 258 else 1) + packed_value
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, first, len(tags))
    path.write_bytes(start + entries + struct.pack(f"{order}I{channels}H", 0, *[16] * channels) + data)
