"""LiteRT (TensorFlow Lite's successor): a .tflite made from the PyTorch network, run through its XNNPACK delegate."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from edgewright.core.errors import BadInput, one_line
from edgewright.core.quiet import silent
from edgewright.export.onnx import fold_batch_norms, prepared
from edgewright.export.runtimes.base import NEEDS_MODULE, Built, Kind, Network, Program, Runtime, Unfit, fixed_shape


class LiteRt(Runtime):
    """Opening a file needs `ai-edge-litert`; making one `litert-torch`, and for int8 its quantiser. The extra has all.

    The file takes (1, C, H, W), as all others here do; LiteRT computes channels last and transposes the input itself.
    """

    name: ClassVar[str] = "litert"
    library: ClassVar[str] = "ai_edge_litert"
    extra: ClassVar[str | None] = "litert"
    suffixes: ClassVar[tuple[str, ...]] = (".tflite",)
    summary: ClassVar[str] = "LiteRT, XNNPACK delegate; fp32 and int8 (static, per channel)."
    source: ClassVar[str] = "https://ai.google.dev/edge/litert"

    def refusal(self, kind: Kind, network: Network) -> str | None:
        if network.module is None:
            return NEEDS_MODULE
        if kind == "bf16":
            return "LiteRT has no bf16 convolutions"
        return None

    def build(self, network: Network, kind: Kind, stem: Path) -> Built:
        assert network.module is not None
        path = stem.with_name(stem.name + ".tflite")
        path.parent.mkdir(parents=True, exist_ok=True)
        example = torch.zeros(network.shape)
        with silent():
            try:
                import litert_torch  # pyright: ignore[reportMissingImports]

                model = prepared(network.module)
                fold_batch_norms(model, example)
                plain = path if kind == "fp32" else stem.with_name(stem.name + ".float.tflite")
                litert_torch.convert(model, (example,)).export(str(plain))
                if kind == "int8":
                    _quantise(plain, path, network)
                    plain.unlink()
            except ImportError as error:
                raise Unfit(f"not installed: pip install 'edgewright[{self.extra}]' ({error.name})") from None
            except Exception as error:  # the converter's errors are of many kinds
                raise Unfit(f"LiteRT cannot take this network ({one_line(error)})") from None
        return Built.of(path)

    def open(self, path: Path, threads: int = 1, shape: tuple[int, ...] | None = None) -> Program:
        if not path.is_file():
            raise BadInput(f"{path}: no such file")
        with silent():
            from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]

            try:
                interpreter = Interpreter(model_path=str(path), num_threads=threads)
                interpreter.allocate_tensors()
            except Exception as error:
                raise BadInput(f"{path}: LiteRT cannot open it ({one_line(error)})") from None
        source, sink = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        found = fixed_shape([int(size) for size in source["shape"]], shape, str(path))

        def call(array: np.ndarray) -> np.ndarray:
            interpreter.set_tensor(source["index"], _to_integers(array, source))
            interpreter.invoke()
            return _to_float(interpreter.get_tensor(sink["index"]), sink)

        return Program(call, found)

    def usage(self, file: str, kind: Kind) -> list[str]:
        opened = [
            "from ai_edge_litert.interpreter import Interpreter",
            f'run = Interpreter("{file}").get_signature_runner()',
            "((name, taken),), ((to, given),) = run.get_input_details().items(), run.get_output_details().items()",
        ]
        if kind != "int8":
            return [*opened, "scores = run(**{name: x})[to]"]
        return [  # the file takes and gives integers
            *opened,
            '(scale, zero), (unit, shift) = taken["quantization"], given["quantization"]',
            'x = np.clip(np.round(x / scale) + zero, -128, 127).astype("int8")',
            "scores = unit * (run(**{name: x})[to].astype(np.float32) - shift)",
        ]


def _to_integers(array: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """round(x / scale) + zero, clipped, for a file that takes integers; a float file's input as it is."""
    if not np.issubdtype(tensor["dtype"], np.integer):
        return array
    (scale, zero), span = tensor["quantization"], np.iinfo(tensor["dtype"])
    return np.clip(np.round(array / scale) + zero, span.min, span.max).astype(tensor["dtype"])


def _to_float(array: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    if not np.issubdtype(tensor["dtype"], np.integer):
        return array
    scale, zero = tensor["quantization"]
    return ((array.astype(np.float32) - zero) * scale).astype(np.float32)


def _quantise(plain: Path, path: Path, network: Network) -> None:
    from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]
    from ai_edge_quantizer import quantizer, recipe  # pyright: ignore[reportMissingImports]

    interpreter = Interpreter(model_path=str(plain))
    ((signature, parts),) = interpreter.get_signature_list().items()
    (name,) = parts["inputs"]
    made = quantizer.Quantizer(str(plain))
    made.load_quantization_recipe(recipe.static_wi8_ai8())
    ranges = made.calibrate({signature: [{name: array} for array in network.calibration]})
    made.quantize(ranges).export_model(str(path), overwrite=True)
