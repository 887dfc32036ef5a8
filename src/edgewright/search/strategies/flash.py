r"""FLASH: an accuracy law fitted on a few trained networks, and a hierarchical global search over a few integers.

    accuracy = 1 / (b + sum_k a_k / s_k),   a, b >= 0

s: strengths of a network, each of which can only help; the paper has one, the NN-Degree g. Fitted by non-negative least
squares on relative errors of 1 / accuracy, so that 25 samples are enough and what is predicted grows with every
strength and levels off at 1 / b.

The search is SHGO (simplicial homology global optimisation), which is quick for up to five variables and hopeless for
nine. So first over a few variables that stand for all (`coarse`), then, sweep by sweep, over one group of integers at
a time in a box around the best so far, with unit steps; at last single steps while they help.

Source: Li et al., "FLASH: Fast Neural Architecture Search with Hardware Optimization", ACM TECS 2021, arXiv:2108.00568;
SHGO: Endres et al., J. Global Optimization 2018, as scipy has it.
Differs from the paper: more than one strength may be given; the second level goes group by group; a ceiling is a
penalty on its relative excess, not a product of costs.
Checked against: the exhaustive optimum of a grid of 20,000 points, the best of 5,000 random points, laws that are
known (tests/search/test_flash.py); trained networks (benchmarks/codesign.py).
"""

import itertools
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import nnls, shgo

from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput
from edgewright.core.ranking import spearman

Integers = tuple[int, ...]
Objective = Callable[[Integers], float]  # smaller is better; called with every integer inside its bounds
SWEEPS = 3
POINTS = 64
LEAST_SAMPLES = 5


class AccuracyLaw(Frozen):
    """A fitted law. strengths: their names.   coefficients: b, a_1, a_2, ...   median_error: percent points, of each
    network predicted by a fit without it.   rank_correlation: Spearman's, of the same, None where
    all are alike.   networks: fitted on."""

    strengths: tuple[str, ...]
    coefficients: tuple[float, ...]
    median_error: float
    rank_correlation: float | None
    networks: int

    def predict(self, found: np.ndarray) -> np.ndarray:
        """Accuracy, percent, of networks with strengths (..., K)."""
        b, a = self.coefficients[0], np.array(self.coefficients[1:])
        return 100 / (b + (a / found).sum(axis=-1))


def fit_accuracy_law(names: Sequence[str], found: np.ndarray, accuracy: Sequence[float] | np.ndarray) -> AccuracyLaw:
    """Fit the law.

    Args: found: strengths (networks, K), > 0.   accuracy: percent, in (0, 100].
    Errors: BadInput for fewer than 5 networks, or a strength or accuracy that is not positive.
    """
    measured = np.asarray(accuracy, dtype=float)
    if len(measured) < LEAST_SAMPLES or found.shape != (len(measured), len(names)):
        raise BadInput(f"an accuracy law needs at least {LEAST_SAMPLES} trained networks; got {len(measured)}")
    if not ((measured > 0).all() and (measured <= 100).all() and (found > 0).all() and np.isfinite(found).all()):
        raise BadInput("an accuracy law needs accuracies in (0, 100] percent and strengths above 0")
    rows = np.column_stack([np.ones(len(measured)), 1 / found])
    left_out = [
        100 / (rows[i] @ _solve(np.delete(rows, i, axis=0), np.delete(measured, i))) for i in range(len(measured))
    ]
    return AccuracyLaw(
        strengths=tuple(names),
        coefficients=tuple(_solve(rows, measured).tolist()),
        median_error=float(np.median(np.abs(np.array(left_out) - measured))),
        rank_correlation=spearman(np.array(left_out), measured),
        networks=len(measured),
    )


def _solve(rows: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    target = 100 / accuracy
    scale = rows.max(axis=0)
    solution, _ = nnls(rows / scale / target[:, None], np.ones(len(target)), maxiter=10_000)
    return solution / scale


def minimise(
    objective: Objective,
    bounds: Sequence[tuple[int, int]],
    groups: Sequence[Sequence[int]],
    *,
    coarse: Callable[[Sequence[float]], Sequence[float]] | None = None,
    num_coarse: int = 0,
    radius: int = 4,
) -> tuple[Integers, float]:
    """The least value that the hierarchical search finds, and where.

    Args:
        objective: is asked once for each point.
        bounds: of each integer, both ends included.
        groups: indices of the integers that are searched together, at most five a group.
        coarse: from `num_coarse` numbers in [0, 1] to a full vector of numbers; None starts from the middle.
        radius: half the side of a group's box, in units.
    """
    search = _Search(objective, bounds)
    if coarse is not None:
        search.shgo(lambda point: coarse(point), [(0.0, 1.0)] * num_coarse)
    else:
        search.value_at([(low + high) / 2 for low, high in bounds])
    for _ in range(SWEEPS):
        before = search.value
        for group in groups:
            search.refine(group, radius)
        if search.value >= before:
            break
    search.step_down()
    return search.best, search.value


class _Search:
    """What has been asked, and the best of it."""

    def __init__(self, objective: Objective, bounds: Sequence[tuple[int, int]]) -> None:
        self._objective, self._bounds = objective, bounds
        self._known: dict[Integers, float] = {}
        self.best: Integers = ()
        self.value = np.inf

    def value_at(self, point: Sequence[float]) -> float:
        """The objective at the nearest integers inside the bounds: SHGO's minimisers step out of both."""
        integers = tuple(
            min(high, max(low, round(x))) if np.isfinite(x) else low
            for x, (low, high) in zip(point, self._bounds, strict=True)
        )
        if integers not in self._known:
            value = self._objective(integers)
            self._known[integers] = value if np.isfinite(value) else 1e30
        if self._known[integers] < self.value:
            self.best, self.value = integers, self._known[integers]
        return self._known[integers]

    def shgo(self, whole: Callable[[Sequence[float]], Sequence[float]], bounds: Sequence[tuple[float, float]]) -> None:
        """SHGO over some variables; `whole` makes the full vector of them."""
        with warnings.catch_warnings():  # a plateau of integers: scipy warns that it saw no minimiser
            warnings.simplefilter("ignore")
            shgo(
                lambda point: self.value_at(whole(point)),
                list(bounds),
                n=POINTS,
                sampling_method="sobol",
                minimizer_kwargs={"method": "COBYLA", "options": {"maxiter": 40}},
            )

    def refine(self, group: Sequence[int], radius: int) -> None:
        """SHGO over the integers of one group, in a box around the best."""
        centre = self.best

        def whole(point: Sequence[float]) -> list[float]:
            vector = [float(x) for x in centre]
            for index, x in zip(group, point, strict=True):
                vector[index] = x
            return vector

        box = [
            (max(self._bounds[i][0], centre[i] - radius), min(self._bounds[i][1], centre[i] + radius)) for i in group
        ]
        free = [(index, side) for index, side in zip(group, box, strict=True) if side[0] < side[1]]
        if free:
            group = [index for index, _ in free]
            self.shgo(whole, [side for _, side in free])

    def step_down(self) -> None:
        """Single steps, and pairs of opposite ones, while they help."""
        size = len(self._bounds)
        moves = [{i: sign} for i in range(size) for sign in (1, -1)]
        moves += [{i: 1, j: -1} for i, j in itertools.permutations(range(size), 2)]
        improved = True
        while improved:
            before = self.value
            for move in moves:
                self.value_at([x + move.get(i, 0) for i, x in enumerate(self.best)])
            improved = self.value < before
