"""What a runtime is to this program: it says what it can compute, writes its own file, and opens one to be called.

One adapter file for each runtime. Heavy libraries are imported inside its functions; a runtime that is not installed is
a row in a table, not an error, unless it was asked for by name.
"""

import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import onnx
from torch import nn

from edgewright.core.errors import BadInput, EdgewrightError, MissingExtra

Kind = Literal["fp32", "bf16", "int8"]
NEEDS_MODULE = "made from a PyTorch network, which an ONNX file does not hold: give the run's folder"
KINDS: tuple[Kind, ...] = ("fp32", "bf16", "int8")


class Unfit(EdgewrightError):
    """A runtime cannot take this network in this type; the text is the reason in the table."""


@dataclass(frozen=True)
class Network:
    """What an adapter builds from.

    model: float32, one input, every shape fixed, batch 1.   shape: of the input.   module: the same network in PyTorch,
    where there is one.   int8: the QDQ network (see `export.int8`), once it was made; one that was learned is given.
    calibration: inputs (1, ...) float32, for runtimes that quantise by their own means.   int8_from: the float network
    that `int8` was made from, norms folded and channels evened.
    """

    model: onnx.ModelProto
    shape: tuple[int, ...]
    module: nn.Module | None = None
    int8: onnx.ModelProto | None = None
    calibration: Sequence[np.ndarray] = ()
    int8_from: onnx.ModelProto | None = None


@dataclass(frozen=True)
class Built:
    """The files of one candidate: the one to open first, then what it needs beside it. note: how they were made."""

    files: tuple[Path, ...]
    size_bytes: int
    note: str = ""

    @classmethod
    def of(cls, *files: Path, note: str = "") -> "Built":
        return cls(files, sum(path.stat().st_size for path in files), note)

    @property
    def path(self) -> Path:
        return self.files[0]


@dataclass(frozen=True)
class Program:
    """An opened file. call: float32 array of `shape` -> the first output, as an array of its own."""

    call: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, ...]


class Runtime(ABC):
    """A runtime by name.

    library: the module whose presence decides whether it is installed.   extra: what installs it.   suffixes: endings
    of the files it opens.   from_onnx: whether its files are made from the ONNX network, int8 from the QDQ one;
    then the same can be built for a batch.
    """

    name: ClassVar[str]
    library: ClassVar[str]
    extra: ClassVar[str | None]
    suffixes: ClassVar[tuple[str, ...]]
    from_onnx: ClassVar[bool] = False
    summary: ClassVar[str]
    source: ClassVar[str]

    def installed(self) -> bool:
        return importlib.util.find_spec(self.library) is not None

    def require(self) -> None:
        """Raise MissingExtra, which names the extra, where the runtime is not installed."""
        if not self.installed():
            raise MissingExtra(self.name, self.extra or self.name)

    def missing(self) -> str | None:
        """The reason in the table where the runtime is not installed."""
        return None if self.installed() else f"not installed: pip install 'edgewright[{self.extra}]'"

    @abstractmethod
    def refusal(self, kind: Kind, network: Network) -> str | None:
        """Why this runtime cannot compute this network in this type on this machine, before any work; or None."""

    @abstractmethod
    def build(self, network: Network, kind: Kind, stem: Path) -> Built:
        """Write the files of this network in this type, their names beginning with `stem`. Unfit where it cannot."""

    @abstractmethod
    def open(self, path: Path, threads: int = 1, shape: tuple[int, ...] | None = None) -> Program:
        """Open a file on `threads` threads; `shape` decides free dimensions. BadInput where it cannot be read."""

    @abstractmethod
    def usage(self, file: str, kind: Kind) -> list[str]:
        """Lines of Python, without anything of ours, from a float32 array `x` to `scores`, an array."""

    def version(self) -> str:
        """Of the installed library."""
        try:
            return importlib.metadata.version(self.library)
        except importlib.metadata.PackageNotFoundError:
            return "unknown"

    def tensors(self, model: onnx.ModelProto, kind: Kind) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
        """All outputs of an ONNX network as this runtime computes them in this type; for those `from_onnx` only."""
        raise Unfit(f"{self.name} does not take ONNX networks")


def fixed_shape(dims: Sequence[object], shape: tuple[int, ...] | None, where: str) -> tuple[int, ...]:
    """The shape of an input with `dims` (integers, or anything else where free): batch 1, the others from `shape`.

    Errors: BadInput that asks for the shape where a dimension other than the batch is free, or names the clash.
    """
    known = [dim if isinstance(dim, int) and dim > 0 else None for dim in dims]
    if known and known[0] is None:
        known[0] = 1
    told = ",".join("?" if dim is None else str(dim) for dim in known)
    if shape is None:
        if None in known:
            raise BadInput(f"{where}: the input's shape is {told}: say which, with --shape {told.replace('?', 'N')}")
        return tuple(dim for dim in known if dim is not None)
    fits = len(shape) == len(known) and all(dim in (None, size) for dim, size in zip(known, shape, strict=True))
    if not fits or any(size < 1 for size in shape):
        raise BadInput(f"{where}: the input's shape is {told}, which --shape {','.join(map(str, shape))} does not fit")
    return shape
