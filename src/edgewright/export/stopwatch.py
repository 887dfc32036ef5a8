"""Networks timed as they would ship: exported to ONNX, all in one interleaved measurement."""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor, nn

from edgewright.core.files import scratch
from edgewright.device.base import Device
from edgewright.device.here.cpu import Cpu
from edgewright.device.measure import Runs
from edgewright.export.onnx import export_onnx

UNDISTURBED = 0.1


def stopwatch(
    example: Tensor, *, device: Device | None = None, runs: int = 100
) -> Callable[[Sequence[nn.Module]], list[float]]:
    """A function of several networks that gives the milliseconds of each on a device, this machine by default, batch 1,
    float32.

    The tenth percentile of the runs: where others use the machine, the median of a network that takes longer than they
    are kept waiting is mostly theirs, and a pruned one would look better than it is.

    example: a batch as the networks read it; only its shape counts.   runs: of each network, in turns, at least.
    A network is exported once, when it is first timed: it must not change between.
    """
    files: dict[nn.Module, bytes] = {}
    where = device or Cpu()

    def timed(models: Sequence[nn.Module]) -> list[float]:
        for model in models:
            if model not in files:
                files[model] = _exported(model, tuple(example.shape[1:]))
        found = where.measure([files[model] for model in models], Runs(most=runs))
        return [float(np.quantile(latency.samples, UNDISTURBED)) for latency in found]

    return timed


def _exported(model: nn.Module, shape: tuple[int, ...]) -> bytes:
    with scratch() as folder:
        file = folder / "model.onnx"
        export_onnx(model, shape, file)
        return file.read_bytes()
