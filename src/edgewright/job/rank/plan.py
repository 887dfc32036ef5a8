"""What a ranking compares on what."""

from pydantic import Field

from edgewright.core.data import Frozen
from edgewright.core.written import Names


class RankPlan(Frozen):
    """What is asked; rank_plan.json holds it. The command's options are its fields, in this order.

    tables: the first one is the one of the summary.   ceilings: networks above one are left out of everything.
    data: without it only proxies that need none.   cheap: proxies that run a network run the space's `thin` one, on at
    most 16 images a batch, once for all networks that compute the same (`twin`); the others are unchanged.
    weight_seeds: of weights and batches, for proxies that read them; the first is `seed`.
    """

    space: str = Field(description="A space that tables speak of: nb201, nbmacro, ...")
    tables: tuple[str, ...] = Field(min_length=1, description="FILE.npz:COLUMN with accuracies; may be given again.")
    ceilings: tuple[str, ...] = Field(
        default=(), description="'FILE.npz:COLUMN<=VALUE': only networks that keep it; may be given again."
    )
    proxies: Names = Field(default=("all",), description="Names with commas between, or 'all'.")
    sample: int | None = Field(default=None, ge=10, description="Networks, drawn at random [default: every one].")
    data: str | None = Field(default=None, description="arrays:FILE.npz or another task, for proxies that need it.")
    images: int = Field(default=64, ge=2, description="Images of a scoring batch.")
    batches: int = Field(default=2, ge=1, description="Scoring batches.")
    cheap: bool = Field(default=False, description="Thin networks, few images; misjudges MeCo and Zen.")
    weight_seeds: int = Field(default=1, ge=1, description="Of weights and batches; scores are their mean.")
    seed: int = Field(default=0, description="Of the sample, the weights and the intervals.")
    resamples: int = Field(default=200, ge=0, description="Of the bootstrap of the intervals.")
