"""Runtimes by name and by a file's ending."""

from collections.abc import Sequence
from pathlib import Path

from edgewright.core.errors import BadInput
from edgewright.export.runtimes.base import NEEDS_MODULE, Runtime
from edgewright.export.runtimes.executorch_adapter import ExecuTorch
from edgewright.export.runtimes.litert_adapter import LiteRt
from edgewright.export.runtimes.onnxruntime_adapter import OnnxRuntime
from edgewright.export.runtimes.openvino_adapter import OpenVino


def runtimes() -> dict[str, Runtime]:
    """Every runtime by name, installed or not; ONNX Runtime, which always is, first."""
    return {runtime.name: runtime for runtime in (OnnxRuntime(), OpenVino(), ExecuTorch(), LiteRt())}


def make_runtimes(names: Sequence[str] | None) -> list[Runtime]:
    """All, or those named, which must be installed."""
    known = runtimes()
    if names is None:
        return list(known.values())
    for name in names:
        if name not in known:
            raise BadInput(f"unknown runtime '{name}'; choose from {', '.join(known)}")
        known[name].require()
    return [known[name] for name in dict.fromkeys(names)]


def require_onnx(chosen: Sequence[Runtime], where: str) -> None:
    """Raise BadInput where none of `chosen` can be made from an ONNX file alone."""
    if chosen and not any(runtime.from_onnx for runtime in chosen):
        names = " and ".join(runtime.name for runtime in chosen)
        others = " or ".join(runtime.name for runtime in runtimes().values() if runtime.from_onnx)
        raise BadInput(f"{where}: files of {names} are {NEEDS_MODULE}, or take {others}")


def runtime_for(place: str) -> tuple[Runtime, Path]:
    """The runtime of "FILE", by its ending, or of "NAME:FILE"; it must be installed."""
    name, colon, rest = place.partition(":")
    if colon and name in runtimes():
        (runtime,) = make_runtimes([name])
        return runtime, Path(rest)
    path = Path(place)
    for runtime in runtimes().values():
        if path.suffix.lower() in runtime.suffixes:
            runtime.require()
            return runtime, path
    endings = ", ".join(suffix for runtime in runtimes().values() for suffix in runtime.suffixes)
    raise BadInput(f"{place}: no runtime opens files with this ending; known are {endings}")
