"""Parts of a network measured by themselves, as the device would run them."""

from collections.abc import Sequence

from torch import nn

from edgewright.core.files import scratch
from edgewright.device.base import Device
from edgewright.device.here.cpu import Cpu
from edgewright.device.measure import Latency, Runs
from edgewright.export.onnx import export_onnx

RUNS = 100  # of each part: ten rounds to draw from for an interval


def measure_blocks(
    blocks: Sequence[nn.Module], shape: tuple[int, ...], *, device: Device | None = None, runs: int = RUNS
) -> list[Latency]:
    """Each module as an ONNX file in float32, in turns, batch norms folded; on this machine unless a device is named.

    shape: that all of them read, batch 1: (1, C, H, W).
    Errors: EdgewrightError for a module that cannot be exported.
    """
    with scratch() as folder:
        paths = [folder / f"{number}.onnx" for number in range(len(blocks))]
        for block, path in zip(blocks, paths, strict=True):
            export_onnx(block, tuple(shape[1:]), path)
        return (device or Cpu()).measure(paths, Runs(most=runs))
