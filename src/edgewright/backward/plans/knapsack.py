"""The choice of one method for each layer under ceilings, as a mixed-integer programme (`core.choose`).

With sites i in running order, methods m, values v, and p_i = 1 where a gradient passes site i:

    max  sum_i,m v_im z_im - price work      z_im in {0, 1},  sum_m z_im = 1
    s.t. p_(i+1) >= p_i             p_(i+1) >= 1 - z_i,frozen          something learns: sum_i z_i,frozen <= sites - 1
         sum_i,m (stored_im + (1 + state) gradient_im) z_im + sum_i passing_i p_i <= memory        and so for MACs

The price of work is small (`LABOUR`): of plans that are worth nearly the same, the one that computes less.

Checked against: every choice written out on small cases (tests/backward/test_knapsack.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.core.choose import Following, Row, choose

FROZEN = "frozen"
SLIGHT = 1e-6  # of all value: what the whole memory weighs, so that of equal plans the smaller one is taken
LABOUR = 0.02  # of all value: what the multiply-adds of a whole backward pass weigh
SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Option:
    """One method for one layer. stored: bytes kept for it.   gradient: bytes of what learns.   macs: multiply-adds
    beyond those of passing the gradient on.   value: what it is worth."""

    method: str
    stored: int
    gradient: int
    macs: int
    value: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The options of one layer, in running order of the layers; and what a gradient that passes costs."""

    layer: str
    options: tuple[Option, ...]
    passing_bytes: int
    passing_macs: int
    forward_macs: int


def price(choices: Sequence[Choice]) -> float:
    """Value that one multiply-add weighs."""
    whole = sum(max(option.value for option in choice.options) for choice in choices)
    return LABOUR * whole / max(1, 2 * sum(choice.forward_macs for choice in choices))


def solve(
    choices: Sequence[Choice], memory: int | None, macs: int | None, *, state: int, cheapest: bool = False
) -> dict[str, str] | None:
    """The method of each layer; None where nothing keeps the ceilings.

    state: optimizer numbers for each that learns.   cheapest: the least memory at which something learns, whatever the
    value.
    """
    options = [(index, option) for index, choice in enumerate(choices) for option in choice.options]
    passing_bytes, passing_macs = (
        np.array([getattr(choice, name) for choice in choices], dtype=float)
        for name in ("passing_bytes", "passing_macs")
    )
    bytes_ = np.array([option.stored + (1 + state) * option.gradient for _, option in options], dtype=float)
    work = np.array([option.macs for _, option in options], dtype=float)
    value = np.array([option.value for _, option in options])
    light = SLIGHT * (value.sum() or 1.0) / max(1.0, bytes_.sum() + passing_bytes.sum())
    labour = price(choices)
    limits = {} if memory is None else {"bytes": float(memory)}
    if macs is not None:
        limits["macs"] = float(macs - sum(choice.forward_macs for choice in choices))
    worth, passing = (
        (-bytes_ / 1024, -passing_bytes / 1024)
        if cheapest
        else (value - light * bytes_ - labour * work, -light * passing_bytes - labour * passing_macs)
    )
    following = Following(passing, {"bytes": passing_bytes, "macs": passing_macs}, _structure(options, len(choices)))
    uses = {"bytes": bytes_, "macs": work}
    found = choose([i for i, _ in options], worth, uses, limits, following, gap=1e-4, seconds=SECONDS)
    return None if found is None else {choices[options[o][0]].layer: options[o][1].method for o in found}


def _structure(options: Sequence[tuple[int, Option]], sites: int) -> list[tuple[Row, float]]:
    """Gradients pass everything after the first layer that learns; something learns."""
    count = len(options)
    rows: list[tuple[Row, float]] = []
    for site in range(sites - 1):
        learns = [(k, -1.0) for k, (i, option) in enumerate(options) if i == site and option.method != FROZEN]
        rows.append(([(count + site + 1, 1.0), (count + site, -1.0)], 0.0))
        rows.append(([(count + site + 1, 1.0), *learns], 0.0))
    return [*rows, ([(k, 1.0) for k, (_, option) in enumerate(options) if option.method != FROZEN], 1.0)]
