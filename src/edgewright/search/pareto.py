"""The candidates that no other candidate beats in everything."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def front(costs: ArrayLike) -> NDArray[np.bool_]:
    """Which rows of `costs` (N, K), lower is better in every column, are not dominated.

    A row dominates another if it is no worse in all columns and better in one. Equal rows are both kept; a row with a
    value that is not a number is never on the front. Negate what is to be high. Time O(N * front).
    Checked against: all pairs by brute force.
    """
    values = np.asarray(costs, dtype=float)
    result = np.zeros(len(values), dtype=bool)
    # In lexicographic order nothing dominates a row that comes before it, so each survivor met is on the front.
    waiting = np.lexsort(values.T[::-1]) if values.size else np.arange(0)
    waiting = waiting[~np.isnan(values[waiting]).any(axis=1)] if values.size else waiting
    while len(waiting):
        best = values[waiting[0]]
        equal = (values[waiting] == best).all(axis=1)
        result[waiting[equal]] = True
        waiting = waiting[(values[waiting] < best).any(axis=1)]
    return result
