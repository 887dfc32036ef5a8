"""Networks timed as they would ship: exported to ONNX, all in one interleaved measurement."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from edgewright.device.measure import measure_many
from edgewright.export.onnx import export_onnx


def stopwatch(example: Tensor, *, threads: int = 1, runs: int = 100) -> Callable[[Sequence[nn.Module]], list[float]]:
    """A function of several networks that gives the median milliseconds of each, batch 1, float32, ONNX Runtime.

    example: a batch as the networks read it; only its shape counts.   runs: of each network, in turns, at least.
    A network is exported once, when it is first timed: it must not change between.
    """
    files: dict[nn.Module, bytes] = {}

    def timed(models: Sequence[nn.Module]) -> list[float]:
        for model in models:
            if model not in files:
                files[model] = _exported(model, tuple(example.shape[1:]))
        found = measure_many([files[model] for model in models], threads=threads, runs=runs)
        return [latency.median_ms for latency in found]

    return timed


def _exported(model: nn.Module, shape: tuple[int, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export_onnx(model, shape, file)
        return file.read_bytes()
