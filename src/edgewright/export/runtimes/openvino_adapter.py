"""OpenVINO on the processor: intermediate representation (.xml with .bin) from our ONNX, float, bf16 or int8."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx

from edgewright.core.errors import BadInput, one_line
from edgewright.core.no_telemetry import imported_without
from edgewright.core.tensors import TensorSpec
from edgewright.device.here.instructions import has_bf16, is_x86
from edgewright.export.running import Sample, Says
from edgewright.export.runtimes.base import Asked, Built, Kind, Network, Program, Runtime, Unfit, fixed

TYPE_KEY = ["edgewright", "type"]  # where the file itself says in which type it is to be computed


class OpenVino(Runtime):
    """The int8 file comes from the same QDQ network that ONNX Runtime gets; OpenVINO fuses its pairs by itself.

    bf16 is a way to compute a float file, which the file remembers for whoever opens it here; another program that
    opens it must ask for it (`INFERENCE_PRECISION_HINT: bf16`).
    """

    name: ClassVar[str] = "openvino"
    library: ClassVar[str] = "openvino"
    extra: ClassVar[str | None] = "openvino"
    suffixes: ClassVar[tuple[str, ...]] = (".xml",)
    from_onnx: ClassVar[bool] = True
    summary: ClassVar[str] = "OpenVINO, processor plug-in; fp32, bf16 where there are instructions for it, int8."
    source: ClassVar[str] = "https://docs.openvino.ai"

    def refusal(self, kind: Kind, network: Network) -> str | None:
        if kind == "bf16" and not is_x86():
            return "OpenVINO computes bf16 on x86 processors only"
        if kind == "bf16" and not has_bf16():
            return "this processor has no bf16 instructions (AVX512_BF16 or AMX)"
        return None

    def build(self, network: Network, kind: Kind, stem: Path) -> Built:
        openvino = _library()
        graph = network.int8 if kind == "int8" else network.model
        assert graph is not None
        try:
            model = openvino.Core().read_model(graph.SerializeToString())
        except Exception as error:  # OpenVINO's errors are RuntimeErrors of many lines
            raise Unfit(f"OpenVINO cannot take this network ({one_line(error)})") from None
        model.set_rt_info(kind, TYPE_KEY)
        path = stem.with_name(stem.name + ".xml")
        openvino.save_model(model, str(path), compress_to_fp16=False)
        return Built.of(path, path.with_suffix(".bin"))

    def open(self, path: Path, threads: int = 1, shape: Asked = None) -> Program:
        openvino = _library()
        if not path.is_file():
            raise BadInput(f"{path}: no such file")
        core = openvino.Core()
        try:
            model = core.read_model(str(path))
        except Exception as error:
            raise BadInput(f"{path}: OpenVINO cannot open it ({one_line(error)})") from None
        taken = [_spec(port) for port in model.inputs]
        found = fixed(taken, shape, str(path))
        if any(None in spec.shape for spec in taken):
            model.reshape({port: list(spec.shape) for port, spec in zip(model.inputs, found, strict=True)})
        try:
            compiled = _compiled(core, model, _kind(model), threads)
        except Exception as error:
            raise BadInput(f"{path}: OpenVINO cannot compile it ({one_line(error)})") from None
        return Program(_call(compiled), found)

    def usage(self, file: str, kind: Kind) -> list[str]:
        hint = "bf16" if kind == "bf16" else "f32"
        return [
            "import openvino",
            f'model = openvino.Core().compile_model("{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "{hint}"}})',
            "outputs = [*model(inputs).values()]",
        ]

    def tensors(self, model: onnx.ModelProto, kind: Kind) -> Says:
        openvino = _library()
        core = openvino.Core()
        try:
            return _call(_compiled(core, core.read_model(model.SerializeToString()), kind, 1))
        except Exception as error:
            raise Unfit(f"OpenVINO cannot take this network ({one_line(error)})") from None


def _library() -> Any:
    """OpenVINO without the module by which each import of it is reported to its makers."""
    return imported_without("openvino_telemetry", "openvino")


def _spec(port: Any) -> TensorSpec:
    dims = tuple(dim.get_length() if dim.is_static else None for dim in port.get_partial_shape())
    return TensorSpec(name=port.get_any_name(), shape=dims, dtype=np.dtype(port.get_element_type().to_dtype()).name)


def _call(compiled: Any) -> Says:
    openvino = _library()
    request, count = compiled.create_infer_request(), len(compiled.outputs)

    def call(sample: Sample) -> list[np.ndarray]:
        try:
            for index, array in enumerate(sample):
                request.set_input_tensor(index, openvino.Tensor(np.asarray(array, order="C"), shared_memory=True))
            request.infer()
        except Exception as error:  # RuntimeErrors of many lines
            raise Unfit(f"OpenVINO fails when it runs it ({one_line(error)})") from None
        return [request.get_output_tensor(index).data.copy() for index in range(count)]

    return call


def _compiled(core: Any, model: Any, kind: str | None, threads: int) -> Any:
    # Left to itself the plug-in may compute float files in bf16, which would not be the fp32 that the table says.
    return core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "bf16" if kind == "bf16" else "f32",
            "ENABLE_CPU_PINNING": False,  # the caller says which core
        },
    )


def _kind(model: Any) -> str | None:
    return str(model.get_rt_info(TYPE_KEY).value) if model.has_rt_info(TYPE_KEY) else None
