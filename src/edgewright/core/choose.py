r"""One option for each place, of the greatest worth inside limits: the multiple-choice knapsack, as scipy's `milp`.

    max  sum_o w_o z_o + sum_j v_j y_j       z_o, y_j in {0, 1},  sum over the options o of a place z_o = 1
    s.t. sum_o u_o z_o + sum_j p_j y_j <= limit          for each limit that is given

z_o: the option is taken.   y_j: what follows from the choice, tied to it by rows of its own (`Following`).

Checked against: every choice written out (tests/core/test_choose.py), and the optima that its callers' papers publish
(tests/compress/test_hawq_v3.py, tests/backward/test_knapsack.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array

from edgewright.core.errors import EdgewrightError

LEAST = 1e-9  # a limit is kept to so much of itself, which is what adding up floats costs
TRIES = 50
Numbers = NDArray[np.float64]
Row = Sequence[tuple[int, float]]  # (option, or number of options + following; factor)


@dataclass(frozen=True)
class Following:
    """What follows from the choice. worth: of each.   uses: by limit, of each.   at_least: rows of a sum and what it
    must come to at least."""

    worth: Numbers = field(default_factory=lambda: np.zeros(0))
    uses: Mapping[str, Numbers] = field(default_factory=dict)
    at_least: Sequence[tuple[Row, float]] = ()


NOTHING = Following()


def choose(
    place: Sequence[int],
    worth: Numbers,
    uses: Mapping[str, Numbers],
    limits: Mapping[str, float],
    following: Following = NOTHING,
    *,
    gap: float = 0.0,
    seconds: float | None = None,
) -> list[int] | None:
    """The option taken at each place, in the order of the places; None where nothing keeps all limits.

    Args:
        place: of each option, 0 to places - 1.   worth, uses: of each option; uses by the limits' names.
        gap: how far from the greatest worth is near enough, relative.   seconds: after which the best so far is taken.
    Errors: EdgewrightError where a limit is so near to what choices cost that the solver's own tolerance decides.
    """
    options, places = len(place), max(place) + 1
    total = options + len(following.worth)
    whole = {name: np.concatenate([uses[name], following.uses.get(name, np.zeros(0))]) for name in limits}
    unit = {name: limit if limit > 0 else max(1.0, float(whole[name].max())) for name, limit in limits.items()}
    each = [[(option, 1.0) for option in range(options) if place[option] == one] for one in range(places)]
    fixed = [LinearConstraint(_matrix(each, total), 1, 1)]
    if following.at_least:
        rows, least = zip(*following.at_least, strict=True)
        fixed.append(LinearConstraint(_matrix(rows, total), lb=np.array(least)))  # pyright: ignore[reportArgumentType]
    allowed = {name: limit / unit[name] for name, limit in limits.items()}
    for _ in range(TRIES):  # the solver keeps limits to 1e-6; what breaks one by that is solved under a smaller one
        ceilings = [LinearConstraint(whole[name][None] / unit[name], ub=allowed[name]) for name in limits]
        found = milp(
            -np.concatenate([worth, following.worth]),
            constraints=[*fixed, *ceilings],
            integrality=np.ones(total),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": gap} | ({} if seconds is None else {"time_limit": seconds}),
        )
        if found.x is None:
            return None
        taken = np.round(found.x)
        over = {name: (whole[name] @ taken - limit) / unit[name] for name, limit in limits.items()}
        broken = {name: share for name, share in over.items() if share > LEAST}
        if not broken:
            return [max(options_, key=lambda one: taken[one[0]])[0] for options_ in each]
        for name, share in broken.items():
            allowed[name] -= share
    raise EdgewrightError("the integer programme does not settle: its limits are too near to what choices cost")


def _matrix(rows: Sequence[Row], columns: int) -> csr_array:
    entries = [(number, column, factor) for number, row in enumerate(rows) for column, factor in row]
    row, column, factor = zip(*entries, strict=True)
    return coo_array((np.array(factor, dtype=float), (row, column)), shape=(len(rows), columns)).tocsr()
