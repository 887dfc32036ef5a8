"""Strategies by name, for text that comes from people and plans."""

from typing import Any

from edgewright.core.errors import BadInput
from edgewright.search.base import Excess, Strategy
from edgewright.search.strategies.evolution import Evolution
from edgewright.search.strategies.linas import LINAS
from edgewright.search.strategies.local import LocalSearch
from edgewright.search.strategies.nsga2 import NSGA2
from edgewright.search.strategies.random import RandomSearch
from edgewright.search.strategies.regularized import RegularizedEvolution
from edgewright.search.strategies.reinforce import Reinforce, ReinforceMemory
from edgewright.search.strategies.shgo import SHGO
from edgewright.space.base import Space


def strategies() -> dict[str, type[Strategy]]:
    """Every strategy by name."""
    known = (
        Evolution, RandomSearch, LINAS, LocalSearch, NSGA2, RegularizedEvolution, Reinforce, ReinforceMemory, SHGO,
    )  # fmt: skip
    return {strategy.name: strategy for strategy in known}


def resolve_strategy(name: str) -> type[Strategy]:
    known = strategies()
    if name not in known:
        raise BadInput(f"unknown strategy '{name}'; choose from {', '.join(known)}")
    return known[name]


def make_strategy(name: str, space: Space, *, excess: Excess, seed: int, **options: Any) -> Strategy:
    """A fresh strategy. `excess(architecture)` is 0 inside the budget, else by how many times it is exceeded.

    Args:
        options: what the strategy's own class takes beside these, such as `cost` of `nsga2`.
    """
    return resolve_strategy(name)(space, excess, seed, **options)
