"""ONNX Runtime on the processor: the float file as it is, and our own int8 in QDQ form."""

from functools import partial
from pathlib import Path
from typing import ClassVar

import onnx

from edgewright.core.errors import BadInput
from edgewright.core.files import write_bytes
from edgewright.core.tensors import TensorSpec
from edgewright.device.agent import NUMBERS
from edgewright.device.here.runtime import Session, open_session
from edgewright.device.here.runtime import run as run_session
from edgewright.export.graph import checked
from edgewright.export.running import Says, call_of
from edgewright.export.runtimes.base import Asked, Built, Kind, Network, Program, Runtime, fixed


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
        write_bytes(path, checked(model, f"the {kind} file").SerializeToString(deterministic=True))
        return Built.of(path)

    def open(self, path: Path, threads: int = 1, shape: Asked = None) -> Program:
        session = open_session(path, threads)
        return Program(partial(run_session, session), fixed(_inputs(session, path), shape, str(path)))

    def usage(self, file: str, kind: Kind) -> list[str]:
        return [
            "import onnxruntime",
            f'session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])',
            "outputs = session.run(None, {one.name: x for one, x in zip(session.get_inputs(), inputs)})",
        ]

    def tensors(self, model: onnx.ModelProto, kind: Kind) -> Says:
        return call_of(model)


def _inputs(session: Session, path: Path) -> list[TensorSpec]:
    found = []
    for given in session.get_inputs():
        if given.type not in NUMBERS:
            raise BadInput(f"{path}: the input '{given.name}' is {given.type}; tensors of numbers are expected")
        dims = tuple(size if isinstance(size, int) and size > 0 else None for size in given.shape)
        found.append(TensorSpec(name=given.name, shape=dims, dtype=NUMBERS[given.type]().dtype.name))
    return found
