"""What an adaptation is asked for."""

from collections.abc import Sequence
from typing import TypedDict

from pydantic import Field

from edgewright.core.data import Asked
from edgewright.core.plan import Resolution
from edgewright.core.tensors import Size
from edgewright.core.written import Names


class AdaptPlan(Asked):
    """What is asked; adapt_plan.json holds it. Most fields are the command's options, in this order.

    memory_bytes, macs: ceilings of one batch's training step (see `backward.plans.training_plan`); None: none.
    device: its RAM is the ceiling where no other is given (see `job.adapt.target`).   batch: images held at a time;
    gradients of several make one step of 32 images.   resolution: a run's network keeps its own.
    """

    source: str = Field(description="A run folder, or timm:NAME with --weights.")
    task: str = Field(description="The new data: images:DIR, arrays:FILE.npz or digits.")
    memory_bytes: int | None = Field(default=None, ge=0, description="Ceiling: memory, bytes.")
    device: str | None = Field(
        default=None, description="A board, whose RAM is the ceiling where --memory-kb is not given."
    )
    macs: int | None = Field(default=None, ge=0, description="Ceiling: multiply-adds of a batch.")
    minutes: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Wall-clock limit [default: 10, or none with --epochs]."
    )
    epochs: int | None = Field(default=None, ge=1, description="Most passes over the training images.")
    weights: str | None = Field(default=None, description="Safetensors file for a timm network.")
    batch: int | None = Field(
        default=None, ge=1, description="Images held at a time [default: up to 8, as the memory serves best]."
    )
    lr: float = Field(default=0.003, gt=0, description="Highest learning rate.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of SGD; 0 saves its memory.")
    methods: Names | None = Field(default=None, description="What may be chosen: full,bias,... [default: all].")
    resolution: Resolution | None = Field(
        default=None, description="Pixels a timm network's input has: 64, or 48x64 (height x width)."
    )
    skip_bad: int = Field(default=0, ge=0, description="Unreadable images to skip.")
    group: str | None = Field(
        default=None,
        description="What stays in one part: a regular expression over file names, or a CSV with columns file, group.",
    )
    seed: int = Field(default=0, ge=0, description="Same seed, same plan and order of images.")


class AdaptOptions(TypedDict, total=False):
    """The fields of an `AdaptPlan` that `adapt` takes beside those it names itself."""

    memory_bytes: int | None
    device: str | None
    macs: int | None
    epochs: int | None
    weights: str | None
    batch: int | None
    lr: float
    momentum: float
    methods: Sequence[str] | None
    resolution: int | Size | None
    skip_bad: int
    group: str | None
    seed: int
