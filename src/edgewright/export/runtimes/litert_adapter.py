"""LiteRT (TensorFlow Lite's successor): a .tflite made from the PyTorch network, run through its XNNPACK delegate."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from edgewright.core.errors import BadInput, one_line
from edgewright.core.quiet import silent
from edgewright.core.tensors import TensorSpec, as_tree, ask, leaves
from edgewright.export.onnx import fold_batch_norms, prepared
from edgewright.export.running import Sample
from edgewright.export.runtimes.base import NEEDS_MODULE, Asked, Built, Kind, Network, Program, Runtime, Unfit, fixed


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
        with silent():
            try:
                import litert_torch  # pyright: ignore[reportMissingImports]

                model = prepared(network.module)
                fold_batch_norms(model, network.example())
                plain = path if kind == "fp32" else stem.with_name(stem.name + ".float.tflite")
                args = tuple(leaves(network.example()))
                litert_torch.convert(_InOrder(model, network.names).eval(), args).export(str(plain))
                if kind == "int8":
                    _quantise(plain, path, network)
                    plain.unlink()
            except ImportError as error:
                raise Unfit(f"not installed: pip install 'edgewright[{self.extra}]' ({error.name})") from None
            except Exception as error:  # the converter's errors are of many kinds
                raise Unfit(f"LiteRT cannot take this network ({one_line(error)})") from None
        return Built.of(path)

    def open(self, path: Path, threads: int = 1, shape: Asked = None) -> Program:
        if not path.is_file():
            raise BadInput(f"{path}: no such file")
        with silent():
            from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]

            try:
                interpreter = Interpreter(model_path=str(path), num_threads=threads)
                interpreter.allocate_tensors()
            except Exception as error:
                raise BadInput(f"{path}: LiteRT cannot open it ({one_line(error)})") from None
        sources, sinks = _ends(interpreter)
        found = fixed([_spec(detail) for detail in sources], shape, str(path))

        def call(sample: Sample) -> list[np.ndarray]:
            try:
                for detail, array in zip(sources, sample, strict=True):
                    interpreter.set_tensor(detail["index"], _to_integers(array, detail))
                interpreter.invoke()
            except (RuntimeError, ValueError) as error:
                raise Unfit(f"LiteRT fails when it runs it ({one_line(error)})") from None
            return [_to_float(interpreter.get_tensor(detail["index"]), detail) for detail in sinks]

        return Program(call, found)

    def usage(self, file: str, kind: Kind) -> list[str]:
        opened = [
            "from ai_edge_litert.interpreter import Interpreter",
            f'net = Interpreter("{file}")',
            "net.allocate_tensors()",
            "for one, x in zip(net.get_input_details(), inputs):",
        ]
        if kind != "int8":
            return [
                *opened,
                '    net.set_tensor(one["index"], x.astype(one["dtype"]))',
                "net.invoke()",
                'outputs = [net.get_tensor(one["index"]) for one in net.get_output_details()]',
            ]
        return [  # the file takes and gives integers
            *opened,
            '    scale, zero = one["quantization"]',
            "    whole = np.clip(np.round(x / scale) + zero, -128, 127) if scale else x",
            '    net.set_tensor(one["index"], whole.astype(one["dtype"]))',
            "net.invoke()",
            'found = [(net.get_tensor(one["index"]), *one["quantization"]) for one in net.get_output_details()]',
            "outputs = [scale * (y.astype(np.float32) - zero) if scale else y for y, scale, zero in found]",
        ]


class _InOrder(nn.Module):
    """A network whose inputs and outputs have places in place of names, which the converter would sort by."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network, self.names = network, tuple(names)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        found = ask(self.network, as_tree(dict(zip(self.names, inputs, strict=True))))
        return tuple(leaves(found))


def _ends(interpreter: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs in the network's order."""
    signatures = list(interpreter.get_signature_list())
    if not signatures:
        return interpreter.get_input_details(), interpreter.get_output_details()
    runner = interpreter.get_signature_runner(signatures[0])
    both = runner.get_input_details(), runner.get_output_details()
    taken, given = ([details[name] for name in _ordered(details)] for details in both)
    return taken, given


def _ordered(names: Iterable[str]) -> list[str]:
    """As the converter numbers them; the file may hold them in another order."""
    ends = {name: re.search(r"\d+$", name) for name in names}
    return sorted(ends, key=lambda name: int(end.group()) if (end := ends[name]) else 0)


def _spec(detail: dict[str, Any]) -> TensorSpec:
    """As the network is asked: in float where the file takes integers in its place."""
    dtype = np.dtype(detail["dtype"])
    asked = "float32" if _is_scaled(detail) else dtype.name
    return TensorSpec(name=detail["name"], shape=tuple(int(size) for size in detail["shape"]), dtype=asked)


def _is_scaled(detail: dict[str, Any]) -> bool:
    """Whether integers stand for floats; whole numbers that are meant as such have no scale."""
    return bool(np.issubdtype(detail["dtype"], np.integer) and detail["quantization"][0])


def _to_integers(array: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    """round(x / scale) + zero, clipped, for a file that takes integers in place of floats; else in the file's own type,
    which is int32 where the network had int64.   Errors: ValueError for whole numbers that it cannot hold."""
    if not _is_scaled(tensor):
        given = np.asarray(array, dtype=tensor["dtype"])
        if given.dtype.kind in "iu" and not np.array_equal(given, array):
            raise ValueError(f"it takes {given.dtype}, which cannot hold these numbers")
        return given
    (scale, zero), span = tensor["quantization"], np.iinfo(tensor["dtype"])
    return np.clip(np.round(array / scale) + zero, span.min, span.max).astype(tensor["dtype"])


def _to_float(array: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    if not _is_scaled(tensor):
        return array
    scale, zero = tensor["quantization"]
    return ((array.astype(np.float32) - zero) * scale).astype(np.float32)


def _quantise(plain: Path, path: Path, network: Network) -> None:
    from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]
    from ai_edge_quantizer import quantizer, recipe  # pyright: ignore[reportMissingImports]

    interpreter = Interpreter(model_path=str(plain))
    (signature,) = interpreter.get_signature_list()
    names = _ordered(interpreter.get_signature_runner(signature).get_input_details())
    made = quantizer.Quantizer(str(plain))
    made.load_quantization_recipe(recipe.static_wi8_ai8())
    samples = [dict(zip(names, sample, strict=True)) for sample in network.calibration]
    ranges = made.calibrate({signature: samples})
    made.quantize(ranges).export_model(str(path), overwrite=True)
