r"""Latency tables of known devices, smoothed: what the structure of the networks explains, without the timing noise.

    t = X w,   w = argmin |t - X w|^2 + ridge |w|^2,    ridge by generalised cross-validation

t: latency over its mean; X: the features, and their products where they are few enough. With the operator on each
edge as features, the products are all pairs of operators: on NAS-Bench-201 they explain what 13,000 of its latencies
can explain of the others (benchmarks/new_device.py). What a table does not have is filled in.
Source: Golub, Heath and Wahba, "Generalized Cross-Validation as a Method for Choosing a Good Ridge Parameter", 1979.
"""

from collections.abc import Mapping

import numpy as np

from edgewright.core.errors import BadInput

LEAST_ROWS = 30
MOST_COLUMNS = 1_000
RIDGES = tuple(np.geomspace(1e-6, 1.0, 19).tolist())  # per row, of columns of mean square 1
LEAST = 0.02  # of the mean: a smoothed latency is not below it


def smooth(tables: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """The tables over their means, smoothed, (N, D).

    Args: tables: latency (N,) by name, NaN where it is not known.   features: (N, F).
    Errors: BadInput, naming the table, for one of another length, with fewer than 30 latencies, or with one that is no
        positive number.
    """
    if not tables:
        return np.zeros((len(features), 0))
    checked = {name: _checked(name, table, len(features)) for name, table in tables.items()}
    columns = _expanded(features)
    regressions: dict[bytes, _Ridge] = {}  # one for all tables that have the same rows
    found = []
    for times in checked.values():
        there = np.isfinite(times)
        rows = there.tobytes()
        if rows not in regressions:
            regressions[rows] = _Ridge(columns, there)
        found.append(np.maximum(regressions[rows].fitted(times[there] / times[there].mean()), LEAST))
    return np.stack(found, axis=1)


def unit(matrix: np.ndarray) -> np.ndarray:
    """Columns standardised (constant ones left out), rows of mean square length 1."""
    spread = matrix.std(axis=0)
    kept = spread > 1e-12 * (np.abs(matrix).max(axis=0) + 1e-300)
    if not kept.any():
        return np.zeros((len(matrix), 0))
    return (matrix[:, kept] - matrix[:, kept].mean(axis=0)) / spread[kept] / np.sqrt(kept.sum())


def _checked(name: str, table: np.ndarray, size: int) -> np.ndarray:
    times = np.asarray(table, dtype=float)
    if times.shape != (size,):
        raise BadInput(f"prior {name}: an array of shape {times.shape}; the space has {size} networks")
    there = ~np.isnan(times)
    if there.sum() < LEAST_ROWS:
        raise BadInput(f"prior {name}: {there.sum()} latencies; a device that others are learned from needs at least "
                       f"{LEAST_ROWS}")  # fmt: skip
    if not (np.isfinite(times[there]) & (times[there] > 0)).all():
        raise BadInput(f"prior {name}: a latency is not a positive number; put NaN where a network was not measured")
    return times


def _expanded(features: np.ndarray) -> np.ndarray:
    """The features, and the products of any two where that makes at most 1,000 columns."""
    columns = unit(features) * np.sqrt(max(1, features.shape[1]))
    count = columns.shape[1]
    if count * (count + 3) // 2 > MOST_COLUMNS:
        return columns
    first, second = np.triu_indices(count)
    products = columns[:, first] * columns[:, second]
    return np.hstack([columns, unit(products) * np.sqrt(max(1, len(first)))])


class _Ridge:
    """Regression on the rows that are `there`, for any number of tables."""

    def __init__(self, columns: np.ndarray, there: np.ndarray) -> None:
        self._middle = columns[there].mean(axis=0)
        self._columns = columns - self._middle
        self._there = there
        rows = self._columns[there]
        values, self._axes = np.linalg.eigh(rows.T @ rows / len(rows))
        self._values = np.maximum(values, 0.0)

    def fitted(self, times: np.ndarray) -> np.ndarray:
        """The smoothed table of all networks."""
        rows, level = self._columns[self._there], times.mean()
        along = self._axes.T @ (rows.T @ (times - level) / len(rows))
        power = float(np.mean((times - level) ** 2))
        best, shrunk = np.inf, np.zeros_like(along)
        for ridge in RIDGES:
            kept = self._values / (self._values + ridge)
            weights = along / (self._values + ridge)
            error = power - 2 * weights @ along + (self._values * weights**2).sum()
            score = error / (1 - (1 + kept.sum()) / len(rows)) ** 2 if kept.sum() + 1 < len(rows) else np.inf
            if score < best:
                best, shrunk = score, weights
        return level + self._columns @ (self._axes @ shrunk)
