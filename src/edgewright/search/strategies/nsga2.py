"""NSGA-II: evolution towards the whole front of score against cost."""

from collections.abc import Callable, Iterable
from random import Random

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgewright.core.architecture import Architecture
from edgewright.search.base import Excess, Proposals, Scored, Strategy
from edgewright.search.pareto import front
from edgewright.space.base import Space


class NSGA2(Strategy):
    """Non-dominated sorting with crowding distance, inside a budget.

    Two objectives: the score, to be high, and `cost`, to be low; without a cost the score alone. The first `population`
    proposals are random. A child crosses two winners with probability `crossover` and is mutated once; a winner is the
    better of two members drawn at random, by front, then by crowding distance (the less crowded). Of members and what
    is told, the best `population` stay, by the same order.

    Differs from the paper: one child is as good as a generation of them, because children come in rounds of any size;
    the space's own crossover and mutation in place of SBX and polynomial mutation; ceilings are kept by making
    only children inside them, not by constrained domination; nothing is evaluated twice.
    Source: Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE TEVC 2002.
    Checked against: fronts by brute force, crowding distances by hand, hypervolume of random search (more).
    """

    name = "nsga2"
    source = "Deb et al., NSGA-II, IEEE Transactions on Evolutionary Computation 2002"
    summary = "evolution towards the whole front of score against cost"

    def __init__(
        self,
        space: Space,
        excess: Excess,
        seed: int,
        *,
        cost: Callable[[Architecture], float] | None = None,
        population: int = 20,
        crossover: float = 0.9,
    ) -> None:
        self._cost, self._population, self._crossover = cost, population, crossover
        self._members: list[tuple[tuple[float, ...], Architecture]] = []  # (negated score, cost); best first
        self._space, self._proposals = space, Proposals(space, excess, self.name, seed)

    def ask(self, count: int) -> list[Architecture]:
        return self._proposals.ask(count, self._wish)

    def tell(self, scored: Iterable[Scored]) -> None:
        for architecture, score in self._proposals.in_order(scored):
            values = (-score,) if self._cost is None else (-score, self._cost(architecture))
            self._members.append((values, architecture))
        if self._members:
            order = best_first([values for values, _ in self._members])[: self._population]
            self._members = [self._members[index] for index in order]

    def _wish(self, random: Random) -> Architecture:
        if self._proposals.count < self._population or not self._members:
            return self._space.sample(random)
        child = self._winner(random)
        if random.random() < self._crossover:
            child = self._space.crossover(child, self._winner(random), random)
        return self._space.mutate(child, random)

    def _winner(self, random: Random) -> Architecture:
        # Members are sorted, so the lesser index drawn wins the tournament.
        return self._members[min(random.randrange(len(self._members)) for _ in range(2))][1]


def best_first(costs: ArrayLike) -> list[int]:
    """The rows of `costs` (N, K), lower is better, by front and then by crowding distance, the less crowded first."""
    values = _finite(np.asarray(costs, dtype=float))
    ranks = fronts(values)
    order: list[int] = []
    for rank in range(int(ranks.max()) + 1):
        rows = np.flatnonzero(ranks == rank)
        order += rows[np.argsort(-crowding(values[rows]), kind="stable")].tolist()
    return order


def fronts(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """The front of each row of `costs` (N, K): 0 if no row dominates it, 1 if only rows of front 0 do, and so on."""
    ranks = np.full(len(costs), -1)
    rank = 0
    while (ranks < 0).any():
        rows = np.flatnonzero(ranks < 0)
        ranks[rows[front(costs[rows])]] = rank
        rank += 1
    return ranks


def crowding(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Crowding distance of each row of one front: sum over objectives of the gap between its two neighbours, over the
    objective's range; infinite for the two ends."""
    distances = np.zeros(len(costs))
    for column in costs.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        if span > 0:
            distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
        distances[order[[0, -1]]] = np.inf
    return distances


def _finite(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is infinite becomes a little worse than the worst of its column, so that distances stay numbers."""
    columns = [np.where(np.isfinite(c), c, (c[np.isfinite(c)].max(initial=0.0) + 1.0)) for c in costs.T]
    return np.stack(columns, axis=1)
