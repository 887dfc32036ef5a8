"""LINAS: measure a few, fit a predictor, search on the predictor, measure what it likes, again."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.stats import norm, rankdata

from edgewright.core.architecture import Architecture
from edgewright.search.base import Excess, Proposals, Scored, Strategy
from edgewright.space.base import Space

Array = NDArray[np.float64]
Features = Callable[[Architecture], Sequence[float]]

SCALES = (0.5, 1.0, 2.0, 4.0)  # of the kernel's squared length, in medians of the squared distances
NOISES = (1e-3, 1e-2, 1e-1)  # variance, in variances of the signal


@dataclass(frozen=True)
class Looking:
    """How the space is looked over by the predictor.

    bold: weight of the predictor's deviation; 0 ranks by what it expects, as the paper does.   most: architectures of a
    space that is ranked whole; in larger ones an evolution of `generations` x 64 children is run on the predictor.
    """

    bold: float = 1.0
    generations: int = 8
    most: int = 20_000


BOLDLY = Looking()


class LINAS(Strategy):
    """Predictor in the loop: lightweight iterative neural architecture search.

    The first `founders` proposals are random. Then, whenever `batch` more scores have been told: fit a Gaussian process
    on all scores, search inside the budget on mean + bold * deviation, and propose what that ranks first. An
    enumerable space (with `__len__` and `at`) of at most `most` architectures is ranked whole; in others an evolution
    of `generations` x 64 children, from the best told and from random ones, is run on the predictor.
    Of architectures with equal features only one is proposed in a batch.

    Args:
        features: what the predictor sees; default: the space's own (`Space.features`, the facts of the wiring).
        founders: random proposals at the beginning.   batch: scores told from one fit to the next.
        looking: how the space is looked over by the predictor.

    Differs from the paper: a Gaussian process (kernel ridge with error bars; scores by rank, as normal quantiles, so
    that hopeless networks do not set the scale; kernel width and noise by marginal likelihood) in place of ridge or
    SVR chosen by cross-validation; facts of the wiring in place of one-hot choices (both are in
    `benchmarks/search_on_a_table.py`); batches of 5, not 50; the budget is a wall, not an objective; nothing is
    measured twice; an exploration term.
    Source: Cummings et al., "A Hardware-Aware System for Accelerating Deep Neural Network Optimization" (DyNAS-T),
    2022, arXiv:2205.10358 (the sheet's numbers: population 50, 20,000 evaluations of the predictor).
    Checked against: the closed form of the process by matrix inversion; NSGA-II and random search (better).
    """

    name = "linas"
    source = "Cummings et al., LINAS in DyNAS-T, 2022, arXiv:2205.10358"
    summary = "a predictor fitted on what was measured proposes what to measure next"

    def __init__(
        self,
        space: Space,
        excess: Excess,
        seed: int,
        *,
        features: Features | None = None,
        founders: int = 10,
        batch: int = 5,
        looking: Looking = BOLDLY,
    ) -> None:
        self._features, self._excess = features or space.features, excess
        self._founders, self._batch, self._looking = founders, batch, looking
        self._told: list[tuple[Architecture, float, Array]] = []
        self._fresh = 0  # told since the last fit
        self._queue: list[Architecture] | None = None  # best last; None: to be made
        self._whole: tuple[list[Architecture], Array] | None = None
        self._space, self._proposals = space, Proposals(space, excess, self.name, seed)

    def ask(self, count: int) -> list[Architecture]:
        return self._proposals.ask(count, self._wish)

    def tell(self, scored: Iterable[Scored]) -> None:
        for architecture, score in self._proposals.in_order(scored):
            self._told.append((architecture, score, np.asarray(self._features(architecture), dtype=float)))
            self._fresh += 1
        if self._fresh >= self._batch:
            self._queue = None

    def _wish(self, random: Random) -> Architecture:
        if self._proposals.count < self._founders or not self._told:
            return self._space.sample(random)
        if self._queue is None:
            self._queue, self._fresh = self._ranked(random), 0
        while self._queue:
            architecture = self._queue.pop()
            if not self._proposals.knows(architecture):
                return architecture
        return self._space.sample(random)

    def _ranked(self, random: Random) -> list[Architecture]:
        """At most 256 new architectures inside the budget by what the predictor hopes of them, the best last."""
        told = np.stack([features for _, _, features in self._told])
        targets = normal_scores([score for _, score, _ in self._told])
        everything = self._everything()
        pool = told if everything is None else everything[1]
        mean, deviation = pool.mean(axis=0), pool.std(axis=0)
        deviation[deviation < 1e-12] = 1.0
        process = GaussianProcess((told - mean) / deviation, targets)

        def hope(features: Array) -> Array:
            expected, spread = process.predict((features - mean) / deviation)
            return expected + self._looking.bold * spread

        architectures, features = everything or self._evolved(hope, random)
        return self._select(architectures, features, hope(features)) if architectures else []

    def _select(self, architectures: list[Architecture], features: Array, hopes: Array) -> list[Architecture]:
        """The new ones of distinct features, best last; behind them the new ones of equal features."""
        kept: dict[bytes, Architecture] = {}
        doubles: list[Architecture] = []
        for index in np.argsort(-hopes, kind="stable"):
            if self._proposals.knows(architectures[index]):
                continue
            if kept.setdefault(features[index].tobytes(), architectures[index]) is not architectures[index]:
                doubles.append(architectures[index])
            if len(kept) >= 256:
                break
        return [*kept.values(), *doubles][:256][::-1]

    def _everything(self) -> tuple[list[Architecture], Array] | None:
        """All architectures inside the budget and their features, where the space is small and enumerable."""
        at, length = getattr(self._space, "at", None), getattr(self._space, "__len__", None)
        if at is None or length is None or length() > self._looking.most:
            return None
        if self._whole is None:
            inside = [a for a in map(at, range(length())) if self._excess(a) <= 0]
            self._whole = inside, np.array([self._features(a) for a in inside], dtype=float)
        return self._whole if self._whole[0] else None

    def _evolved(self, hope: Callable[[Array], Array], random: Random) -> tuple[list[Architecture], Array]:
        """What an evolution on the predictor comes by, inside the budget."""
        best = sorted(self._told, key=lambda item: -item[1])[:32]
        members = {a.key(): (a, tuple(features)) for a, _, features in best}
        self._admit(members, [self._space.sample(random) for _ in range(64)])
        for _ in range(self._looking.generations):
            hopes = hope(np.array([features for _, features in members.values()]))
            order = np.argsort(-hopes, kind="stable")[:32]
            parents = [list(members.values())[index][0] for index in order]
            self._admit(members, [self._bred(parents, random) for _ in range(64)])
        architectures = [a for a, _ in members.values()]
        return architectures, np.array([features for _, features in members.values()], dtype=float)

    def _admit(self, members: dict[str, tuple[Architecture, tuple[float, ...]]], some: list[Architecture]) -> None:
        for architecture in some:
            if architecture.key() not in members and self._excess(architecture) <= 0:
                members[architecture.key()] = architecture, tuple(self._features(architecture))

    def _bred(self, parents: list[Architecture], random: Random) -> Architecture:
        child = random.choice(parents)
        if random.random() < 0.5:
            child = self._space.crossover(child, random.choice(parents), random)
        return self._space.mutate(child, random)


def normal_scores(scores: Sequence[float]) -> Array:
    """Ranks as quantiles of the standard normal distribution; ties, and scores that are no number, share theirs."""
    return norm.ppf((rankdata(scores) - 0.5) / len(scores))


class GaussianProcess:
    """Regression in closed form with a Gaussian kernel and noise, both chosen by marginal likelihood on a small grid.

    k(x, z) = exp(-|x - z|^2 / (2 s m)), m the median squared distance of distinct inputs, s of SCALES; noise variance
    of NOISES times the signal's, which has its closed form y' K^-1 y / n.
    """

    def __init__(self, inputs: Array, targets: Array) -> None:
        self._inputs = inputs
        squared = _squared_distances(inputs, inputs)
        apart = squared[squared > 1e-12]
        median = float(np.median(apart)) if len(apart) else 1.0
        best = -math.inf
        for scale in SCALES:
            kernel = np.exp(-squared / (2 * scale * median))
            for noise in NOISES:
                factor = cholesky(kernel + noise * np.eye(len(inputs)), lower=True)
                weights = cho_solve((factor, True), targets)
                signal = max(float(targets @ weights) / len(targets), 1e-12)
                likelihood = -0.5 * len(targets) * math.log(signal) - np.log(np.diag(factor)).sum()
                if likelihood > best:
                    best = likelihood
                    self._width, self._factor, self._weights, self._signal = (
                        2 * scale * median,
                        factor,
                        weights,
                        signal,
                    )

    def predict(self, inputs: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the noiseless value at each row of `inputs`."""
        cross = np.exp(-_squared_distances(inputs, self._inputs) / self._width)
        explained = (solve_triangular(self._factor, cross.T, lower=True) ** 2).sum(axis=0)
        return cross @ self._weights, np.sqrt(self._signal * np.maximum(1 - explained, 1e-9))


def _squared_distances(a: Array, b: Array) -> Array:
    return np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0.0)
