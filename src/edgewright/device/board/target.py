"""A target as data: what a board takes, how much it holds, and what is known of its speed, in a YAML file.

    name: stm32f746                        # letters, digits, dots, dashes, underscores
    summary: STM32F746 ...                 # one line
    source: ...                            # where the figures are from
    runtime: tflite-micro                  # what runs the network there
    types: [int8]                          # of the numbers, the first is what is counted with
    forbidden: [sigmoid]                   # operators it cannot run, of ir.op.Kind
    align: 4                               # channels come in groups of so many
    cores: 1
    ram_kb: 320                            # for activations
    flash_kb: 1024                         # for the network's file
    law: {clock_mhz: 216, cycles_per_mac: {dense: 1.2, ...}, source: ...}
    energy: {pj_per_mac: 4.6, pj_per_byte: 160, mw: 20, source: ...}
    area_mm2: 12.5                         # of the chip

What is missing nobody knows there: without `law` a latency ceiling is refused, without `energy` one on the energy,
without `area_mm2` one on the area, each with what to do.
"""

import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, field_validator, model_validator

from edgewright.core.cost import CostName
from edgewright.core.data import Frozen, read_yaml
from edgewright.core.errors import BadInput
from edgewright.core.files import write_text
from edgewright.core.home import devices_folder, kept_devices
from edgewright.device.table.pieces import Piece
from edgewright.ir.op import Kind

Type = Literal["fp32", "bf16", "int8"]
BYTES: Mapping[str, int] = {"fp32": 4, "bf16": 2, "int8": 1}
LAYERS = ("dense", "pointwise", "depthwise", "linear")


class Law(Frozen):
    """Cycles of a processor by multiply-adds, for boards that nobody measured the network on.

        t = (operator cycles x operators + sum over layers of cycles_per_mac[kind] x MACs) / clock

    clock_mhz: of the core.   cycles_per_mac: by kind of layer, channels counted as they are.   operator_cycles: of one
    operator, whatever its size.   source: what it was fitted on, and how well it fits there.
    """

    clock_mhz: float = Field(gt=0, allow_inf_nan=False)
    cycles_per_mac: dict[str, float]
    operator_cycles: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    source: str

    @field_validator("cycles_per_mac")
    @classmethod
    def _every_kind(cls, cycles: dict[str, float]) -> dict[str, float]:
        if set(cycles) != set(LAYERS):
            raise ValueError(f"cycles_per_mac needs {', '.join(LAYERS)} and no others (got {', '.join(cycles)})")
        if not all(0 <= value < math.inf for value in cycles.values()):
            raise ValueError("cycles_per_mac must be zero or more for every kind of layer")
        return cycles

    def us(self, family: str, macs: int) -> float:
        """Microseconds of one operator with what is fused into it; family: a kind of layer, or of what has no MACs."""
        return (self.operator_cycles + self.cycles_per_mac.get(family, 0.0) * macs) / self.clock_mhz

    def piece_us(self, piece: Piece) -> float:
        """The same of a graph's piece."""
        return self.us(piece.work.layer, piece.work.macs)


class Energy(Frozen):
    """Energy of one inference, for boards without a meter here.

        E = pj_per_mac x MACs + pj_per_byte x bytes moved + mw x latency

    pj_per_mac, pj_per_byte: picojoule; bytes are those of `ir.network.moved_bytes`.   mw: milliwatt while it runs, for
    as long as the board's law of latency says.   source: what they were measured with, or taken from.
    """

    pj_per_mac: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    pj_per_byte: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    mw: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    source: str

    @model_validator(mode="after")
    def _says_something(self) -> "Energy":
        if not (self.pj_per_mac or self.pj_per_byte or self.mw):
            raise ValueError("energy needs one of pj_per_mac, pj_per_byte and mw, above zero")
        return self

    def mj(self, macs: int, moved: int, ms: float) -> float:
        """Millijoule of so many multiply-adds, bytes and milliseconds."""
        return 1e-9 * (self.pj_per_mac * macs + self.pj_per_byte * moved) + 1e-3 * self.mw * ms


class Target(Frozen):
    """See the top of this file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    summary: str
    source: str
    runtime: str
    types: tuple[Type, ...] = Field(min_length=1)
    forbidden: tuple[Kind, ...] = ()
    align: int = Field(default=1, ge=1)
    cores: int = Field(default=1, ge=1)
    ram_kb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    flash_kb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    law: Law | None = None
    energy: Energy | None = None
    area_mm2: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _power_for_how_long(self) -> "Target":
        if self.energy is not None and self.energy.mw and self.law is None:
            raise ValueError("energy: mw needs a law, which says for how long; give the law, or energies alone")
        return self

    @property
    def number_bytes(self) -> int:
        """Bytes of one number of the type that is counted with."""
        return BYTES[self.types[0]]

    @property
    def can(self) -> frozenset[Literal["predict", "limits"]]:
        """What is known of it without its being here; in the words of `device.base`."""
        return frozenset({"limits"} if self.law is None else {"limits", "predict"})

    @property
    def gives(self) -> frozenset[CostName]:
        """The costs that are known of a network there, beside those that are counted."""
        said = {"latency": self.law, "energy": self.energy, "area": self.area_mm2}
        return frozenset(name for name, value in said.items() if value is not None)


def read_target(path: Path) -> Target:
    """Errors: BadInput for a file that is missing, no YAML, or no target, naming the key."""
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise BadInput(f"{path}: a target is a mapping of keys to values; docs/targets.md has an example")
    return Target.parse(data, str(path))


def save_target(target: Target) -> Path:
    """Keep a user's own, in the place of an earlier one of this name; the file."""
    path = devices_folder() / f"{target.name}.yaml"
    write_text(path, yaml.safe_dump(target.model_dump(mode="json", exclude_none=True), sort_keys=False))
    return path


def targets() -> dict[str, Target]:
    """The shipped ones and the user's own, which win, by name."""
    own = [read_target(path) for path in kept_devices(".yaml")]
    return shipped_targets() | {target.name: target for target in own}


def shipped_targets() -> dict[str, Target]:
    """The targets that come with edgewright, by name."""
    folder = Path(str(files("edgewright.device.board") / "targets"))
    found = [read_target(path) for path in sorted(folder.glob("*.yaml"))]
    return {target.name: target for target in found}
