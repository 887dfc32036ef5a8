"""A small space for the strategies: vectors of five digits from 0 to 5, whose cost is a weighted sum."""

from random import Random

import pytest

from edgewright.core.architecture import Architecture

WEIGHTS = (5, 1, 3, 2, 4)
VALUES = (4, 2, 3, 1, 5)


class Digits(Architecture):
    space: str = "vectors"
    digits: tuple[int, ...]


class Vectors:
    """What strategies use of a space. 7,776 architectures (fewer digits on request, to exhaust it)."""

    name, source, summary = "vectors", "test", "test"

    def __init__(self, length: int = 5) -> None:
        self.length = length

    def sample(self, rng: Random) -> Digits:
        return Digits(digits=tuple(rng.randrange(6) for _ in range(self.length)))

    def mutate(self, architecture: Digits, rng: Random) -> Digits:
        digits = list(architecture.digits)
        place = rng.randrange(self.length)
        digits[place] = rng.choice([d for d in range(6) if d != digits[place]])
        return Digits(digits=tuple(digits))

    def crossover(self, a: Digits, b: Digits, rng: Random) -> Digits:
        return Digits(digits=tuple(rng.choice(pair) for pair in zip(a.digits, b.digits, strict=True)))

    def smallest(self) -> Digits:
        return Digits(digits=(0,) * self.length)

    def choices(self) -> tuple[int, ...]:
        return (6,) * self.length

    def encode(self, architecture: Digits) -> tuple[int, ...]:
        return architecture.digits

    def decode(self, vector) -> Digits:
        return Digits(digits=tuple(vector))

    def features(self, architecture: Digits) -> tuple[float, ...]:
        return tuple(float(d == k) for d in architecture.digits for k in range(6))


class Listed(Vectors):
    """The same, enumerable."""

    def __len__(self) -> int:
        return 6**self.length

    def at(self, index: int) -> Digits:
        return Digits(digits=tuple(index // 6**place % 6 for place in range(self.length)))


def cost(architecture: Digits) -> float:
    return sum(w * d for w, d in zip(WEIGHTS, architecture.digits, strict=False))


@pytest.fixture
def vectors():
    return Vectors


@pytest.fixture
def listed():
    return Listed


@pytest.fixture
def excess():
    """excess(ceiling) -> the function that strategies take."""

    def within(ceiling: float):
        return lambda architecture: max(0.0, cost(architecture) / ceiling - 1) if ceiling else float(cost(architecture))

    return within


@pytest.fixture
def value():
    """A score with diminishing returns and one interaction."""

    def score(architecture: Digits) -> float:
        d = architecture.digits
        return sum(v * x**0.7 for v, x in zip(VALUES, d, strict=False)) + (2.0 if d[0] == d[-1] else 0.0)

    return score
