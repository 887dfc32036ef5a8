"""How the values of a tensor are spread, gathered batch by batch in one pass and little memory."""

import numpy as np

BINS = 4096  # on each side of zero
MOST_VALUES = 2**14  # of one tensor that are counted at a time


class Histogram:
    """Counts over [-w, w) in 2 x BINS equal bins, w a power of two that doubles when a value lies outside.

    Doubling merges neighbouring bins exactly, so the counts depend on the values alone, not on their order or on how
    they were cut into batches. Exact least and greatest values are kept beside. Not-a-numbers and infinities are
    counted in `strange` and nowhere else. Of more than MOST_VALUES values handed over at once, evenly spread ones are
    counted; least and greatest are always those of all.
    """

    def __init__(self) -> None:
        self.width = 0.0
        self.counts = np.zeros(2 * BINS, dtype=np.int64)
        self.lowest, self.highest = np.inf, -np.inf
        self.strange = 0

    def add(self, values: np.ndarray) -> None:
        """Count `values`, of any shape."""
        flat = np.asarray(values, dtype=np.float32).ravel()
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not np.isfinite(low + high):
            finite = flat[np.isfinite(flat)]
            self.strange += flat.size - finite.size
            self.add(finite)
            return
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        self._widen(max(-low, high))
        if flat.size > MOST_VALUES:
            flat = flat[:: (flat.size // MOST_VALUES) | 1]  # odd, so as not to walk along one column of an image
        index = np.floor(flat.astype(np.float64) * (BINS / self.width)).astype(np.int64) + BINS
        self.counts += np.bincount(np.clip(index, 0, 2 * BINS - 1), minlength=2 * BINS)

    def _widen(self, largest: float) -> None:
        if self.width == 0:
            # From here on by doubling only, so that any order of the batches ends at the same bins.
            self.width = 2.0 ** np.ceil(np.log2(largest)) if largest > 0 else 2.0**-60
        while largest > self.width:
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts[:] = 0
            self.counts[BINS // 2 : 3 * BINS // 2] = pairs
            self.width *= 2

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def edges(self) -> np.ndarray:
        """The 2 x BINS + 1 borders of the bins."""
        return np.linspace(-self.width, self.width, 2 * BINS + 1)

    @property
    def centres(self) -> np.ndarray:
        """What stands for the values of a bin: its middle, kept within the least and the greatest value."""
        edges = self.edges
        return np.clip((edges[:-1] + edges[1:]) / 2, self.lowest, self.highest)
