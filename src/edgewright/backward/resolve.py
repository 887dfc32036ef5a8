"""The methods by name. One name may stand for rules of several kinds of layer: "full" is for convolutions and norms."""

import functools

from edgewright.backward.base import Rule
from edgewright.backward.calls import Kind
from edgewright.backward.exact import BitMask, Exact, FrozenNorm
from edgewright.backward.gradient_filter import GradientFilter
from edgewright.backward.mobiletl import SignedMask
from edgewright.backward.sparse_update import SubTensor
from edgewright.backward.walsh import Walsh
from edgewright.core.errors import BadInput


@functools.cache
def methods() -> dict[str, tuple[Rule, ...]]:
    """Every method, each with its rules (for different kinds of layers)."""
    return {
        "full": (Exact("all"), FrozenNorm("all")),
        "bias": (Exact("bias"), FrozenNorm("bias")),
        "frozen": (Exact("nothing"), FrozenNorm("nothing")),
        "mask": (BitMask(),),
        "signed": (SignedMask(),),
        "filter-2": (GradientFilter(2),),
        "filter-4": (GradientFilter(4),),
        "filter-8": (GradientFilter(8),),
        "wht-3": (Walsh(2),),
        "wht-10": (Walsh(4),),
        "wht-21": (Walsh(6),),
        "wht-36": (Walsh(8),),
        "slice-8": (SubTensor(1 / 8),),
        "slice-4": (SubTensor(1 / 4),),
        "slice-2": (SubTensor(1 / 2),),
    }


def rule_for(name: str, kind: Kind) -> Rule:
    """Errors: BadInput for an unknown method, or one that has no rule for this kind of layer."""
    if name not in methods():
        raise BadInput(f"unknown backward method '{name}'; choose from {', '.join(methods())}")
    for rule in methods()[name]:
        if kind in rule.kinds:
            return rule
    raise BadInput(f"the backward method '{name}' is not for a {kind}")
