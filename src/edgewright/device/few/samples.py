"""Measured networks from files: the samples of a new device, and the tables of the devices that are known."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgewright.core.errors import BadInput
from edgewright.core.npz import is_row_key, read_npz, row_key

COLUMNS = ("index", "latency_ms")
_NO_DEVICE = ("seed", "unique_id")


def read_samples(path: Path | str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A CSV with the columns `index` (row of the space, from 0) and `latency_ms`; other columns are left alone.

    Args: size: of the space.
    Returns: indices (n,), int64, ascending, and latencies (n,), ms; the mean, where an index is there more than once.
    Errors: BadInput, with the line, for a file that cannot be read, a missing column, an index that is no integer of
        the space, and a latency that is no positive number.
    """
    path = Path(path)
    found: dict[int, list[float]] = {}
    for line, row in _rows(path):
        found.setdefault(_index(f"{path}: line {line}", row, size), []).append(_latency(f"{path}: line {line}", row))
    if not found:
        raise BadInput(f"{path}: no samples; write one line `index,latency_ms` a measured network")
    indices = np.array(sorted(found), dtype=np.int64)
    return indices, np.array([np.mean(found[index]) for index in indices.tolist()])


def read_priors(paths: Sequence[Path | str], size: int) -> dict[str, np.ndarray]:
    """Latencies of known devices by name, (size,) each, NaN where a network was not measured.

    Each file is a NumPy .npz with an array a device, of the space's length, or of the length of an integer array
    `arch_idx` that says which networks its rows are. A number that is not positive stands for one that was not
    measured. Arrays of other lengths, and `seed` and `unique_id`, are no devices. Where two files have one name, both
    count, the second as `FILE:NAME`.
    Errors: BadInput for a file that cannot be read or holds pickled objects, that has no device, or whose arch_idx does
        not match the space.
    """
    found: dict[str, np.ndarray] = {}
    for path in map(Path, paths):
        tables = _tables(path, size)
        if not tables:
            raise BadInput(f"{path}: no array of the space's length, {size}, or of the length of an array arch_idx")
        for name, table in tables.items():
            found[f"{path.name}:{name}" if name in found else name] = table
    return found


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            names = [name.strip() for name in reader.fieldnames or ()]
            for column in COLUMNS:
                if column not in names:
                    raise BadInput(f"{path}: no column '{column}'; the first line must be index,latency_ms")
            reader.fieldnames = names
            return [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: not a CSV text ({error})") from None


def _index(where: str, row: dict[str, str], size: int) -> int:
    text = (row["index"] or "").strip()
    try:
        index = int(text)
    except ValueError:
        raise BadInput(f"{where}: index '{text}' is not an integer") from None
    if not 0 <= index < size:
        raise BadInput(f"{where}: index {index} is not in the space, whose rows are 0 to {size - 1}")
    return index


def _latency(where: str, row: dict[str, str]) -> float:
    text = (row["latency_ms"] or "").strip()
    try:
        latency = float(text)
    except ValueError:
        latency = np.nan
    if not (np.isfinite(latency) and latency > 0):
        raise BadInput(f"{where}: latency_ms '{text}' is not a positive number of milliseconds")
    return latency


def _tables(path: Path, size: int) -> dict[str, np.ndarray]:
    arrays, found = read_npz(path), {}
    for name, array in arrays.items():
        if is_row_key(name) or name in _NO_DEVICE or array.ndim != 1 or array.dtype.kind not in "iuf":
            continue
        key = row_key(arrays, len(array))
        rows = None if key is None else arrays[key]
        if rows is not None and (rows.min(initial=0) < 0 or rows.max(initial=0) >= size):
            raise BadInput(f"{path}: {key} holds {rows.min()} to {rows.max()}; the space's rows are 0 to {size - 1}")
        if rows is None and len(array) == size:
            rows = np.arange(size)
        if rows is not None:
            table = np.full(size, np.nan)
            there = np.isfinite(array) & (array > 0)
            table[rows[there]] = array[there]
            found[name] = table
    return found
