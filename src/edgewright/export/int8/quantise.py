r"""Static int8 for ONNX: the graph rewritten by ONNX Runtime's own quantiser, its types and ranges chosen by us.

    q = clip(round(x / s) + z, 0, 255) for activations (U8, one s and z a tensor),
    q = clip(round(w / s_c), -127, 127) for weights (S8, one s_c an output channel),

in QDQ form: the file stays standard ONNX, whose QuantizeLinear and DequantizeLinear pairs a runtime fuses into integer
kernels. ONNX Runtime's default, S8 activations and per-tensor weights, is slower and less accurate on x86 with VNNI,
whose instruction multiplies u8 by s8.

Source: Jacob et al., CVPR 2018, arXiv:1712.05877; Wu et al., 2020, arXiv:2004.09602 (per-channel weights). Checked
against: a convolution computed in integers by hand, and float outputs (tests/export/test_quantise.py).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.version_converter

from edgewright.core.errors import BadInput, EdgewrightError
from edgewright.core.files import refuse_full, scratch
from edgewright.core.private import quantisable
from edgewright.core.quiet import silent
from edgewright.device.here.instructions import has_vnni, is_x86
from edgewright.device.here.runtime import hushed
from edgewright.export.alike import aligned
from edgewright.export.graph import all_nodes, free_name, in_order, inputs_of, tensor_names
from edgewright.export.int8.calibrators import CALIBRATORS, Calibrator
from edgewright.export.int8.histogram import Histogram
from edgewright.export.running import Answers, Sample, Says, call_of, outputs

LAYERS = ("Conv", "Gemm", "MatMul", "ConvTranspose")
OLDEST, NEWER, OLDEST_IR = 13, 18, 8  # opset with scales for each channel; what older ones are converted to
MADE_NAMES = ("_scale", "_zero_point", "_quantized", "_quantized_scale", "_quantized_zero_point", "_QuantizeLinear",
              "_QuantizeLinear_Output", "_QuantizeLinear_Input", "_DequantizeLinear", "_DequantizeLinear_Output",
              "_DequantizeLinear_Input")  # fmt: skip
QUANTISED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
             "ConvInteger", "MatMulInteger"}  # fmt: skip
SCORED_ON = 64  # calibration samples by which the calibrators are compared
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Int8Types:
    """signed: S8 activations in place of U8.   narrow: weights in 7 bits, where 16-bit sums could saturate."""

    signed: bool = False
    narrow: bool = False

    def text(self) -> str:
        return ("S8S8" if self.signed else "U8S8") + (", 7-bit weights" if self.narrow else "")


def types_here() -> Int8Types:
    """The types that this processor multiplies fastest: U8S8 on x86 (7-bit weights without VNNI), S8S8 elsewhere."""
    return Int8Types(signed=not is_x86(), narrow=is_x86() and not has_vnni())


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with shapes inferred, constants and batch norms folded, and every node named.

    Done by ONNX Runtime's own optimiser at its basic level, which keeps to standard operators. Scales for each channel
    came with opset 13: an older network is converted first.
    """
    from onnxruntime.quantization import quant_pre_process

    if any(node.op_type in QUANTISED for node in all_nodes(model.graph)):
        raise EdgewrightError("the network is quantised already")
    model = _new_enough(model)
    with scratch() as folder, silent(), hushed():
        given, path = folder / "given.onnx", folder / "prepared.onnx"
        onnx.save(model, given)  # handed a model in memory, it moves the weights out of that model
        try:
            quant_pre_process(given, path, skip_symbolic_shape=True)
            ready = onnx.load(path)
        except Exception as error:  # the optimiser's errors are of many kinds
            refuse_full(folder, error)
            raise EdgewrightError(f"the network cannot be prepared for int8 ({_first_line(error)})") from None
    _name_nodes(ready)
    _make_way(ready)
    return ready


def _name_nodes(model: onnx.ModelProto) -> None:
    """A name of its own for every node, in place: its own where nobody else has it."""
    times = Counter(node.name for node in all_nodes(model.graph))
    for index, node in enumerate(model.graph.node):
        if not node.name or times[node.name] > 1:
            node.name = free_name(f"{node.op_type}.{index}", times)
            times[node.name] += 1


def _make_way(model: onnx.ModelProto) -> None:
    """Rename, in place, tensors that are called as the quantiser will call the scales and copies of others."""
    names, ends = tensor_names(model), tuple(value.name for value in (*model.graph.input, *model.graph.output))
    for name in sorted(names):
        if name not in ends and any(name.endswith(word) and name.removesuffix(word) in names for word in MADE_NAMES):
            new = free_name(f"{name}.own", names)
            names.add(new)
            _rename(model, name, new)


def _rename(model: onnx.ModelProto, name: str, new: str) -> None:
    for value in (*model.graph.initializer, *model.graph.value_info):
        if value.name == name:
            value.name = new
    for node in all_nodes(model.graph):
        for names in (node.input, node.output):
            names[:] = [new if text == name else text for text in names]


def _new_enough(model: onnx.ModelProto) -> onnx.ModelProto:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset >= OLDEST:
        return model
    try:
        made = onnx.version_converter.convert_version(model, NEWER)
        onnx.checker.check_model(made)
    except Exception as error:  # the converter's errors are of many kinds
        told = f"the network's {opset} cannot be converted ({_first_line(error)})"
        raise EdgewrightError(f"int8 needs opset {OLDEST} or newer, and {told}; export it anew") from None
    made.ir_version = max(model.ir_version, OLDEST_IR)
    return made


def layers(prepared: onnx.ModelProto) -> list[str]:
    """The nodes that hold nearly all of the work, in running order: convolutions and matrix products with weights."""
    constants = {tensor.name for tensor in prepared.graph.initializer}
    return [node.name for node in prepared.graph.node if node.op_type in LAYERS and constants & set(node.input[1:2])]


def watching(model: onnx.ModelProto) -> tuple[list[str], Says]:
    """The float tensors that nodes make, and a function of a sample that gives them all."""
    open_ = onnx.ModelProto()
    open_.CopyFrom(model)
    names = float_tensors(open_)
    del open_.graph.output[:]
    open_.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return names, call_of(open_)


def collect(prepared: onnx.ModelProto, samples: Iterable[Sample]) -> dict[str, Histogram]:
    """The spread of every float tensor, inputs and what nodes make, over `samples`.

    Errors: BadInput without samples; EdgewrightError for a tensor that is not finite, for which int8 has no numbers.
    """
    names, call = watching(prepared)
    taken = [(index, spec.name) for index, spec in enumerate(inputs_of(prepared)) if spec.dtype == "float32"]
    found = {name: Histogram() for name in (*(name for _, name in taken), *names)}
    empty = True
    for sample in samples:
        empty = False
        for index, name in taken:
            found[name].add(sample[index])
        for name, values in zip(names, call(sample), strict=True):
            found[name].add(values)
    if empty:
        raise BadInput("the calibration data is empty; give at least one sample")
    strange = next((name for name, histogram in found.items() if histogram.strange), None)
    if strange is not None:
        raise EdgewrightError(
            f"tensor '{strange}' is not finite on the calibration data, and int8 has no number for it"
        )
    return found


def ranges(histograms: Mapping[str, Histogram], calibrator: Calibrator) -> dict[str, tuple[float, float]]:
    return {name: calibrator(histogram) for name, histogram in histograms.items()}


def quantise(
    prepared: onnx.ModelProto,
    covered: Ranges,
    types: Int8Types,
    *,
    in_float: Collection[str] = (),
    only: Sequence[str] = (),
    steps: Mapping[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    """The int8 network in QDQ form; `prepared` stays as it is.

    Args:
        covered: (low, high) of every activation.
        in_float: names of nodes that stay in float.
        only: when given, only these nodes are quantised.
        steps: of weights by name, one for each output channel; by default max|w| / 127.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantType, TensorData, TensorsData
    from onnxruntime.quantization.calibrate import CalibrationMethod

    model = onnx.ModelProto()
    model.CopyFrom(prepared)
    data: dict[str, TensorData | tuple] = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in covered.items()
    }
    with silent(), hushed():
        quantiser = QDQQuantizer(
            model,
            True,  # per channel
            types.narrow,
            QuantType.QInt8,
            QuantType.QInt8 if types.signed else QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, data),
            list(only),
            list(in_float),
            quantisable(),
            {
                "ActivationSymmetric": False,
                "WeightSymmetric": True,
                "TensorQuantOverrides": _overrides(steps or {}, model),
            },
        )
        try:
            quantiser.quantize_model()
        except Exception as error:  # the quantiser raises plain ValueErrors and AttributeErrors
            raise EdgewrightError(f"ONNX Runtime's quantiser cannot take this network ({_first_line(error)})") from None
    return in_order(quantiser.model.model)  # the quantiser leaves its own nodes at the end


def _overrides(steps: Mapping[str, np.ndarray], model: onnx.ModelProto) -> dict[str, list[dict]]:
    """Steps of weights as the quantiser takes them: along the channels, which a Gemm may have last."""
    from onnxruntime.quantization import QuantType

    last = {
        node.input[1]
        for node in model.graph.node
        if node.op_type == "MatMul" or (node.op_type == "Gemm" and not _is_transposed(node))
    }
    return {
        name: [
            {
                "axis": int(name in last),
                "quant_type": QuantType.QInt8,
                "scale": np.array(step, np.float32),
                "zero_point": np.array(0, np.int8),
            }
            for step in values
        ]
        for name, values in steps.items()
    }


def _is_transposed(gemm: onnx.NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in gemm.attribute)


def best_ranges(
    prepared: onnx.ModelProto, samples: Sequence[Sample], types: Int8Types
) -> tuple[str, dict[str, tuple[float, float]]]:
    """The calibrator whose network stays nearest to the float one, and its ranges.

    error = sum |y_int8 - y_float|^2 / sum |y_float|^2      over the first SCORED_ON calibration samples
    """
    histograms = collect(prepared, samples)
    scored = samples[:SCORED_ON]
    expected = outputs(prepared, scored)
    every = {name: ranges(histograms, calibrator) for name, calibrator in CALIBRATORS.items()}
    errors = {
        name: relative_error(outputs(quantise(prepared, covered, types), scored), expected)
        for name, covered in every.items()
    }
    best = min(errors, key=lambda name: errors[name])
    return best, every[best]


def relative_error(found: Sequence[Answers], expected: Sequence[Answers]) -> float:
    """sum |found - expected|^2 / sum |expected|^2 of float outputs, the share of values that differ of whole ones: the
    mean over the outputs; infinite where something is not a number."""
    errors = [_error(*aligned(y, z)[:2]) for y, z in zip(expected, found, strict=True)]
    error = sum(errors) / max(1, len(errors))
    return error if np.isfinite(error) else float("inf")


def _error(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.dtype.kind != "f":
        return float((found != expected).mean()) if expected.size else 0.0
    square = np.square(found - expected, dtype=np.float64).sum()
    return float(square / max(float(np.square(expected, dtype=np.float64).sum()), 1e-30))


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of all float32 tensors that nodes make."""
    body = model.graph
    constant = {name for node in body.node if node.op_type == "Constant" for name in node.output}
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*body.value_info, *body.output)}
    made = [name for node in body.node for name in node.output if name]
    return [name for name in made if name not in constant and kinds.get(name) == onnx.TensorProto.FLOAT]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
