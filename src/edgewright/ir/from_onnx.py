"""What an ONNX file runs: the one reader for laws of speed, memory, limits of boards and counts.

Shapes are inferred, free dimensions count as 1, local functions are opened, nodes come after what they read, and what
is made of constants alone is a constant. In an int8 file (QuantizeLinear and DequantizeLinear around float operators) a
tensor that is quantised as soon as it is made counts as what it is quantised to, as integer kernels have it; only where
such a pair turns the network's own input or output does it run.
"""

import heapq
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import helper, inliner, shape_inference

from edgewright.core.errors import BadInput, one_line
from edgewright.ir import counts
from edgewright.ir.counts import NOTHING, Work
from edgewright.ir.network import FLOAT_BYTES, Network, Node, known, together

Model = bytes | Path | str | onnx.ModelProto
Shape = tuple[int, ...]
NOT_RUN = ("Identity", "Dropout")  # what no runtime spends time on
ROUNDING = ("QuantizeLinear", "DequantizeLinear")
STANDARD = ("", "ai.onnx")
MATRICES = {"MatMul": 1, "MatMulInteger": 1, "FusedMatMul": 1, "QLinearMatMul": 3}  # products, and which input is b
KINDS: Mapping[str, str] = {  # of `op.Kind`, by their names in ONNX
    "Conv": "conv", "FusedConv": "conv", "ConvInteger": "conv", "QLinearConv": "conv",
    "ConvTranspose": "conv_transpose", "Gemm": "linear", "QGemm": "linear", "LSTM": "lstm", "GRU": "gru",
    "BatchNormalization": "norm", "LayerNormalization": "layer_norm", "Add": "add", "QLinearAdd": "add", "Mul": "mul",
    "QLinearMul": "mul", "Relu": "relu", "Clip": "relu", "HardSigmoid": "hardsigmoid", "HardSwish": "hardsigmoid",
    "Sigmoid": "sigmoid", "QLinearSigmoid": "sigmoid", "Swish": "swish", "QuickGelu": "swish", "Softmax": "softmax",
    "AveragePool": "avg_pool", "MaxPool": "max_pool", "GlobalAveragePool": "global_pool", "Flatten": "flatten",
    "Reshape": "reshape", "Transpose": "transpose", "Concat": "concat", "Slice": "take", "ArgMax": "argmax",
}  # fmt: skip


def loaded(model: Model) -> onnx.ModelProto:
    """Errors: BadInput for what is no ONNX model."""
    try:
        if isinstance(model, bytes):
            return onnx.load_model_from_string(model)
        return model if isinstance(model, onnx.ModelProto) else onnx.load_model(str(model))
    except FileNotFoundError:
        raise BadInput(f"{model}: no such file") from None
    except Exception as error:  # protobuf's and onnx's error classes differ between versions
        raise BadInput(f"{_where(model)}: not a readable ONNX model ({one_line(error)})") from None


def read(model: Model, number_bytes: int = FLOAT_BYTES) -> Network:
    """What the file runs.   number_bytes: of a float32, for a network that will be converted.

    Errors: BadInput for what is no ONNX model, and for a tensor whose shape cannot be inferred.
    """
    return _Reader(inferred(model), number_bytes, _where(model)).network()


def read_work(model: Model) -> list[tuple[str, int]]:
    """Of all that runs as one (`network.together`) the kind of layer ("dense", "pointwise", "depthwise", "linear", else
    the operator's own kind) and the multiply-adds, as laws of speed ask it.

    Errors: BadInput for what `read` refuses, and for an operator that cannot be counted.
    """
    network = read(model)
    run = replace(network, nodes=tuple(node for node in network.nodes if node.kind not in NOT_RUN))
    work = [(group[0].kind, known(group[0], network.where)) for group in together(run)]
    return [(kind if one.layer == "none" else one.layer, one.macs) for kind, one in work]


def kinds(model: onnx.ModelProto) -> Iterator[tuple[str, str, str]]:
    """Of every node its name (its number where it has none), its operator and its kind, as the file says it."""
    body = model.graph
    constants = {item.name for item in body.initializer}
    gates = {frozenset(node.input) for node in body.node if node.op_type == "Mul"}
    for index, node in enumerate(body.node):
        if node.op_type == "Constant":
            constants.update(node.output)
        gate = node.op_type == "Sigmoid" and frozenset((node.input[0], node.output[0])) in gates
        name = f"'{node.name}'" if node.name else f"number {index}"
        yield name, node.op_type, "swish" if gate else _kind(node, constants)


def number_type(model: onnx.ModelProto) -> Literal["fp32", "bf16", "int8"]:
    """The type of its numbers: int8 where tensors are quantised on the way, else that of its first input."""
    if any(node.op_type in ("QuantizeLinear", "QLinearConv") for node in model.graph.node):
        return "int8"
    fixed = {tensor.name for tensor in model.graph.initializer}
    given = [value.type.tensor_type.elem_type for value in model.graph.input if value.name not in fixed]
    return "bf16" if given[:1] == [onnx.TensorProto.BFLOAT16] else "fp32"


def weight_bytes(model: onnx.ModelProto, float_bytes: int, bias_bytes: int) -> int:
    """Bytes of all constants, wherever the file keeps them; of a float32 number so many, in vectors and scalars, which
    are biases, so many."""
    kept = [
        item.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for item in node.attribute
        if item.HasField("t")
    ]
    total = 0
    for tensor in (*model.graph.initializer, *kept):
        one = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        if tensor.data_type == onnx.TensorProto.FLOAT:
            one = bias_bytes if len(tensor.dims) < 2 else float_bytes
        total += prod(tensor.dims) * one
    return total


def inferred(model: Model) -> onnx.GraphProto:
    """The graph with its shapes, and its nodes so that each comes after what it reads."""
    try:
        whole = loaded(model)
        ordered = onnx.ModelProto()
        ordered.CopyFrom(inliner.inline_local_functions(whole) if whole.functions else whole)
        nodes = _ordered(ordered.graph, _where(model))
        del ordered.graph.node[:]
        ordered.graph.node.extend(nodes)
        return shape_inference.infer_shapes(ordered, data_prop=True).graph
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{_where(model)}: not a readable ONNX model ({one_line(error)})") from None


def _where(model: Model) -> str:
    return str(model) if isinstance(model, (Path, str)) else "the model"


def _ordered(body: onnx.GraphProto, where: str) -> list[onnx.NodeProto]:
    """The nodes in the file's order as far as each comes after its inputs: quantisers append theirs at the end."""
    makers = {name: index for index, node in enumerate(body.node) for name in node.output if name}
    waits = [{makers[name] for name in node.input if name in makers} for node in body.node]
    readers: dict[int, list[int]] = {}
    for index, before in enumerate(waits):
        for maker in before:
            readers.setdefault(maker, []).append(index)
    ready = [index for index, before in enumerate(waits) if not before]
    found: list[onnx.NodeProto] = []
    while ready:
        index = heapq.heappop(ready)
        copied = onnx.NodeProto()
        copied.CopyFrom(body.node[index])
        found.append(copied)
        for reader in readers.get(index, ()):
            waits[reader].discard(index)
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(found) < len(body.node):
        raise BadInput(f"{where}: not a readable ONNX model (its nodes form a cycle)")
    return found


class _Reader:
    """Reads one inferred graph."""

    def __init__(self, body: onnx.GraphProto, number_bytes: int, where: str) -> None:
        self.body, self.where = body, where
        self.constants = {item.name for item in body.initializer}
        values = [value for value in (*body.input, *body.value_info, *body.output) if _shaped(value)]
        self.shapes = {value.name: _shape(value) for value in values}
        self.sizes: dict[Hashable, int] = {value.name: _bytes(value, number_bytes) for value in values}
        self.shapes |= {item.name: tuple(item.dims) for item in body.initializer}
        self.outputs = tuple(value.name for value in body.output)
        self.kept = {*self.outputs, *(value.name for value in body.input)}
        self.names = self._integer_names()

    def network(self) -> Network:
        nodes = [node for index, item in enumerate(self.body.node) if (node := self._node(item, index)) is not None]
        inputs = tuple(value.name for value in self.body.input if value.name not in self.constants)
        shapes: dict[Hashable, Shape] = {name: self.shapes[str(name)] for name in self.sizes}
        return Network(tuple(nodes), shapes, self.sizes, inputs, self.outputs, self.where)

    def _integer_names(self) -> dict[str, str]:
        """Of each float tensor that integer kernels never hold, the int8 tensor that stands for it."""
        readers: dict[str, int] = {}
        for node in self.body.node:
            for name in node.input:
                readers[name] = readers.get(name, 0) + 1
        names: dict[str, str] = {}
        for node in self.body.node:
            source, made = node.input[:1], node.output[0] if node.output else ""
            if node.op_type == "DequantizeLinear" and source[0] not in self.constants and made not in self.kept:
                names[made] = source[0]
            elif node.op_type == "QuantizeLinear" and {source[0], made}.isdisjoint(self.kept | names.keys()):
                names |= {source[0]: made} if readers[source[0]] == 1 else {}  # else it is needed as floats too
        return names

    def _name(self, name: str) -> str:
        return self.names.get(name, name)

    def _node(self, node: onnx.NodeProto, index: int) -> Node | None:
        given = [name for name in node.input if name]
        if node.op_type == "Constant" or (given and self.constants.issuperset(given)):
            self.constants.update(node.output)
            return None
        inputs = tuple(self._name(name) for name in given if name not in self.constants)
        made = tuple(self._name(name) for name in node.output if name)
        if node.op_type in ROUNDING and made == inputs[:1]:
            return None
        missing = [name for name in (*inputs, *made) if name not in self.sizes]
        if missing:
            raise self._unshaped(missing[0])
        return Node(
            name=node.name or f"number {index}",
            kind=_kind(node, self.constants),
            inputs=inputs,
            outputs=made,
            work=self._work(node),
            groups=_attributes(node).get("group", 1),
        )

    def _unshaped(self, name: str) -> BadInput:
        return BadInput(
            f"{self.where}: the tensor '{name}' has no shape that can be inferred; export it with fixed sizes"
        )

    def _work(self, node: onnx.NodeProto) -> Work | None:
        count = _COUNTED.get(node.op_type) if node.domain in STANDARD else _MICROSOFT.get(node.op_type)
        if count is None:
            return NOTHING if _plain(node) else None
        missing = [name for name in (*node.input, *node.output) if name and name not in self.shapes]
        if missing:
            raise self._unshaped(missing[0])
        shapes = [self.shapes.get(name, ()) for name in node.input]
        fixed = [name in self.constants for name in node.input]
        return count(_Called(shapes, fixed, self.shapes[node.output[0]] if node.output[0] else (), _attributes(node)))


def _kind(node: onnx.NodeProto, constants: set[str]) -> str:
    if node.op_type in MATRICES:
        return "linear" if node.input[MATRICES[node.op_type]] in constants else "matmul"
    if node.op_type == "Gather":
        return "embedding" if node.input[0] in constants else "Gather"
    if node.op_type == "Resize":
        return "upsample_nearest" if _attributes(node).get("mode", b"nearest") == b"nearest" else "upsample_linear"
    return KINDS.get(node.op_type, node.op_type)


def _plain(node: onnx.NodeProto) -> bool:
    """Whether an operator that is not counted has no multiply-adds; of others' libraries only what is known."""
    if node.domain in STANDARD:
        return node.op_type not in UNCOUNTED
    return node.domain == "com.microsoft" and node.op_type in PLAIN_MICROSOFT


UNCOUNTED = frozenset({"If", "Loop", "Scan", "SequenceMap", "DeformConv"})
PLAIN_MICROSOFT = frozenset(
    {"QuickGelu", "Gelu", "BiasGelu", "FastGelu", "SkipLayerNormalization", "QuantizeLinear", "DequantizeLinear",
     "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearAveragePool", "QLinearConcat",
     "QLinearGlobalAveragePool", "QLinearSoftmax", "QLinearReduceMean"}
)  # fmt: skip


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _shaped(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.HasField("shape")


def _shape(value: onnx.ValueInfoProto) -> Shape:
    return tuple(dim.dim_value if dim.HasField("dim_value") else 1 for dim in value.type.tensor_type.shape.dim)


def _bytes(value: onnx.ValueInfoProto, number_bytes: int) -> int:
    kind = value.type.tensor_type.elem_type
    one = number_bytes if kind == onnx.TensorProto.FLOAT else helper.tensor_dtype_to_np_dtype(kind).itemsize
    return prod(_shape(value)) * one


@dataclass(frozen=True, slots=True)
class _Called:
    """inputs: shapes in order.   fixed: whether each is a constant.   output: shape of the first."""

    inputs: Sequence[Shape]
    fixed: Sequence[bool]
    output: Shape
    options: Mapping[str, Any]


def _convolution(weight: int) -> Callable[[_Called], Work]:
    """weight: which of the inputs it is."""
    return lambda call: counts.convolution(call.inputs[weight], call.output, call.options.get("group", 1))


def _product(weight: int) -> Callable[[_Called], Work]:
    """A matrix product whose right side is input `weight`; a layer's weight where that is constant."""

    def work(call: _Called) -> Work:
        inner = call.inputs[0][-2 if call.options.get("transA") else -1]
        right = call.inputs[weight]
        layer = call.fixed[weight] and len(right) == 2
        return counts.product(inner, call.output, (call.output[-1], inner) if layer else ())

    return work


def _recurrence(call: _Called) -> Work:
    """Inputs (steps, batch, C) or (batch, steps, C), weights (directions, gates H, C or H)."""
    source, *weights = call.inputs[:3]
    return counts.recurrence([(prod(weight[:2]), weight[2]) for weight in weights], prod(source[:2]))


def _einsum(call: _Called) -> Work | None:
    return counts.einsum(call.options["equation"].decode(), call.inputs)


_COUNTED: dict[str, Callable[[_Called], Work | None]] = {
    **dict.fromkeys(("Conv", "ConvInteger"), _convolution(1)),
    "QLinearConv": _convolution(3),
    "ConvTranspose": lambda call: counts.transposed(call.inputs[1], call.inputs[0], call.options.get("group", 1)),
    **dict.fromkeys(("Gemm", "MatMul", "MatMulInteger"), _product(1)),
    "QLinearMatMul": _product(3),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrence),
    "Einsum": _einsum,
    "Attention": lambda call: counts.attention(call.inputs[0], call.inputs[1], call.output) if call.output else None,
    "Gather": lambda call: counts.fetch(call.inputs[0]) if call.fixed[0] else NOTHING,
}
_MICROSOFT: dict[str, Callable[[_Called], Work | None]] = {
    "FusedConv": _convolution(1),
    "FusedMatMul": _product(1),
    "QGemm": _product(3),
}
