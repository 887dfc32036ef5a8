"""What a runtime is to this program: it says what it can compute, writes its own file, and opens one to be called.

One adapter file for each runtime. Heavy libraries are imported inside its functions; a runtime that is not installed is
a row in a table, not an error, unless it was asked for by name.
"""

import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import onnx
from torch import nn

from edgewright.core.errors import BadInput, EdgewrightError, MissingExtra
from edgewright.core.tensors import Shape, TensorSpec
from edgewright.export.graph import inputs_of
from edgewright.export.running import Sample, Says, tree_of

Kind = Literal["fp32", "bf16", "int8"]
NEEDS_MODULE = "made from a PyTorch network, which an ONNX file does not hold: give the run's folder"
KINDS: tuple[Kind, ...] = ("fp32", "bf16", "int8")


class Unfit(EdgewrightError):
    """A runtime cannot take this network in this type; the text is the reason in the table."""


Asked = Shape | Mapping[str, Shape] | None  # a shape of the only input, or shapes by name


@dataclass(frozen=True)
class Network:
    """What an adapter builds from.

    model: float, every input's shape fixed, batch 1.   module: the same network in PyTorch, where there is one.   int8:
    the QDQ network (see `export.int8`), once it was made; one that was learned is given.   calibration: samples, for
    runtimes that quantise by their own means.   int8_from: the float network that `int8` was made from, norms folded
    and channels evened.
    """

    model: onnx.ModelProto
    module: nn.Module | None = None
    int8: onnx.ModelProto | None = None
    calibration: Sequence[Sample] = ()
    int8_from: onnx.ModelProto | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Shapes with the batch."""
        return inputs_of(self.model)

    @property
    def names(self) -> list[str]:
        return [spec.name for spec in self.inputs]

    def example(self) -> Any:
        """Zeros for every input, as the PyTorch network takes them."""
        return tree_of(self.names, [np.zeros([size or 1 for size in spec.shape], spec.dtype) for spec in self.inputs])


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
    """An opened file. call: arrays of `inputs` -> every output, in its order, as arrays of their own.   inputs: shapes
    with the batch.

    Errors of `call`: EdgewrightError, in the runtime's words, where it fails.
    """

    call: Says
    inputs: tuple[TensorSpec, ...]


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
    def open(self, path: Path, threads: int = 1, shape: Asked = None) -> Program:
        """Open a file on `threads` threads; `shape` decides free dimensions. BadInput where it cannot be read."""

    @abstractmethod
    def usage(self, file: str, kind: Kind) -> list[str]:
        """Lines of Python, without anything of ours, from `inputs`, a list of arrays, to `outputs`, another."""

    def version(self) -> str:
        """Of the installed library."""
        try:
            return importlib.metadata.version(self.library)
        except importlib.metadata.PackageNotFoundError:
            return "unknown"

    def tensors(self, model: onnx.ModelProto, kind: Kind) -> Says:
        """All outputs of an ONNX network as this runtime computes them in this type; for those `from_onnx` only."""
        raise Unfit(f"{self.name} does not take ONNX networks")


def fixed(inputs: Sequence[TensorSpec], asked: Asked, where: str) -> tuple[TensorSpec, ...]:
    """Inputs with every dimension known: a free first one is the batch, 1; the others are asked for.

    Errors: BadInput that asks for a shape where another dimension is free, or names the clash.
    """
    shapes = asked if isinstance(asked, Mapping) else {inputs[0].name: asked} if asked and len(inputs) == 1 else {}
    if asked and not isinstance(asked, Mapping) and len(inputs) != 1:
        names = ";".join(f"{spec.name}=..." for spec in inputs)
        raise BadInput(f"{where}: has {len(inputs)} inputs: name them, with --shape '{names}'")
    strange = next((name for name in shapes if name not in {spec.name for spec in inputs}), None)
    if strange is not None:
        raise BadInput(f"{where}: has no input '{strange}'; it has {', '.join(spec.name for spec in inputs)}")
    return tuple(
        spec.model_copy(update={"shape": _fixed(spec, shapes.get(spec.name), inputs, where)}) for spec in inputs
    )


def _fixed(spec: TensorSpec, shape: Shape | None, inputs: Sequence[TensorSpec], where: str) -> Shape:
    known = _with_batch(spec.shape)
    which = f"the input '{spec.name}' has the shape {_told(known)}"
    if shape is None:
        if None in known:
            raise BadInput(f"{where}: {which}: say which, with --shape {_asking(inputs)}")
        return tuple(dim for dim in known if dim is not None)
    fits = len(shape) == len(known) and all(dim in (None, size) for dim, size in zip(known, shape, strict=True))
    if not fits or any(size < 1 for size in shape):
        raise BadInput(f"{where}: {which}, which --shape {','.join(map(str, shape))} does not fit")
    return tuple(shape)


def _with_batch(dims: tuple[int | None, ...]) -> tuple[int | None, ...]:
    return (1, *dims[1:]) if dims and dims[0] is None else dims


def _told(dims: Sequence[int | None], free: str = "?") -> str:
    return ",".join(free if dim is None else str(dim) for dim in dims)


def _asking(inputs: Sequence[TensorSpec]) -> str:
    """What to write: "1,3,N,N", or with names "ids=1,N;mask=1,N"."""
    shapes = {spec.name: _told(_with_batch(spec.shape), "N") for spec in inputs}
    if len(inputs) == 1:
        return shapes[inputs[0].name]
    return f"'{';'.join(f'{name}={shape}' for name, shape in shapes.items() if 'N' in shape)}'"


def made_up(inputs: Sequence[TensorSpec], seed: int = 0) -> Sample:
    """An array for each input: normal numbers, zeros where they are whole, which are a valid index everywhere."""
    random = np.random.default_rng(seed)
    found = []
    for spec in inputs:
        shape = [1 if dim is None else dim for dim in spec.shape]
        whole = np.dtype(spec.dtype).kind != "f"
        found.append((np.zeros(shape) if whole else random.standard_normal(shape)).astype(spec.dtype))
    return found
