"""Score and cost in one number: MnasNet's soft reward, and the hard budget beside it.

Source: Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile", CVPR 2019, arXiv:1807.11626.
"""

from collections.abc import Callable

from edgewright.core.architecture import Architecture
from edgewright.search.base import Excess

Measure = Callable[[Architecture], float]

SOFT = -0.07  # 5 % more accuracy for twice the latency: 1.05 = 2^0.07


def soft_reward(score: float, cost: float, target: float, *, under: float = SOFT, over: float = SOFT) -> float:
    """score * (cost / target)^w, with w = `under` where cost <= target and `over` above it.

    The paper's two settings: under = over = -0.07 (the default: a smooth trade, faster than the target is rewarded) and
    under = 0, over = -1 (a network below the target is worth its score, above it the score falls off).
    Args: score: positive, such as accuracy in percent.   cost, target: positive, in one unit.
    Checked against: the paper's rule that doubling the latency is worth 5 % of accuracy.
    """
    if not (cost > 0 and target > 0):
        raise ValueError(f"a soft reward needs a positive cost and target; got {cost} and {target}")
    return score * (cost / target) ** (under if cost <= target else over)


def hard_budget(cost: Measure, ceiling: float) -> Excess:
    """What strategies take as `excess`: 0 where cost <= ceiling, else by which share it is exceeded."""
    if not ceiling > 0:
        raise ValueError(f"a ceiling is positive; got {ceiling}")

    def excess(architecture: Architecture) -> float:
        return max(0.0, cost(architecture) / ceiling - 1.0)

    return excess
