"""What shipping a network is asked for."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from pydantic import Field

from edgewright.core.data import Asked
from edgewright.core.written import Floats, Names, Shapes
from edgewright.export.choose.plan import OPEN_SHAPE


class ShipPlan(Asked):
    """What is asked. The command's options are its fields, in this order.

    data: see `export.choose.samples.read_samples`; a run brings its own.   device: what can be measured there is; else
    the winner is picked by its law, or by size (see `export.choose.elsewhere`).   runtimes, kinds: what may win;
    everything that is installed by default.   shape: the input's, or of several by name.
    """

    device: str = Field(default="cpu", description="Where it must run: cpu, or a board.")
    data: str | None = Field(default=None, description="images:DIR or arrays:FILE.npz [default: the run's].")
    max_drop: float = Field(default=1.0, description="Points of accuracy that may be lost.")
    runtimes: Names | None = Field(default=None, description="What may win: onnxruntime,openvino,... [default: all].")
    kinds: Names | None = Field(default=None, description="fp32,bf16,int8 [default: all].")
    threads: int = Field(default=1, ge=1, description="Threads of every runtime.")
    shape: Shapes | None = Field(default=None, description=OPEN_SHAPE)
    mean: Floats | None = Field(default=None, description="Of each channel, pixels from 0 to 1: 0.5,0.5,0.5.")
    std: Floats | None = Field(default=None, description="The same, deviation.")
    seed: int = Field(default=0, description="Which images calibrate and which compare.")


class ShipOptions(TypedDict, total=False):
    """The fields of a `ShipPlan` as options of a function."""

    device: str
    data: str | None
    max_drop: float
    runtimes: Sequence[str] | None
    kinds: Sequence[str] | None
    threads: int
    shape: Sequence[int] | Mapping[str, Sequence[int]] | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    seed: int
