"""The plan of a run: everything that was asked for, resolved, as one value and one file."""

import re
from typing import Annotated, Any, Literal, TypedDict

from pydantic import AfterValidator, BeforeValidator, Field

from edgewright.core.cost import Budget
from edgewright.core.data import Asked
from edgewright.core.tensors import Size, sides

LEAST_SIDE, MOST_SIDE = 8, 512


def _written(resolution: Any) -> Any:
    """A text, 64 or 48x64, in numbers; anything else as it is."""
    if not isinstance(resolution, str):
        return resolution
    found = re.fullmatch(r"\s*(\d+)\s*(?:[xX×*,]\s*(\d+))?\s*", resolution)
    if not found:
        raise ValueError(f"resolution {resolution}: give a side, 64, or height x width, 48x64")
    height, width = found.groups()
    return int(height) if width is None else (int(height), int(width))


def _kept(resolution: int | Size) -> int | Size:
    for side in sides(resolution):
        if not LEAST_SIDE <= side <= MOST_SIDE:
            raise ValueError(f"resolution must be from {LEAST_SIDE} to {MOST_SIDE} pixels (got {resolution})")
    return resolution


Resolution = Annotated[int | Size, BeforeValidator(_written), AfterValidator(_kept)]  # a side, or height and width


class Plan(Asked):
    """What `edgewright design` is asked to do; plan.yaml holds it. The command's options are its fields, in this order.

    With `minutes` the run is boxed in time. With `candidates` and `epochs` both given and no `minutes`, nothing depends
    on time, and the same plan gives the same network on the same machine.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    task: str = Field(description="digits, images:DIR, or arrays:FILE.npz.")
    budget: Budget
    minutes: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Wall-clock limit for the whole run [default: 30]."
    )
    device: str = Field(default="cpu", description="Where the network must run.")
    threads: int = Field(default=1, ge=1, description="Threads of the runtime.")
    space: str = Field(default="mobile", description="What may be built.")
    start: str | None = Field(
        default=None,
        description="Networks that have learned, which compete: timm:NAME, a run, a folder of either, or auto.",
    )
    weights: str | None = Field(default=None, description="Of one named start: a .safetensors file.")
    download: bool = Field(default=False, description="Fetch a start's weights from the hub if they are not here.")
    transfer: str = Field(default="linear_probe", description="Score of what a start was made into, before it learns.")
    proxy: str = Field(default="capacity", description="Training-free score.")
    strategy: str = Field(default="evolution", description="Search strategy.")
    candidates: int | None = Field(default=None, ge=1, description="How many architectures to score.")
    finalists: int = Field(default=8, ge=1, description="How many are trained briefly.")
    compare_random: bool = Field(
        default=False, description="Train random networks as briefly, and say how much better the choice is."
    )
    epochs: int | None = Field(default=None, ge=1, description="Epochs of the full training.")
    seed: int = Field(default=0, ge=0, description="Same seed and plan, same candidates.")
    workers: int | None = Field(default=None, ge=1, description="Processes for scoring [default: all cores].")
    ray: str | None = Field(default=None, description="Address of a Ray cluster; 'local' starts one.")
    skip_bad: int = Field(default=0, ge=0, description="Unreadable images to skip.")
    group: str | None = Field(
        default=None,
        description="What stays in one part: a regular expression over file names, or a CSV with columns file, group.",
    )
    resolution: Resolution | None = Field(
        default=None, description="Pixels images are kept at: 64, or 48x64 (height x width)."
    )
    metric: str | None = Field(default=None, description="What decides which network is better [default: by kind].")
    flip: bool | None = Field(default=None, description="Do left-right flips keep the label?")


class DesignOptions(TypedDict, total=False):
    """The fields of a `Plan` that `design` takes beside those it names itself."""

    threads: int
    space: str
    start: str | None
    weights: str | None
    download: bool
    transfer: str
    proxy: str
    strategy: str
    candidates: int | None
    finalists: int
    compare_random: bool
    epochs: int | None
    seed: int
    workers: int | None
    ray: str | None
    skip_bad: int
    group: str | None
    resolution: int | Size | None
    metric: str | None
    flip: bool | None
