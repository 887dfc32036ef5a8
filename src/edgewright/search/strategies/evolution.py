"""Evolution: a random population, then children of tournament winners."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from edgewright.core.architecture import Architecture
from edgewright.search.base import Excess, Proposals, Scored, Strategy
from edgewright.space.base import Space


@dataclass(frozen=True)
class Breeding:
    """How a child is made.

    tournament: members drawn at random, of which the best is a parent.   crossover: probability of two parents in place
    of one.   again: probability of one more mutation after each.
    """

    tournament: int = 6
    crossover: float = 0.3
    again: float = 0.3


@dataclass(frozen=True)
class Founders:
    """Who founds: networks inside a narrower budget.   excess: 0 where a network is inside.   redraws: how often one
    that is not is drawn anew, at most."""

    excess: Excess
    redraws: int = 100


USUAL = Breeding()


class Evolution(Strategy):
    """Steady-state evolution inside a budget, for scores without noise.

    The first `population` proposals are random; every later one is a child: with probability `crossover` of two
    tournament winners, then mutated; else of one winner mutated once, or with falling probability more often. A
    tournament is the best of `tournament` members drawn at random. After each `tell` the best `population` members
    stay: the scores are deterministic, so ageing, which protects against lucky noise, would only forget.
    Every child is inside the budget: one that is not is made again, and at last walked there by mutation.

    Args:
        breeding: how a child is made.
        founders: early-exit population initialisation (EEEA-Net): the founding population consists of networks inside
            a narrower budget (the paper: parameters below a threshold beta); a sample that is not is thrown away before
            it costs an evaluation and drawn again. None: any network inside the budget founds.

    Differs from the papers: survival of the best in place of the youngest (`regularized` has that), crossover, a
    budget; EEEA-Net draws founders until all keep the threshold, here a draw that never does is taken as it is.
    Source: Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019, arXiv:1802.01548;
    survival as in Lin et al., "Zen-NAS", ICCV 2021, arXiv:2102.01063, which ZiCo's search follows;
    founders as in Termritthikun et al., "EEEA-Net", Electronics 2021, arXiv:2108.06156.
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
        breeding: Breeding = USUAL,
        founders: Founders | None = None,
    ) -> None:
        self._population, self._breeding, self._founders = population, breeding, founders
        self._members: list[tuple[float, int, Architecture]] = []  # best first; older first among equals
        self._told = 0
        self._space, self._proposals = space, Proposals(space, excess, self.name, seed)

    def ask(self, count: int) -> list[Architecture]:
        return self._proposals.ask(count, self._wish)

    def tell(self, scored: Iterable[Scored]) -> None:
        for architecture, score in self._proposals.in_order(scored):
            self._members.append((-score, self._told, architecture))
            self._told += 1
        self._members.sort(key=lambda member: member[:2])
        del self._members[self._population :]

    def _wish(self, random: Random) -> Architecture:
        founding = self._proposals.count < self._population or not self._members
        return self._founder(random) if founding else self._child(random)

    def _founder(self, random: Random) -> Architecture:
        drawn = self._space.sample(random)
        for _ in range(self._founders.redraws if self._founders else 0):
            if self._founders is None or self._founders.excess(drawn) <= 0:
                break
            drawn = self._space.sample(random)
        return drawn

    def _child(self, random: Random) -> Architecture:
        child = self._winner(random)
        if random.random() < self._breeding.crossover:
            child = self._space.crossover(child, self._winner(random), random)
        child = self._space.mutate(child, random)
        while random.random() < self._breeding.again:
            child = self._space.mutate(child, random)
        return child

    def _winner(self, random: Random) -> Architecture:
        # Members are sorted, so the least index drawn is the tournament's best.
        drawn = (random.randrange(len(self._members)) for _ in range(self._breeding.tournament))
        return self._members[min(drawn)][2]
