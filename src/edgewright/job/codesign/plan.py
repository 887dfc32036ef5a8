"""What FLASH's design from a few samples is asked for."""

from pydantic import Field

from edgewright.core.cost import Budget
from edgewright.core.data import Asked


class CodesignPlan(Asked):
    """What is asked; codesign_plan.json holds it. The command's options are its fields, in this order.

    images: None (from Python) for all of them.
    """

    task: str = Field(description="digits, images:DIR, or arrays:FILE.npz.")
    family: str = Field(default="mobile", description="dense, residual or mobile.")
    device: str = Field(default="cpu", description="Where the network must run.")
    threads: int = Field(default=1, ge=1, description="Threads of the runtime.")
    budget: Budget
    samples: int = Field(default=25, ge=8, description="Networks that are trained and measured first.")
    epochs: int = Field(default=6, ge=1, description="Epochs of each.")
    images: int | None = Field(default=10_000, ge=100, description="Training images that each sees.")
    seed: int = Field(default=0, ge=0, description="Of everything random.")
