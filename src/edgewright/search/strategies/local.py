"""Local search: look at all neighbours of the best one, move to a better one, go on."""

import heapq
from collections.abc import Iterable
from random import Random

from edgewright.core.architecture import Architecture
from edgewright.search.base import Excess, Proposals, Scored, Strategy
from edgewright.space.base import Space


class LocalSearch(Strategy):
    """Best-first hill climbing from the best of some random networks.

    The first `founders` proposals are random. Then the neighbours of the best network are proposed in random order;
    as soon as one is told to be better, its neighbours are. At a local optimum, all of whose neighbours are known, the
    search goes on from the next best network whose neighbours are not all known, so it ends with the space.
    Neighbours differ in one position of the integer encoding; of a space without one they are `mutations` mutations.

    Differs from the paper: neighbours outside the budget are not looked at, nothing is evaluated twice, and the move
    to a better neighbour happens at the end of a round.
    Source: White et al., "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021, arXiv:2005.02960
    (2020; its options of querying until a better neighbour is met, and of continuing at a minimum).
    Checked against: a landscape with one optimum, which it climbs in the least number of moves; exhaustive search.
    """

    name = "local"
    source = "White et al., Exploring the Loss Landscape in NAS, UAI 2021, arXiv:2005.02960"
    summary = "neighbours of the best one, again and again"

    def __init__(self, space: Space, excess: Excess, seed: int, *, founders: int = 10, mutations: int = 24) -> None:
        self._excess, self._founders, self._mutations = excess, founders, mutations
        self._open: list[tuple[float, int, Architecture]] = []  # a heap: not all neighbours known, best first
        self._queue: list[Architecture] = []
        self._from: tuple[float, int, Architecture] | None = None  # whose neighbours are in the queue
        self._told = 0
        self._space, self._proposals = space, Proposals(space, excess, self.name, seed)

    def ask(self, count: int) -> list[Architecture]:
        return self._proposals.ask(count, self._wish)

    def tell(self, scored: Iterable[Scored]) -> None:
        for architecture, score in self._proposals.in_order(scored):
            heapq.heappush(self._open, (-score, self._told, architecture))
            self._told += 1
        if self._from is not None and self._queue and self._open[0] < self._from:
            heapq.heappush(self._open, self._from)  # left for a better one, to come back to
            self._from, self._queue = None, []

    def _wish(self, random: Random) -> Architecture:
        if self._proposals.count < self._founders:
            return self._space.sample(random)
        while not self._queue and self._open:
            self._from = heapq.heappop(self._open)
            self._queue = self._neighbours(self._from[2], random)
        return self._queue.pop() if self._queue else self._space.sample(random)

    def _neighbours(self, architecture: Architecture, random: Random) -> list[Architecture]:
        """Those that are inside the budget and new, in random order."""
        choices = self._space.choices()
        if choices:
            here = self._space.encode(architecture)
            around = [
                self._space.decode((*here[:place], value, *here[place + 1 :]))
                for place, count in enumerate(choices)
                for value in range(count)
                if value != here[place]
            ]
        else:
            around = [self._space.mutate(architecture, random) for _ in range(self._mutations)]
        inside = {a.key(): a for a in around if not self._proposals.knows(a) and self._excess(a) <= 0}
        found = list(inside.values())
        random.shuffle(found)
        return found
