"""Parts of a network measured by themselves, as the runtime would run them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from edgewright.device.measure import Latency, measure_many
from edgewright.export.onnx import export_onnx

RUNS = 100  # of each part: ten rounds to draw from for an interval


def measure_blocks(
    blocks: Sequence[nn.Module], shape: tuple[int, ...], *, threads: int = 1, runs: int = RUNS
) -> list[Latency]:
    """Each module through ONNX Runtime in float32 on this machine, in turns, batch norms folded.

    shape: that all of them read, batch 1: (1, C, H, W).
    Errors: EdgewrightError for a module that cannot be exported.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.onnx" for number in range(len(blocks))]
        for block, path in zip(blocks, paths, strict=True):
            export_onnx(block, tuple(shape[1:]), path)
        return measure_many(paths, threads=threads, runs=runs)
