"""Evolution: a random population, then children of tournament winners."""

from collections.abc import Iterable
from random import Random

from edgewright.core.architecture import Architecture
from edgewright.core.seed import rng
from edgewright.search.base import Excess, Proposals, Scored, Strategy, rankable
from edgewright.space.base import Space


class Evolution(Strategy):
    """Steady-state evolution inside a budget, for scores without noise.

    The first `population` proposals are random; every later one is a child: with probability `crossover` of two
    tournament winners, then mutated; else of one winner mutated once, or with falling probability more often. A
    tournament is the best of `tournament` members drawn at random. After each `tell` the best `population` members
    stay: the scores are deterministic, so ageing, which protects against lucky noise, would only forget.
    Every child is inside the budget: one that is not is made again, and at last walked there by mutation.

    Differs from the paper: survival of the best in place of the youngest, crossover, a budget.
    Source: Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019, arXiv:1802.01548;
    survival as in Lin et al., "Zen-NAS", ICCV 2021, arXiv:2102.01063, which ZiCo's search follows.
    Checked against: random search on the same budget (better), exhaustive search on a small space (equal).
    """

    name = "evolution"
    source = "Real et al., Regularized Evolution, AAAI 2019, arXiv:1802.01548"
    summary = "children of tournament winners; the best survive"

    def __init__(
        self,
        space: Space,
        excess: Excess,
        seed: int,
        *,
        population: int = 48,
        tournament: int = 6,
        crossover: float = 0.3,
        again: float = 0.3,
    ) -> None:
        self._space, self._seed, self._count = space, seed, 0
        self._population, self._tournament, self._crossover, self._again = population, tournament, crossover, again
        self._members: list[tuple[float, int, Architecture]] = []  # best first; older first among equals
        self._told = 0
        self._proposals = Proposals(space, excess)

    def ask(self, count: int) -> list[Architecture]:
        asked: list[Architecture] = []
        while len(asked) < count:
            random = rng(self._seed, self.name, self._count)
            founding = self._count < self._population or not self._members
            found = self._proposals.propose(self._space.sample if founding else self._child, random)
            if found is None:
                break
            self._count += 1
            asked.append(found)
        return asked

    def tell(self, scored: Iterable[Scored]) -> None:
        for architecture, score in scored:
            self._members.append((-rankable(score), self._told, architecture))
            self._told += 1
        self._members.sort(key=lambda member: member[:2])
        del self._members[self._population :]

    def _child(self, random: Random) -> Architecture:
        child = self._winner(random)
        if random.random() < self._crossover:
            child = self._space.crossover(child, self._winner(random), random)
        child = self._space.mutate(child, random)
        while random.random() < self._again:
            child = self._space.mutate(child, random)
        return child

    def _winner(self, random: Random) -> Architecture:
        # Members are sorted, so the least index drawn is the tournament's best.
        return self._members[min(random.randrange(len(self._members)) for _ in range(self._tournament))][2]
