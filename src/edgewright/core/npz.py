"""NumPy .npz files of the user's: read whole or refused in one sentence, never unpickled."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from edgewright.core.errors import BadInput


@contextlib.contextmanager
def opened_npz(path: Path) -> Iterator[NpzFile]:
    """The file, open; what goes wrong until the block ends is one sentence.

    Errors: BadInput for a missing file, one that is not whole, holds pickled objects, or is a single array (.npy).
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise BadInput(f"{path}: a single array, not an .npz file with named ones; write it with numpy.savez")
        with file:
            yield file
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, MemoryError) as error:
        if "allow_pickle" in str(error):
            raise BadInput(f"{path}: holds pickled Python objects, which are refused because loading them can run "
                           "code; save plain arrays with numpy.savez") from None  # fmt: skip
        raise BadInput(f"{path}: not a whole .npz file ({' '.join(str(error).split())}); write it again") from None


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Every array of the file by name.   Errors: as `opened_npz`."""
    with opened_npz(path) as file:
        return {name: file[name] for name in file.files}


def is_row_key(name: str) -> bool:
    """Whether an array of this name says which row of a space each value speaks of."""
    return name == "arch_idx" or name.endswith("_arch_idx")


def row_key(arrays: Mapping[str, np.ndarray], count: int) -> str | None:
    """The first array of `count` integers that says which rows of a space the columns of that length speak of."""
    for name, array in arrays.items():
        if is_row_key(name) and array.shape == (count,) and array.dtype.kind in "iu":
            return name
    return None
