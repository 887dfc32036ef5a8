"""SHGO: where the basins of the score are, by simplicial homology, and down into each of them."""

import itertools
import math
from collections.abc import Iterable, Iterator
from random import Random

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import shgo
from scipy.stats import qmc

from edgewright.core.architecture import Architecture
from edgewright.core.seed import derive
from edgewright.search.base import Excess, Proposals, Scored, Strategy, encoding
from edgewright.space.base import Space

Vector = tuple[int, ...]
Box = list[tuple[int, int]]  # least and most value of each position

MOST_VAIN = 60  # a course that has wanted nothing new for so many steps has been everywhere it goes
OUTSIDE = 1e6  # what a vector outside the budget costs, on the scale of ranks


class SHGO(Strategy):
    """Simplicial homology global optimisation over the integer encoding, coarse to fine.

    One level: `samples` Sobol points in a box of the encoding, rounded, are proposed. Once told, `scipy.optimize.shgo`
    triangulates them and gives its pool of minimisers: the points below all neighbours in the complex, one a basin.
    From each, best first, steepest descent on the lattice (one position up or down by one) proposes all neighbours and
    moves until none is better. The next level has the box of half the sides around the best point so far, as FLASH's
    second level; a box that is a single step wide starts the next course, over the whole space with new Sobol points.
    What a search asks in vain (rounds larger than what is wanted at the moment) is filled with random samples.

    Args:
        samples: Sobol points a level.
        most: positions that a box varies at once. Delaunay triangulation is hopeless past six dimensions (0.07 s in
            six, 8.5 s in nine), so in longer encodings each level varies `most` positions, drawn anew, about the best.

    Differs from SciPy alone: its local minimisers are replaced, since integer plateaus stop gradients and COBYLA; the
    score is ranked before it is triangulated, and vectors outside the budget lie above all others, unasked. Order means
    nothing among categorical choices, which is what this method is weak at.
    Source: Endres et al., "A simplicial homology algorithm for Lipschitz optimisation", JOGO 2018; the hierarchy as in
    Li et al., FLASH, TECS 2021, arXiv:2108.00568.
    Checked against: exhaustive search on a lattice with two basins (equal).
    """

    name = "shgo"
    source = "Endres et al., Simplicial homology global optimisation, JOGO 2018; FLASH, arXiv:2108.00568"
    summary = "Sobol points, their basins by simplicial homology, descent in each, in ever smaller boxes"

    def __init__(self, space: Space, excess: Excess, seed: int, *, samples: int = 24, most: int = 6) -> None:
        self._choices, self._excess, self._seed = encoding(space, self.name), excess, seed
        self._samples, self._most = samples, min(most, len(self._choices))
        self._scores: dict[str, float] = {}
        self._best: tuple[float, Vector] | None = None
        self._known: dict[Vector, Architecture | None] = {}  # None: outside the budget
        self._course = self._steps()
        self._wanted: list[Vector] = []  # what the course waits for
        self._next = 0  # how many of them have been handed on
        self._vain = 0  # steps of the course, one after the other, that wanted nothing new
        self._space, self._proposals = space, Proposals(space, excess, self.name, seed)

    def ask(self, count: int) -> list[Architecture]:
        return self._proposals.ask(count, self._wish)

    def tell(self, scored: Iterable[Scored]) -> None:
        for architecture, score in self._proposals.in_order(scored):
            self._scores[architecture.key()] = score
            if self._best is None or score > self._best[0]:
                self._best = score, self._space.encode(architecture)

    def _wish(self, random: Random) -> Architecture:
        while self._vain < MOST_VAIN:
            while self._next < len(self._wanted):
                architecture = self._inside(self._wanted[self._next])
                self._next += 1
                if architecture is not None and not self._proposals.knows(architecture):
                    self._vain = 0
                    return architecture
            if any(self._untold(vector) for vector in self._wanted):
                break
            self._wanted, self._next = next(self._course), 0
            self._vain += 1
        return self._space.sample(random)

    def _inside(self, vector: Vector) -> Architecture | None:
        if vector not in self._known:
            architecture = self._space.decode(vector)
            self._known[vector] = architecture if self._excess(architecture) <= 0 else None
        return self._known[vector]

    def _untold(self, vector: Vector) -> bool:
        architecture = self._inside(vector)
        return architecture is not None and architecture.key() not in self._scores

    def _value(self, vector: Vector) -> float:
        """The negated score; infinite where the vector is outside the budget."""
        architecture = self._inside(vector)
        return math.inf if architecture is None else -self._scores[architecture.key()]

    def _steps(self) -> Iterator[list[Vector]]:
        """Each vector list must have been told, as far as it is inside the budget, before the next one is asked for."""
        for course in itertools.count():
            box = [(0, count - 1) for count in self._choices]
            for level in itertools.count():
                free = self._free(course, level)
                points = self._points(box, free, derive(self._seed, self.name, course, level))
                vectors = [self._at(point, free) for point in points]
                yield vectors
                for start in self._basins(points, vectors, free):
                    yield from self._descend(start, box)
                if self._best is None or all(high - low <= 1 for low, high in box):
                    break
                box = [
                    _shrunk(low, high, centre, count)
                    for (low, high), centre, count in zip(box, self._best[1], self._choices, strict=True)
                ]

    def _free(self, course: int, level: int) -> list[int]:
        """The positions that this level varies."""
        drawn = Random(derive(self._seed, self.name, "free", course, level)).sample(
            range(len(self._choices)), self._most
        )
        return sorted(drawn)

    def _points(self, box: Box, free: list[int], seed: int) -> NDArray[np.float64]:
        """Sobol points of the box, (samples, free), in the units of the encoding."""
        unit = qmc.Sobol(len(free), rng=np.random.default_rng(seed)).random(2 ** math.ceil(math.log2(self._samples)))
        low = np.array([box[i][0] for i in free]) - 0.5
        high = np.array([box[i][1] for i in free]) + 0.5
        return (low + unit * (high - low))[: self._samples]

    def _at(self, point: NDArray[np.float64], free: list[int]) -> Vector:
        """The lattice vector of a point; positions that are not free are as in the best one."""
        vector = list(self._best[1]) if self._best else [0] * len(self._choices)
        for place, value in zip(free, point, strict=True):
            vector[place] = int(np.clip(np.round(value), 0, self._choices[place] - 1))
        return tuple(vector)

    def _basins(self, points: NDArray[np.float64], vectors: list[Vector], free: list[int]) -> list[Vector]:
        """SHGO's minimisers among told vectors, best first."""
        values = np.array([self._value(vector) for vector in vectors])
        if not np.isfinite(values).any():
            return []
        heights = np.unique(values, return_inverse=True)[1] + OUTSIDE * np.isinf(values)
        known = dict(zip(map(tuple, points), heights, strict=True))
        low, high = points.min(axis=0), points.max(axis=0)
        if len(points) < len(free) + 2 or (high <= low).any():
            return [vectors[int(values.argmin())]]
        unit = (points - low) / (high - low)

        def height(x: NDArray[np.float64]) -> float:
            nearest = points[np.abs(points - x).sum(axis=1).argmin()]
            return float(known[tuple(nearest)])

        found = shgo(
            height,
            list(zip(low, high, strict=True)),
            n=len(points),
            iters=1,
            sampling_method=lambda n, dim: unit[:n].copy(),  # pyright: ignore[reportArgumentType]
            minimizer_kwargs={"method": "Nelder-Mead", "options": {"maxfev": 1}},  # the descent is ours
        )
        pool = np.atleast_2d(found.xl) if found.success else np.empty((0, len(free)))
        rows = [int(np.abs(points - x).sum(axis=1).argmin()) for x in pool]
        rows = sorted({*rows, int(values.argmin())}, key=lambda row: values[row])
        return [vectors[row] for row in rows if np.isfinite(values[row])]

    def _descend(self, here: Vector, box: Box) -> Iterator[list[Vector]]:
        while True:
            around = [
                (*here[:place], here[place] + step, *here[place + 1 :])
                for place in range(len(here))
                for step in (-1, 1)
                if 0 <= here[place] + step < self._choices[place]
            ]
            yield around
            best = min(around, key=self._value)
            if self._value(best) >= self._value(here):
                return
            here = best


def _shrunk(low: int, high: int, centre: int, count: int) -> tuple[int, int]:
    """Half as wide, about `centre`, inside the encoding."""
    half = max(1, (high - low) // 2) if high > low else 0
    start = min(max(0, centre - half // 2 - half % 2), max(0, count - 1 - half))
    return start, min(count - 1, start + half)
