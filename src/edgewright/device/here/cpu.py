"""This machine's processor through ONNX Runtime."""

import functools
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from edgewright.core.errors import BadInput
from edgewright.device.base import Device
from edgewright.device.here.runtime import VERSION
from edgewright.device.measure import Latency, measure
from edgewright.device.table.calibrate import build_latency_model
from edgewright.device.table.table import Blocks, LatencyModel, LatencyTable, cache_folder


class Cpu(Device):
    """This machine, float32, batch 1, `threads` threads inside an operator."""

    name: ClassVar[str] = "cpu"
    summary: ClassVar[str] = "This machine's processor through ONNX Runtime, float32, batch 1, one thread by default."
    source: ClassVar[str] = (
        "ONNX Runtime (https://onnxruntime.ai); latency tables after Cai et al., 'ProxylessNAS', ICLR 2019, "
        "arXiv:1812.00332"
    )

    def __init__(self, threads: int = 1) -> None:
        if threads < 1:
            raise BadInput(f"threads must be at least 1 (got {threads})")
        self.threads = threads

    def fingerprint(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "cpu": cpu_model(),
            "cores": os.cpu_count() or 1,
            "runtime": "onnxruntime",
            "runtime_version": VERSION,
            "threads": self.threads,
        }

    def measure(self, model: bytes | Path, runs: int = 200) -> Latency:
        return measure(model, threads=self.threads, runs=runs)

    def latency_model(self, sampled: Sequence[Blocks], cache: Path | None = None, seconds: float = 30) -> LatencyModel:
        """Build or complete the table kept in the folder `cache` (default: `cache_folder()`) and calibrate it."""
        if not sampled:
            raise BadInput("a latency model needs at least one sampled network to measure")
        key = f"{cpu_model()} | onnxruntime {VERSION} | threads {self.threads}"
        table = LatencyTable((cache or cache_folder()) / "latency.db", key)
        return build_latency_model(sampled, table, self.fingerprint(), threads=self.threads, seconds=seconds)


@functools.cache
def cpu_model() -> str:
    """The processor's name with its family, model and stepping where known: virtual machines often share one name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    words = [fields.get("model name") or platform.processor() or platform.machine()]
    words += [f"{name} {fields[name]}" for name in ("cpu family", "model", "stepping") if name in fields]
    return ", ".join(words)
