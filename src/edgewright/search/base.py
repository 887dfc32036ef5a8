"""Strategies: who proposes the next architecture.

The law: `ask` gives architectures that are inside the budget and have not been proposed before; `tell` gives their
scores back, higher is better, in any order within a round. Everything a strategy does follows from its seed and from
what it was asked and told, so a resumed run (`explore`) repeats its asks and tells and is where it was, and it does not
matter how many processes do the scoring. When no new feasible architecture is found after many tries, `ask` returns
fewer than it was asked for; an empty list ends the search.

The budget is a function `excess(architecture)`: 0 inside, else by how many times the worst ceiling is exceeded. It is a
number rather than yes or no because in a tight budget no random architecture is inside, and one must walk there.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from random import Random
from typing import ClassVar

from edgewright.core.architecture import Architecture
from edgewright.core.errors import BadInput
from edgewright.core.seed import rng
from edgewright.space.base import Space

Excess = Callable[[Architecture], float]
Scored = tuple[Architecture, float]
Wish = Callable[[Random], Architecture]

MOST_SWEPT = 20_000


class Strategy(ABC):
    """Made by `make_strategy(name, space, excess=..., seed=...)`; see the law above."""

    name: ClassVar[str]
    source: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def __init__(self, space: Space, excess: Excess, seed: int) -> None: ...

    @abstractmethod
    def ask(self, count: int) -> list[Architecture]:
        """At most `count` new architectures inside the budget; fewer where no more are found."""

    @abstractmethod
    def tell(self, scored: Iterable[Scored]) -> None:
        """The scores (higher is better) of architectures that were asked."""


class Proposals:
    """Turns a strategy's wishes into architectures that are inside the budget and new.

    Every proposal draws from a generator of its own, by its number, so that neither the size of the rounds nor how
    often a wish had to be made again changes the draws of the next one. `count` says how many were made.

    Args:
        name, seed: of the strategy.
        steps: how many mutations a walk into the budget may try.
        tries: how many wishes are made before giving up on one proposal.
    """

    def __init__(
        self, space: Space, excess: Excess, name: str, seed: int, *, steps: int = 200, tries: int = 32
    ) -> None:
        self._space, self._excess, self._steps, self._tries = space, excess, steps, tries
        self._name, self._seed, self.count = name, seed, 0
        self._proposed: dict[str, int] = {}  # key -> its number

    def ask(self, count: int, wish: Wish) -> list[Architecture]:
        """What a strategy answers when it is asked: at most `count` proposals, fewer where no more are found."""
        asked: list[Architecture] = []
        while len(asked) < count:
            found = self.propose(wish, rng(self._seed, self._name, self.count))
            if found is None:
                break
            self.count += 1
            asked.append(found)
        return asked

    def propose(self, wish: Wish, rng: Random) -> Architecture | None:
        """A new feasible architecture near what `wish` makes, or None.

        Wishes are drawn until one is inside and new. If half of the tries bring none, the wish that exceeds least is
        walked downhill into the budget. The last resort wanders inside the budget from the smallest architecture; and
        where the space has an encoding of at most `MOST_SWEPT` vectors, looks at every one, so None is then the end.
        """
        nearest: tuple[float, Architecture] | None = None
        for attempt in range(self._tries):
            if attempt >= self._tries // 2 and nearest is not None:
                inside = downhill(self._space, nearest[1], self._excess, rng, self._steps)
                nearest = None
                if inside is not None and self._is_new(inside):
                    return inside
            wished = wish(rng)
            if wished.key() in self._proposed:
                continue
            exceeded = self._excess(wished)
            if exceeded <= 0:
                return self._take(wished)
            if nearest is None or exceeded < nearest[0]:
                nearest = exceeded, wished
        return self._wander(rng) or self._sweep(rng)

    def knows(self, architecture: Architecture) -> bool:
        """Whether it has been proposed."""
        return architecture.key() in self._proposed

    def in_order(self, scored: Iterable[Scored]) -> list[Scored]:
        """What is told, in the order in which it was proposed, with what is no number as minus infinity."""
        ranked = [(architecture, rankable(score)) for architecture, score in scored]
        return sorted(ranked, key=lambda item: self._proposed.get(item[0].key(), len(self._proposed)))

    def _is_new(self, architecture: Architecture) -> bool:
        if architecture.key() in self._proposed:
            return False
        self._take(architecture)
        return True

    def _take(self, architecture: Architecture) -> Architecture:
        self._proposed[architecture.key()] = len(self._proposed)
        return architecture

    def _wander(self, rng: Random) -> Architecture | None:
        """Mutate from the smallest architecture, staying inside, until something new is met."""
        here = self._space.smallest()
        if self._excess(here) > 0:
            return None
        for _ in range(self._steps):
            if self._is_new(here):
                return here
            there = self._space.mutate(here, rng)
            if self._excess(there) <= 0:
                here = there
        return None

    def _sweep(self, rng: Random) -> Architecture | None:
        """Anything new inside the budget, from a random vector on."""
        choices = self._space.choices()
        count = math.prod(choices)
        start = rng.randrange(count)
        for number in range(start, start + count) if choices and count <= MOST_SWEPT else ():
            vector, left = [], number % count
            for options in choices:
                left, digit = divmod(left, options)
                vector.append(digit)
            architecture = self._space.decode(vector)
            if self._excess(architecture) <= 0 and self._is_new(architecture):
                return architecture
        return None


def downhill(
    space: Space, architecture: Architecture, cost: Callable[[Architecture], float], rng: Random, steps: int
) -> Architecture | None:
    """Mutate `architecture`, keeping what does not cost more, until its cost is 0; None if `steps` do not suffice."""
    found, value = _descend(space, architecture, cost, rng, steps)
    return found if value <= 0 else None


def least(
    space: Space, cost: Callable[[Architecture], float], rng: Random, *, tries: int = 400
) -> tuple[Architecture, float]:
    """The architecture of least `cost` that a short search finds, and that cost: what to say of a hopeless budget.

    Walks downhill from the smallest architecture and from the cheapest of some random ones, `tries` evaluations in all.
    Stops at 0, below which no cost goes.
    """
    samples = [space.sample(rng) for _ in range(max(1, tries // 8))]
    best, value = space.smallest(), cost(space.smallest())
    for start in (best, min(samples, key=cost)):
        found, reached = _descend(space, start, cost, rng, (tries - len(samples)) // 2)
        if reached < value:
            best, value = found, reached
    return best, value


def _descend(
    space: Space, architecture: Architecture, cost: Callable[[Architecture], float], rng: Random, steps: int
) -> tuple[Architecture, float]:
    value = cost(architecture)
    for _ in range(steps):
        if value <= 0:
            break
        changed = space.mutate(architecture, rng)
        changed_value = cost(changed)
        if changed_value <= value:  # equal is accepted: one of several ceilings may bind alone
            architecture, value = changed, changed_value
    return architecture, value


def rankable(score: float) -> float:
    """What is not a number ranks last."""
    return -math.inf if math.isnan(score) else score


def encoding(space: Space, strategy: str) -> tuple[int, ...]:
    """The choices at each position of the space's integer encoding; BadInput where it offers none."""
    choices = space.choices()
    if not choices:
        raise BadInput(f"strategy {strategy}: the space {space.name} offers no integer encoding; take another strategy")
    return choices
