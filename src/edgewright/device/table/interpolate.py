"""Times of pieces that were never measured, from those that were: a linear law and a smooth correction per family.

    log(t + h) = log(w . x + h) + sum_i a_i exp(-|z - z_i|^2 / (2 l^2)),    h = 0.5 us, l = 2

x: the piece's work (`pieces.work`), w >= 0 by least squares on relative errors; z: its place in logarithms
(`pieces.place`), a: kernel ridge regression of what the law leaves over, ridge 0.03. The law extrapolates as physics
does, the correction follows what the library's kernels really do.
"""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from scipy.optimize import nnls

from edgewright.core.data import Frozen
from edgewright.device.table.pieces import Piece, place, read_piece, work

OFFSET_US = 0.5  # below about this a relative error means nothing
LEAST_US = 0.1
LENGTH = 2.0
RIDGE = 0.03
MOST_POINTS = 1000  # a family's correction uses this many pieces at most: its cost grows with the cube


class Family(Frozen):
    """The fitted law of one family: coefficients of `work`, and the correction's weight at each measured piece."""

    coefficients: tuple[float, ...]
    keys: tuple[str, ...]
    weights: tuple[float, ...]

    @cached_property
    def _places(self) -> np.ndarray:
        return np.array([place(read_piece(key)) for key in self.keys])

    @cached_property
    def _weights(self) -> np.ndarray:
        return np.array(self.weights)

    def predict_us(self, piece: Piece) -> float:
        law = max(float(work(piece) @ np.array(self.coefficients)), LEAST_US)
        correction = float(_kernel(self._places, place(piece)[None])[:, 0] @ self._weights)
        return max(float((law + OFFSET_US) * np.exp(correction)) - OFFSET_US, LEAST_US)


def fit_families(times_us: Mapping[str, float]) -> dict[str, Family]:
    """Fit every family that occurs among `times_us` (microseconds by piece key)."""
    members: dict[str, list[str]] = {}
    for key in sorted(times_us):
        members.setdefault(read_piece(key).family, []).append(key)
    return {name: _fit(keys, times_us) for name, keys in members.items()}


def _fit(keys: list[str], times_us: Mapping[str, float]) -> Family:
    if len(keys) > MOST_POINTS:
        keys = [keys[index] for index in np.linspace(0, len(keys) - 1, MOST_POINTS).astype(int)]
    pieces = [read_piece(key) for key in keys]
    times = np.maximum([times_us[key] for key in keys], LEAST_US)
    loads = np.array([work(piece) for piece in pieces])
    scale = loads.max(axis=0) + 1e-9
    relative = 1 / (times + OFFSET_US)
    solution, _ = nnls(loads / scale * relative[:, None], times * relative, maxiter=10_000)
    coefficients = solution / scale
    law = np.maximum(loads @ coefficients, LEAST_US)
    left = np.log(times + OFFSET_US) - np.log(law + OFFSET_US)
    places = np.array([place(piece) for piece in pieces])
    weights = np.linalg.solve(_kernel(places, places) + RIDGE * np.eye(len(keys)), left)
    return Family(coefficients=tuple(coefficients.tolist()), keys=tuple(keys), weights=tuple(weights.tolist()))


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return np.exp(-np.maximum(squares, 0) / (2 * LENGTH**2))
