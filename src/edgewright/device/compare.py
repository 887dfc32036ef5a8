"""How much faster is one network than another, and how sure is that? Ratios of medians with bootstrap intervals."""

from collections.abc import Sequence

import numpy as np

from edgewright.core.data import Frozen
from edgewright.device.agent import BURST
from edgewright.device.measure import Latency

RESAMPLES = 1000


class Ratio(Frozen):
    """Median time of one network over that of another, and the 95 % interval; below 1 is faster."""

    value: float
    low: float
    high: float

    @property
    def surely_faster(self) -> bool:
        return self.high < 1

    def text(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def compared(one: Latency, base: Latency, seed: int = 0) -> Ratio:
    """One latency over another of the same measurement; what a law says is sure."""
    if one.how == base.how == "measured":
        return ratio(one.samples, base.samples, seed=seed)
    value = one.median_ms / base.median_ms
    return Ratio(value=value, low=value, high=value)


def ratio(
    times: Sequence[float], base: Sequence[float], *, block: int = BURST, seed: int = 0, resamples: int = RESAMPLES
) -> Ratio:
    """median(times) / median(base), both from one interleaved measurement, with its percentile bootstrap interval.

        r = med(t) / med(b);   [low, high] = the 2.5 and 97.5 % quantiles of med(t*) / med(b*)

    t*, b*: whole rounds drawn with replacement, the same rounds for both. Runs inside a round share the minute's noise,
    so that drawing single runs would give intervals that are too narrow; drawing the same rounds keeps the pairing.

    Args:
        times, base: ms, in the order they were measured; round i of the one stands beside round i of the other.
        block: runs in a round.
    Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13. Checked against: coverage
        of the true ratio on simulated rounds with a common drift (tests/device/test_compare.py).
    """
    rounds = min(len(times), len(base)) // block
    point = float(np.median(times) / np.median(base))
    if rounds < 2:
        return Ratio(value=point, low=point, high=point) if times is base else Ratio(value=point, low=0, high=np.inf)
    one = np.asarray(times[: rounds * block], dtype=float).reshape(rounds, block)
    other = np.asarray(base[: rounds * block], dtype=float).reshape(rounds, block)
    drawn = np.random.default_rng(seed).integers(0, rounds, (resamples, rounds))
    ratios = [float(np.median(one[rows]) / np.median(other[rows])) for rows in drawn]
    low, high = (float(value) for value in np.quantile(ratios, (0.025, 0.975)))
    return Ratio(value=point, low=low, high=high)
