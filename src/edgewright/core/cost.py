"""What a network costs, what it may cost, and how each number was obtained.

`Ceilings` is the one table of what a cost is: a row each, from which the fields of a `Budget`, the options of the
commands, the words of every report and the way that it is written follow. Another cost is another row, and a device
that gives it (`device.base.Device.gives`). Less is better of every cost. One MB is 1024 x 1024 bytes and one KB is 1024
bytes, as memory chips are sold.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, Unpack, get_type_hints

from pydantic import Field, create_model, model_validator

from edgewright.core.data import Asked, Frozen

# "analytic": counted.   "given": by the device's file, of whatever network.
How = Literal["measured", "table", "law", "analytic", "given"]
Scale = tuple[tuple[float, str, int], ...]  # size of a unit, its name, significant figures; largest first

TIMES: Scale = ((1e3, "s", 3), (1, "ms", 3))
BYTES: Scale = ((2**30, "GB", 3), (2**20, "MB", 3), (2**10, "KB", 4))
COUNTS: Scale = ((1e12, "T", 3), (1e9, "G", 3), (1e6, "M", 3), (1e3, "k", 3), (1, "", 15))
ENERGIES: Scale = ((1e3, "J", 3), (1, "mJ", 3), (1e-3, "µJ", 3), (1e-6, "nJ", 3))
AREAS: Scale = ((1, "mm²", 3),)


@dataclass(frozen=True)
class Kind:
    """What a cost is.

    name: in a mapping of costs.   title: for people.   unit: of its values.   ceiling: what the option says of it.
    scale: the units that it is shown in.   counts: what is counted, written behind the number.   of: what follows a
    ceiling in a sentence.   field: of a budget.   per_field: how many of `unit` one of the field's is.
    """

    name: str
    title: str
    unit: str
    ceiling: str
    scale: Scale
    counts: str = ""
    of: str = ""
    per_field: float = 1
    field: str = ""


class Ceilings(TypedDict, total=False):
    """The costs that there are, by the field of a `Budget`; as options of a function, too."""

    latency_ms: Annotated[float | None, Kind("latency", "latency", "ms", "median latency, batch 1, ms", TIMES)]
    size_mb: Annotated[
        float | None,
        Kind(
            "size", "file size", "bytes", "exported file, MB of 1024 x 1024 bytes", BYTES, of=" file", per_field=2**20
        ),
    ]
    peak_memory_kb: Annotated[
        float | None,
        Kind(
            "peak_memory", "peak activation memory", "bytes", "peak activations, KB of 1024 bytes", BYTES,
            of=" of activations", per_field=2**10,
        ),
    ]  # fmt: skip
    macs: Annotated[
        float | None, Kind("macs", "multiply-adds", "MACs", "multiply-adds; 6e6 is fine", COUNTS, counts=" MACs")
    ]
    params: Annotated[
        float | None, Kind("params", "parameters", "parameters", "number of parameters", COUNTS, counts=" parameters")
    ]
    energy_mj: Annotated[float | None, Kind("energy", "energy", "mJ", "energy of one inference, mJ", ENERGIES)]
    area_mm2: Annotated[float | None, Kind("area", "chip area", "mm2", "area of the chip, square mm", AREAS)]


def _kinds() -> dict[str, Kind]:
    rows = get_type_hints(Ceilings, include_extras=True).items()
    found = [replace(hint.__metadata__[0], field=field) for field, hint in rows]
    return {kind.name: kind for kind in found}


KINDS: Mapping[str, Kind] = _kinds()
CostName = str  # one of KINDS


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
    return Cost(value=value, unit=KINDS[name].unit, how=how, **spread)


def _fields() -> dict[str, Any]:
    """A field of a budget for each cost."""
    return {
        kind.field: (
            float | None,
            Field(default=None, gt=0, allow_inf_nan=False, description=f"Ceiling: {kind.ceiling}."),
        )
        for kind in KINDS.values()
    }


class Budget(create_model("Budget", __base__=Asked, **_fields())):
    """A set of ceilings; at least one must be given."""

    if TYPE_CHECKING:

        def __init__(self, **ceilings: Unpack[Ceilings]) -> None: ...

    @model_validator(mode="after")
    def _at_least_one(self) -> "Budget":
        if not self.ceilings():
            *others, last = (kind.field for kind in KINDS.values())
            raise ValueError(f"no budget given; set at least one ceiling: {', '.join(others)} or {last}")
        return self

    def ceilings(self) -> dict[CostName, float]:
        """The ceilings given, by cost name, in the units of the costs."""
        given = self.model_dump(exclude_none=True)
        return {name: given[kind.field] * kind.per_field for name, kind in KINDS.items() if kind.field in given}

    def within(self, ceilings: Mapping[CostName, float]) -> "Budget":
        """With those ceilings too (in the units of the costs): of two on the same cost, the lower."""
        own = self.ceilings()
        least = {name: min(value, own.get(name, value)) for name, value in ceilings.items()}
        return Budget.parse(self.model_dump(exclude_none=True) | as_fields(least), "budget")

    def share_used(self, costs: Mapping[str, Cost]) -> dict[CostName, float]:
        """Cost over ceiling for each ceiling given; more than 1 breaks it."""
        return {name: costs[name].value / ceiling for name, ceiling in self.ceilings().items()}

    def broken(self, costs: Mapping[str, Cost]) -> list[str]:
        """One sentence for each ceiling that `costs` break; empty when the budget is met."""
        ceilings = self.ceilings()
        return [
            f"{words(name)} is {show(name, costs[name].value)}, "
            f"{share:.2f} times the ceiling of {show(name, ceilings[name])}"
            for name, share in self.share_used(costs).items()
            if share > 1
        ]


def as_fields(ceilings: Mapping[CostName, float]) -> dict[str, float]:
    """Ceilings in the units of the costs as fields of a Budget."""
    return {KINDS[name].field: value / KINDS[name].per_field for name, value in ceilings.items()}


def option(name: CostName) -> str:
    """The option of a command that is the ceiling."""
    return f"--{KINDS[name].field.replace('_', '-')}"


def words(name: CostName) -> str:
    """The name as words: "peak memory"."""
    return name.replace("_", " ")


def show(name: CostName, value: float) -> str:
    """A cost for people: '0.31 ms', '1.23 s', '2.4 MB', '256 KB', '5.9 M MACs', '1.2 M parameters', '35 µJ'."""
    return amount(name, value) + KINDS[name].counts


def amount(name: CostName, value: float) -> str:
    """The same without what is counted, where a head says it: '5.9 M'."""
    return _scaled(value, KINDS[name].scale)


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
