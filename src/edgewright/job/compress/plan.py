"""What a compression is asked for."""

from collections.abc import Sequence

from pydantic import Field, field_validator

from edgewright.core.cost import Budget, Ceilings
from edgewright.core.data import Asked
from edgewright.core.written import Names

STEPS = ("quantise", "prune", "linearise")


class CompressPlan(Asked):
    """What is asked; compress_plan.json holds it. The command's options are its fields, in this order.

    budget: ceilings of what comes out, latency as measured here.   steps: what may be done beside rewrites that change
    nothing.
    """

    source: str = Field(description="A run folder, of design, adapt or compress.")
    budget: Budget
    max_drop: float = Field(default=1.0, ge=0, le=100, description="Points of accuracy that may be lost.")
    minutes: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Wall-clock limit [default: 20, or none with --epochs]."
    )
    epochs: int | None = Field(default=None, ge=1, description="Most passes over the training images.")
    steps: Names = Field(default=STEPS, description="What may be done.")
    device: str | None = Field(default=None, description="Where it must run [default: as the run says].")
    threads: int | None = Field(default=None, ge=1, description="Threads of the runtime [default: the run's].")
    lr: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Highest learning rate [default: half of the task's]."
    )
    seed: int = Field(default=0, ge=0, description="Of images and training.")

    @field_validator("steps")
    @classmethod
    def _known(cls, steps: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in steps if name not in STEPS]
        if unknown:
            raise ValueError(f"there is no step '{unknown[0]}'; choose from {', '.join(STEPS)}")
        return steps


class CompressOptions(Ceilings, total=False):
    """The fields of a `CompressPlan`, and those of its budget, that `compress_run` takes beside those it names."""

    epochs: int | None
    steps: Sequence[str]
    device: str | None
    threads: int | None
    lr: float | None
    seed: int
