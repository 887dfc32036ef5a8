"""The choice of one method for each layer under ceilings, as a mixed-integer programme (scipy's milp).

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
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array

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
    count, sites = len(options), len(choices)
    bytes_ = np.array(
        [o.stored + (1 + state) * o.gradient for _, o in options] + [c.passing_bytes for c in choices], dtype=float
    )
    work = np.array([o.macs for _, o in options] + [c.passing_macs for c in choices], dtype=float)
    value = np.array([o.value for _, o in options] + [0.0] * sites)
    slight = SLIGHT * (value.sum() or 1.0) * bytes_ / max(1.0, bytes_.sum())
    constraints = [*_structure(options, count, sites)]
    if memory is not None:
        constraints.append(LinearConstraint(bytes_[None] / 1024, ub=memory / 1024))
    if macs is not None:
        spent = sum(choice.forward_macs for choice in choices)
        constraints.append(LinearConstraint(work[None] / 1e6, ub=(macs - spent) / 1e6))
    found = milp(
        bytes_ / 1024 if cheapest else slight + price(choices) * work - value,
        constraints=constraints,
        integrality=np.array([1] * count + [0] * sites),
        bounds=Bounds(0, 1),
        options={"time_limit": SECONDS, "mip_rel_gap": 1e-4},
    )
    if found.x is None:
        return None
    return {choices[i].layer: o.method for (i, o), taken in zip(options, found.x[:count], strict=True) if taken > 0.5}


def _structure(options: Sequence[tuple[int, Option]], count: int, sites: int) -> list[LinearConstraint]:
    """One method a layer; gradients pass everything after the first layer that learns; something learns."""
    one = _matrix([(i, column, 1.0) for column, (i, _) in enumerate(options)], sites, count + sites)
    onward = [(i, count + i + 1, 1.0) for i in range(sites - 1)] + [(i, count + i, -1.0) for i in range(sites - 1)]
    learned = [(i, count + i + 1, 1.0) for i in range(sites - 1)]
    learned += [(i, k, -1.0) for k, (i, o) in enumerate(options) if o.method != FROZEN and i < sites - 1]
    any_ = [(0, k, 1.0) for k, (_, option) in enumerate(options) if option.method != FROZEN]
    return [
        LinearConstraint(one, 1, 1),
        LinearConstraint(_matrix(onward, max(1, sites - 1), count + sites), lb=0),
        LinearConstraint(_matrix(learned, max(1, sites - 1), count + sites), lb=0),
        LinearConstraint(_matrix(any_, 1, count + sites), lb=1),
    ]


def _matrix(entries: Sequence[tuple[int, int, float]], rows: int, columns: int) -> csr_array:
    row, column, value = zip(*entries, strict=True) if entries else ((), (), ())
    return coo_array((np.array(value, dtype=float), (row, column)), shape=(rows, columns)).tocsr()
