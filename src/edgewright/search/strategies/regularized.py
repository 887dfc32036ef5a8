"""Regularised evolution: the oldest dies, however good it was."""

from collections import deque
from collections.abc import Iterable
from random import Random

from edgewright.core.architecture import Architecture
from edgewright.search.base import Excess, Proposals, Scored, Strategy
from edgewright.space.base import Space


class RegularizedEvolution(Strategy):
    """Ageing evolution: a mutated tournament winner enters the population, its oldest member leaves.

    The first `population` proposals are random. Then each proposal is one mutation of the best of `tournament` members
    drawn at random, without repeats. The population is a queue: what is told enters at its end, and what is over
    `population` leaves at its front. A lucky score so lives only as long as its owner, and only what scores well again
    through its children stays.

    Args:
        population, tournament: 20 and 5, the paper's ratio of 100 and 25, which were set for 20,000 evaluations; with
            the paper's sizes a search of 100 evaluations is a random one.
    Differs from the paper: proposals are inside a budget and never repeat (the paper trains repeats again), and a round
    of several children is made from one population.
    Source: Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019, arXiv:1802.01548.
    Checked against: the queue by hand; random search on the same budget (better).
    """

    name = "regularized"
    source = "Real et al., Regularized Evolution, AAAI 2019, arXiv:1802.01548"
    summary = "mutated tournament winners; the oldest die"

    def __init__(self, space: Space, excess: Excess, seed: int, *, population: int = 20, tournament: int = 5) -> None:
        self._population, self._tournament = population, tournament
        self._members: deque[tuple[float, Architecture]] = deque(maxlen=population)
        self._space, self._proposals = space, Proposals(space, excess, self.name, seed)

    def ask(self, count: int) -> list[Architecture]:
        return self._proposals.ask(count, self._wish)

    def tell(self, scored: Iterable[Scored]) -> None:
        self._members.extend((score, architecture) for architecture, score in self._proposals.in_order(scored))

    def _wish(self, random: Random) -> Architecture:
        if self._proposals.count < self._population or not self._members:
            return self._space.sample(random)
        drawn = random.sample(list(self._members), min(self._tournament, len(self._members)))
        return self._space.mutate(max(drawn, key=lambda member: member[0])[1], random)
