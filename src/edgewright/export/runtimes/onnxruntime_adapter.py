"""ONNX Runtime on the processor: the float file as it is, and our own int8 in QDQ form."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx

from edgewright.core.files import write_bytes
from edgewright.device.here.runtime import open_session
from edgewright.device.here.runtime import run as run_session
from edgewright.export.runtimes.base import Built, Kind, Network, Program, Runtime, fixed_shape


class OnnxRuntime(Runtime):
    name: ClassVar[str] = "onnxruntime"
    library: ClassVar[str] = "onnxruntime"
    extra: ClassVar[str | None] = None
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    from_onnx: ClassVar[bool] = True
    summary: ClassVar[str] = "ONNX Runtime, processor kernels; int8 as U8S8 in QDQ form."
    source: ClassVar[str] = "https://onnxruntime.ai"

    def refusal(self, kind: Kind, network: Network) -> str | None:
        if kind == "bf16":
            # Checked on 1.31: Conv, Gemm, MatMul, Add and Relu in bf16 have no implementation. On Arm a session option
            # (mlas.enable_gemm_fastmath_arm64_bfloat16) lets float matrix products round to bf16; it is not used here.
            return "ONNX Runtime has no bf16 kernels for processors"
        return None

    def build(self, network: Network, kind: Kind, stem: Path) -> Built:
        model = network.model if kind == "fp32" else network.int8
        assert model is not None
        path = stem.with_name(stem.name + ".onnx")
        write_bytes(path, model.SerializeToString(deterministic=True))
        return Built.of(path)

    def open(self, path: Path, threads: int = 1, shape: tuple[int, ...] | None = None) -> Program:
        session = open_session(path, threads)
        found = fixed_shape(session.get_inputs()[0].shape, shape, str(path))

        def call(array: np.ndarray) -> np.ndarray:
            return run_session(session, array)

        return Program(call, found)

    def usage(self, file: str, kind: Kind) -> list[str]:
        return [
            "import onnxruntime",
            f'session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])',
            "scores = session.run(None, {session.get_inputs()[0].name: x})[0]",
        ]

    def tensors(self, model: onnx.ModelProto, kind: Kind) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
        session = open_session(model.SerializeToString(), quiet=True)
        name = session.get_inputs()[0].name
        return lambda array: [np.asarray(values) for values in session.run(None, {name: array})]
