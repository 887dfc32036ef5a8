"""The methods by name. One name may stand for rules of several kinds of layer: "full" is for convolutions and norms.

A "w" at the end: only the weight's gradient is made by the method, the exact one is passed on.
"""

import functools

from edgewright.backward.base import Rule
from edgewright.backward.calls import Kind
from edgewright.backward.exact import BitMask, Exact, FrozenNorm
from edgewright.backward.rules.gradient_filter import GradientFilter
from edgewright.backward.rules.mobiletl import SignedMask
from edgewright.backward.rules.onward import ExactOnward
from edgewright.backward.rules.sparse_update import SubTensor
from edgewright.backward.rules.walsh import Walsh
from edgewright.core.errors import BadInput

WALSH_ORDERS = {3: 2, 10: 4, 21: 6, 36: 8}  # by the bases kept of an 8 x 8 patch


@functools.cache
def methods() -> dict[str, tuple[Rule, ...]]:
    """Every method, each with its rules (for different kinds of layers)."""
    return {
        "full": (Exact("all"), FrozenNorm("all")),
        "bias": (Exact("bias"), FrozenNorm("bias")),
        "frozen": (Exact("nothing"), FrozenNorm("nothing")),
        "mask": (BitMask(),),
        "signed": (SignedMask(),),
        **{f"filter-{patch}": (GradientFilter(patch),) for patch in (2, 4, 8)},
        **{f"filter-{patch}w": (ExactOnward(GradientFilter(patch)),) for patch in (2, 4, 8)},
        **{f"wht-{bases}": (Walsh(order),) for bases, order in WALSH_ORDERS.items()},
        **{f"wht-{bases}w": (ExactOnward(Walsh(order)),) for bases, order in WALSH_ORDERS.items()},
        "slice-8": (SubTensor(1 / 8),),
        "slice-4": (SubTensor(1 / 4),),
        "slice-2": (SubTensor(1 / 2),),
    }


def exact_onward() -> tuple[str, ...]:
    """The methods that pass on exact gradients: what the planner chooses from, as errors that are passed on spoil what
    all earlier layers learn (see `onward`)."""
    return tuple(name for name in methods() if f"{name}w" not in methods())


def rules_of(name: str) -> tuple[Rule, ...]:
    """Errors: BadInput for an unknown method."""
    if name not in methods():
        raise BadInput(f"unknown backward method '{name}'; choose from {', '.join(methods())}")
    return methods()[name]


def rule_for(name: str, kind: Kind) -> Rule:
    """Errors: BadInput for an unknown method, or one that has no rule for this kind of layer."""
    for rule in rules_of(name):
        if kind in rule.kinds:
            return rule
    raise BadInput(f"the backward method '{name}' is not for a {kind}")
