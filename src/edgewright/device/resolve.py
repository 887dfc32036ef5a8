"""Devices by name, for text that comes from people and plans."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgewright.core.errors import BadInput
from edgewright.device import agent
from edgewright.device.base import COUNTED, Can, Device
from edgewright.device.board.board import Board
from edgewright.device.board.target import Target, read_target, targets
from edgewright.device.here.cpu import Cpu
from edgewright.device.remote import Remote

TABLES = "latency tables after Cai et al., 'ProxylessNAS', ICLR 2019, arXiv:1812.00332"


@dataclass(frozen=True)
class Known:
    """A device that can be named. source: where its runtime or figures are described.   can, gives: see `base`.   make:
    it, with so many threads."""

    summary: str
    source: str
    can: frozenset[Can]
    gives: frozenset[str]
    make: Callable[[int], Device]


HERE = {
    Cpu.name: Known(
        "This machine's processor through ONNX Runtime, float32, batch 1, one thread by default.",
        f"ONNX Runtime (https://onnxruntime.ai); {TABLES}",
        Cpu.can,
        Cpu.gives,
        Cpu,
    ),
    "loopback": Known(
        "This machine again, asked over a pipe: another process, without torch, as a board would have.",
        f"what a board over a wire goes through, without a board; {TABLES}",
        Remote.can,
        Remote.gives,
        partial(Remote, "loopback", (sys.executable, "-I", agent.__file__)),
    ),
}


def devices() -> dict[str, Known]:
    """Every device by name: what is here, then the boards that files describe."""
    return HERE | {name: _board(target) for name, target in targets().items()}


def _board(target: Target) -> Known:
    return Known(target.summary, target.source, target.can, COUNTED | target.gives, partial(Board, target))


def make_device(name: str, threads: int = 1) -> Device:
    """The device called `name`, or described in the file `name`.yaml; an unknown name lists the choices."""
    if name.endswith((".yaml", ".yml")):
        return Board(read_target(Path(name)), threads)
    known = devices()
    if name not in known:
        raise BadInput(f"unknown device '{name}'; choose from {', '.join(known)}, or name a target's YAML file")
    return known[name].make(threads)
