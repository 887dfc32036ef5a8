"""The plan of a run: everything that was asked for, resolved, as one value and one file."""

from typing import Annotated, Literal, TypedDict

from pydantic import AfterValidator, Field

from edgewright.core.cost import Budget
from edgewright.core.data import Asked
from edgewright.core.tensors import Size, sides

LEAST_SIDE, MOST_SIDE = 8, 512


def _kept(resolution: int | Size) -> int | Size:
    for side in sides(resolution):
        if not LEAST_SIDE <= side <= MOST_SIDE:
            raise ValueError(f"resolution must be from {LEAST_SIDE} to {MOST_SIDE} pixels (got {resolution})")
    return resolution


Resolution = Annotated[int | Size, AfterValidator(_kept)]  # pixels: a side, or height and width


class Plan(Asked):
    """What `edgewright design` is asked to do; plan.yaml holds it.

    With `minutes` the run is boxed in time. With `candidates` and `epochs` both given and no `minutes`, nothing depends
    on time, and the same plan gives the same network on the same machine.

    Args:
        task: digits, images:DIR, arrays:FILE.npz, or dataset (handed over from Python).
        device: where the network must run; `edgewright devices` lists them.
        threads: threads of the runtime, on the device.
        space, proxy, strategy: what may be built, how it is scored untrained, who proposes next.
        minutes: wall-clock limit for the whole run.
        candidates: how many architectures to score.
        finalists: how many of the best are trained briefly.
        epochs: epochs of the full training.
        seed: the same seed and plan give the same candidates and scores.
        workers: processes for scoring and finalist training (default: all cores).
        ray: address of a Ray cluster to spread them over instead ("local" starts one here).
        skip_bad: how many unreadable images are skipped before they are an error.
        resolution: pixels that images are kept at: a side, or height and width (default: inferred).
        flip: whether left-right flips keep the targets (default: inferred).
        metric: what decides which network is better (default: the kind's, as suits the data).
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    task: str
    device: str = "cpu"
    threads: int = Field(default=1, ge=1)
    budget: Budget
    space: str = "mobile"
    proxy: str = "capacity"
    strategy: str = "evolution"
    minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    candidates: int | None = Field(default=None, ge=1)
    finalists: int = Field(default=8, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    workers: int | None = Field(default=None, ge=1)
    ray: str | None = None
    skip_bad: int = Field(default=0, ge=0)
    resolution: Resolution | None = None
    flip: bool | None = None
    metric: str | None = None


class DesignOptions(TypedDict, total=False):
    """The fields of a `Plan` that `design` takes beside those it names itself."""

    threads: int
    space: str
    proxy: str
    strategy: str
    candidates: int | None
    finalists: int
    epochs: int | None
    seed: int
    workers: int | None
    ray: str | None
    skip_bad: int
    resolution: int | Size | None
    flip: bool | None
    metric: str | None
