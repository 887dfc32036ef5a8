"""Strategies by name, for text that comes from people and plans."""

from edgewright.core.errors import BadInput
from edgewright.search.base import Excess, Strategy
from edgewright.search.evolution import Evolution
from edgewright.search.random import RandomSearch
from edgewright.space.base import Space


def strategies() -> dict[str, type[Strategy]]:
    """Every strategy by name."""
    return {strategy.name: strategy for strategy in (Evolution, RandomSearch)}


def resolve_strategy(name: str) -> type[Strategy]:
    known = strategies()
    if name not in known:
        raise BadInput(f"unknown strategy '{name}'; choose from {', '.join(known)}")
    return known[name]


def make_strategy(name: str, space: Space, *, excess: Excess, seed: int) -> Strategy:
    """A fresh strategy. `excess(architecture)` is 0 inside the budget, else by how many times it is exceeded."""
    return resolve_strategy(name)(space, excess, seed)
