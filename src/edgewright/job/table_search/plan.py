"""What a search of a published table is asked for."""

from typing import Literal

from pydantic import Field

from edgewright.core.data import Asked
from edgewright.core.written import Names


class TableSearchPlan(Asked):
    """What is asked. The command's options are its fields, in this order."""

    space: str = Field(description="A space that tables speak of: nb201, nbmacro, ...")
    table: str = Field(description="FILE.npz:COLUMN, accuracy in percent.")
    latency: str | None = Field(default=None, description="FILE.npz:COLUMN, latency in ms.")
    latency_ms: float | None = Field(default=None, description="Ceiling [default: the latency table's median].")
    ceilings: tuple[str, ...] = Field(
        default=(), description="'FILE.npz:COLUMN<=VALUE': a ceiling on any cost of a table; may be given again."
    )
    strategies: Names = Field(default=("all",), description="Names with commas between, or 'all'.")
    reward: Literal["hard", "soft"] = Field(
        default="hard", description="hard: stay inside the ceilings; soft: MnasNet's reward."
    )
    queries: int = Field(default=100, description="Networks whose accuracy a search may look up.")
    repeats: int = Field(default=100, description="Searches of each strategy, from different seeds.")
    seed: int = Field(default=0, description="Of everything random.")
