"""Published measurements of the architectures of a space, read from the user's file; none is shipped.

A table is one column of a NumPy .npz file, `FILE.npz:COLUMN`. Which architecture a row speaks of is found in this
order:

    1. an integer array of the column's length named `arch_idx` (or ending in `_arch_idx`): the row's index
    2. the array that spells architectures out (`ops` for nb201, `arch` for the others), of the column's length
    3. the row's place, when the column is as long as the space

Where several rows speak of one architecture (seeds), and where a column has two axes (architectures, seeds), the table
holds the mean. A file of the space's length whose rows are in another order is refused, as its order is in doubt.

Any column is a cost that a ceiling may be set on: `FILE.npz:COLUMN<=VALUE`, in the column's own unit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewright.core.cost import figures
from edgewright.core.errors import BadInput, BudgetInfeasible
from edgewright.core.npz import is_row_key, read_npz, row_key
from edgewright.space.base import TabularSpace


@dataclass(frozen=True, eq=False)
class Table:
    """Values of architectures by index.

    name: the column.   source: the file.   indices: int64, ascending, each once.   values: float64, finite.
    """

    name: str
    source: str
    indices: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def at(self, indices: int | Iterable[int]) -> np.ndarray:
        """The values of these architectures, NaN where the table has none; a 0-d array for one index."""
        wanted = np.asarray(indices if isinstance(indices, int) else list(indices), dtype=np.int64)
        places = np.minimum(np.searchsorted(self.indices, wanted), len(self.indices) - 1)
        return np.where(self.indices[places] == wanted, self.values[places], np.nan)


@dataclass(frozen=True, eq=False)
class Ceiling:
    """The most that a network may have of a cost.

    name: of the cost; of a column `FILE.npz:COLUMN`.   values: of every architecture of the space, in its order; NaN
    where nothing is known, which keeps no ceiling.   most: in the same unit.
    """

    name: str
    values: np.ndarray
    most: float

    def keeps(self) -> np.ndarray:
        """Which architectures are inside."""
        return self.values <= self.most


def inside(ceilings: Sequence[Ceiling], known: np.ndarray) -> np.ndarray:
    """Which of the architectures that are `known` (True, one for each of the space) keep every ceiling.

    Errors: BudgetInfeasible where none does.
    """
    kept = np.logical_and.reduce([known, *(ceiling.keeps() for ceiling in ceilings)])
    if ceilings and known.any() and not kept.any():
        told = " and ".join(f"{one.name} <= {figures(one.most, 6)}" for one in ceilings)
        least = ", ".join(figures(float(np.nanmin(np.where(known, one.values, np.inf))), 6) for one in ceilings)
        raise BudgetInfeasible(f"no network of the table keeps {told}; the least is {least}")
    return kept


def read_ceiling(spec: str, space: TabularSpace) -> Ceiling:
    """The ceiling `FILE.npz:COLUMN<=VALUE` for `space`.

    Errors: BadInput for another form, a value that is no positive number, and what `read_table` refuses.
    """
    column, sign, text = spec.rpartition("<=")
    try:
        most = float(text)
    except ValueError:
        most = np.nan
    if not sign or not 0 < most < np.inf:
        raise BadInput(f"{spec}: a ceiling is FILE.npz:COLUMN<=VALUE, in quotes, the value above zero")
    table = read_table(column.strip(), space)
    return Ceiling(column.strip(), table.at(range(len(space))), most)


def read_table(spec: str, space: TabularSpace) -> Table:
    """The table `FILE.npz:COLUMN` for `space`.

    Errors: BadInput, in one sentence, for a missing file or column, a file with pickled objects, rows that do not match
        the space, values that are not finite numbers, and a column that says the same of every architecture.
    """
    path, column = _split(spec)
    arrays = read_npz(path)
    if column not in arrays:
        raise BadInput(f"{path}: no column '{column}'; it has {', '.join(_columns(arrays)) or 'none'}")
    return _table(path, column, arrays, space)


def read_tables(path: Path | str, space: TabularSpace) -> dict[str, Table]:
    """Every column of a file that measures something, by name: for a file that holds a column for each device.

    Index, seed and architecture arrays are left out.   Errors: as `read_table`, for any column.
    """
    path = Path(path)
    arrays = read_npz(path)
    found = {name: _table(path, name, arrays, space) for name in _columns(arrays) if not _is_key(name, space)}
    if not found:
        raise BadInput(f"{path}: no column of numbers; it has {', '.join(arrays) or 'nothing'}")
    return found


def _split(spec: str) -> tuple[Path, str]:
    name, colon, column = spec.rpartition(":")
    if colon and name and column and not Path(spec).is_file():
        return Path(name), column
    path = Path(spec.rstrip(":"))
    hint = f"; its columns: {', '.join(_columns(read_npz(path)))}" if path.is_file() else ""
    raise BadInput(f"{spec}: say which column of the table to read, as FILE.npz:COLUMN{hint}")


def _columns(arrays: dict[str, np.ndarray]) -> list[str]:
    return [name for name, array in arrays.items() if array.dtype.kind in "iuf" and array.ndim in (1, 2)]


def _is_key(name: str, space: TabularSpace) -> bool:
    return name in ("seed", "unique_id", space.row_column) or is_row_key(name)


def _table(path: Path, column: str, arrays: dict[str, np.ndarray], space: TabularSpace) -> Table:
    where, array = f"{path}:{column}", arrays[column]
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2) or array.size == 0:
        raise BadInput(f"{where}: a column is one number an architecture, not {array.dtype} of shape {array.shape}")
    values = array.astype(np.float64)
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise BadInput(f"{where}: {bad} of {values.size} values are NaN or infinite; take these rows out")
    values = values.mean(axis=1) if values.ndim == 2 else values
    indices, inverse = np.unique(_rows(where, len(values), arrays, space), return_inverse=True)
    means = np.bincount(inverse, values) / np.bincount(inverse)
    if means.min() == means.max():
        raise BadInput(f"{where}: every value is {means[0]:g}, which ranks nothing; choose another column")
    return Table(column, str(path), indices, means)


def _rows(where: str, count: int, arrays: dict[str, np.ndarray], space: TabularSpace) -> np.ndarray:
    """The index of the architecture that each row speaks of."""
    key = row_key(arrays, count)
    if key is not None:
        return _checked(where, key, arrays[key].astype(np.int64), space)
    spelled = arrays.get(space.row_column)
    if spelled is not None and spelled.ndim == 2 and len(spelled) == count:
        return _spelled(where, spelled, arrays.get("op_names"), space)
    if count == len(space):
        return np.arange(count)
    raise BadInput(
        f"{where}: {count} rows, but the space {space.name} has {len(space)} architectures and the file has neither "
        f"arch_idx nor {space.row_column} of that length to say which ones they are"
    )


def _checked(where: str, name: str, indices: np.ndarray, space: TabularSpace) -> np.ndarray:
    wrong = indices[(indices < 0) | (indices >= len(space))]
    if len(wrong):
        raise BadInput(f"{where}: {name} {wrong[0]} is not in the space {space.name}, which has {len(space)}")
    return indices


def _spelled(where: str, rows: np.ndarray, names: np.ndarray | None, space: TabularSpace) -> np.ndarray:
    """Indices of architectures that are spelled out; refused where a table of the whole space is in another order."""
    if names is not None and space.row_names and tuple(names.astype(str)) != space.row_names:
        raise BadInput(f"{where}: op_names are {', '.join(names.astype(str))}, not {', '.join(space.row_names)}")
    if rows.dtype.kind not in "iu":
        raise BadInput(f"{where}: {space.row_column} must hold integers, not {rows.dtype}")
    indices = np.empty(len(rows), dtype=np.int64)
    for place, row in enumerate(rows.tolist()):
        try:
            indices[place] = space.index(space.from_row(row))
        except BadInput as error:
            raise BadInput(f"{where}: {space.row_column} of row {place}: {error}") from None
    if len(rows) == len(space) and (indices != np.arange(len(rows))).any():
        first = int(np.argmax(indices != np.arange(len(rows))))
        raise BadInput(
            f"{where}: {space.row_column} of row {first} is architecture {indices[first]} of the space {space.name}; "
            "the rows must be in the space's order"
        )
    return indices
