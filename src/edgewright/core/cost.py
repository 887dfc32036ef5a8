"""What a network costs, what it may cost, and how each number was obtained.

Units are fixed per cost: latency in ms (median, batch 1), size and peak_memory in bytes, macs and params as counts.
One MB is 1024 x 1024 bytes and one KB is 1024 bytes, as memory chips are sold.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from pydantic import Field, model_validator

from edgewright.core.data import Asked, Frozen

How = Literal["measured", "table", "analytic"]
CostName = Literal["latency", "size", "peak_memory", "macs", "params"]
UNITS: dict[str, str] = {
    "latency": "ms",
    "size": "bytes",
    "peak_memory": "bytes",
    "macs": "MACs",
    "params": "parameters",
}


class Cost(Frozen):
    """One number with its unit and how it was obtained; a latency also says its spread (ms)."""

    value: float
    unit: str
    how: How
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    minimum: float | None = None


def cost(name: CostName, value: float, how: How, **spread: float) -> Cost:
    return Cost(value=value, unit=UNITS[name], how=how, **spread)


def _ceiling(what: str) -> Any:
    return Field(default=None, gt=0, allow_inf_nan=False, description=f"Ceiling: {what}.")


class Budget(Asked):
    """A set of ceilings; at least one must be given."""

    latency_ms: float | None = _ceiling("median latency, batch 1, ms")
    size_mb: float | None = _ceiling("exported file, MB of 1024 x 1024 bytes")
    peak_memory_kb: float | None = _ceiling("peak activations, KB of 1024 bytes")
    macs: float | None = _ceiling("multiply-adds; 6e6 is fine")
    params: float | None = _ceiling("number of parameters")

    @model_validator(mode="after")
    def _at_least_one(self) -> "Budget":
        if not self.ceilings():
            raise ValueError(
                "no budget given; set at least one ceiling: latency_ms, size_mb, peak_memory_kb, macs or params"
            )
        return self

    def ceilings(self) -> dict[CostName, float]:
        """The ceilings given, by cost name, in the units of `UNITS`."""
        every: dict[CostName, float | None] = {
            "latency": self.latency_ms,
            "size": None if self.size_mb is None else self.size_mb * 2**20,
            "peak_memory": None if self.peak_memory_kb is None else self.peak_memory_kb * 2**10,
            "macs": self.macs,
            "params": self.params,
        }
        return {name: ceiling for name, ceiling in every.items() if ceiling is not None}

    def within(self, ceilings: Mapping[CostName, float]) -> "Budget":
        """With those ceilings too (in the units of `UNITS`): of two on the same cost, the lower."""
        own = self.ceilings()
        least: dict[CostName, float] = {name: min(value, own.get(name, value)) for name, value in ceilings.items()}
        return Budget(**(self.model_dump(exclude_none=True) | as_fields(least)))

    def share_used(self, costs: Mapping[str, Cost]) -> dict[CostName, float]:
        """Cost over ceiling for each ceiling given; more than 1 breaks it."""
        return {name: costs[name].value / ceiling for name, ceiling in self.ceilings().items()}

    def broken(self, costs: Mapping[str, Cost]) -> list[str]:
        """One sentence for each ceiling that `costs` break; empty when the budget is met."""
        ceilings = self.ceilings()
        return [
            f"{name.replace('_', ' ')} is {show(name, costs[name].value)}, "
            f"{share:.2f} times the ceiling of {show(name, ceilings[name])}"
            for name, share in self.share_used(costs).items()
            if share > 1
        ]


class Ceilings(TypedDict, total=False):
    """The fields of a `Budget` as options of a function."""

    latency_ms: float | None
    size_mb: float | None
    peak_memory_kb: float | None
    macs: float | None
    params: float | None


def as_fields(ceilings: Mapping[CostName, float]) -> dict[str, float]:
    """Ceilings in the units of `UNITS` as fields of a Budget."""
    units = {"latency": ("latency_ms", 1), "size": ("size_mb", 2**20), "peak_memory": ("peak_memory_kb", 2**10)}
    named = [(*units.get(name, (name, 1)), value) for name, value in ceilings.items()]
    return {field: value / unit for field, unit, value in named}


def show(name: str, value: float) -> str:
    """A cost for people: '0.31 ms', '1.23 s', '2.4 MB', '256 KB', '5.9 M MACs', '1.2 M parameters'."""
    if name == "latency":
        return _scaled(value, ((1e3, "s", 3), (1, "ms", 3)))
    if name in ("size", "peak_memory"):
        return _scaled(value, ((2**30, "GB", 3), (2**20, "MB", 3), (2**10, "KB", 4)))
    return f"{_scaled(value, ((1e12, 'T', 3), (1e9, 'G', 3), (1e6, 'M', 3), (1e3, 'k', 3), (1, '', 15)))} {UNITS[name]}"


def figures(value: float, count: int = 3) -> str:
    """A number of that many significant figures as a person writes it: '1,230', '0.00012'; no exponent, no zeros at the
    end behind the point."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    rounded = float(f"{value:.{count - 1}e}")
    behind = max(0, count - 1 - math.floor(math.log10(abs(rounded))))
    text = f"{rounded:,.{behind}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scaled(value: float, units: Sequence[tuple[float, str, int]]) -> str:
    """In the largest unit (size, name, significant figures) of which there is one whole, once rounded."""
    written = [(float(f"{value / size:.{count - 1}e}"), size, unit, count) for size, unit, count in units]
    _, size, unit, count = next((each for each in written if 1 <= each[0] < math.inf), written[-1])
    return f"{figures(value / size, count)} {unit}".rstrip()
