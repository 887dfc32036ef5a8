"""An integer network as an ONNX graph of integer operators: what a runtime makes of it is comparable bit by bit.

    sums      ConvInteger, MatMulInteger (uint8 times uint8 to int32: the form that no processor saturates in)
    rescaling Mul, Add, Mod, Sub, Div in int64: floor((r m + 2^(e-1)) / 2^e), as shifts of negative numbers are not
              in ONNX

It is there to check the arithmetic against a second implementation. It is not the quick form: that is QLinearConv,
whose rescaling is a float multiplication and may differ in the last bit.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewright.compress.bits.integer import Dyadic, IntegerNetwork, IntegerStep

OPSET, IR = 18, 10
OFFSET = 128  # codes from -128 to 127 as uint8


def as_onnx(network: IntegerNetwork, batch: int = 1) -> onnx.ModelProto:
    """The graph: "codes" (batch, C, H, W) int32, as `IntegerNetwork.codes` gives them, to "logits" (batch, classes)
    int32 codes."""
    graph = _Graph()
    values = {"input": "codes"}
    signed = {"input": network.low < 0}
    for step in network.steps:
        values[step.name] = graph.step(step, [values[name] for name in step.inputs], signed[step.inputs[0]])
        signed[step.name] = signed[step.inputs[0]] if step.kind in ("flatten", "max_pool") else step.low < 0
    graph.node("Identity", values[network.steps[-1].name], output="logits")
    made = helper.make_graph(
        graph.nodes,
        "edgewright",
        [helper.make_tensor_value_info("codes", TensorProto.INT32, [batch, *network.shape])],
        [helper.make_tensor_value_info("logits", TensorProto.INT32, [batch, None])],
        graph.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def step(self, step: IntegerStep, inputs: list[str], signed: bool) -> str:
        if step.kind == "flatten":
            return self.node("Flatten", inputs[0], axis=1)
        if step.kind == "max_pool":
            bytes_, zero = self.unsigned(inputs[0], signed)
            pads = [*step.padding, *step.padding]
            pooled = self.node("MaxPool", bytes_, kernel_shape=step.window, strides=step.stride, pads=pads)
            wide = self.node("Cast", pooled, to=TensorProto.INT32)
            return self.node("Sub", wide, self.constant(np.int32(zero)))  # pyright: ignore[reportArgumentType]
        rank = 4 if step.kind in ("conv", "add", "clamp", "max_pool") else 2
        sums = [self.sums(step, inputs[0], signed)] if step.kind in ("conv", "linear", "mean") else inputs
        scaled = [self.rescaled(value, by, rank) for value, by in zip(sums, step.by, strict=True)]
        total = scaled[0] if len(scaled) == 1 else self.node("Add", *scaled)
        low, high = (self.constant(np.array(edge, dtype=np.int64)) for edge in (step.low, step.high))
        clamped = self.node("Min", self.node("Max", total, low), high)
        return self.node("Cast", clamped, to=TensorProto.INT32)

    def unsigned(self, codes: str, signed: bool) -> tuple[str, int]:
        """Codes as uint8, and the number that stands for 0."""
        zero = OFFSET if signed else 0
        moved = self.node("Add", codes, self.constant(np.array(zero, dtype=np.int32))) if zero else codes
        return self.node("Cast", moved, to=TensorProto.UINT8), zero

    def sums(self, step: IntegerStep, codes: str, signed: bool) -> str:
        if step.kind == "mean":
            axes = self.constant(np.array([2, 3], dtype=np.int64))
            return self.node("ReduceSum", codes, axes, keepdims=0)
        assert step.weight is not None
        assert step.bias is not None
        bytes_, zero = self.unsigned(codes, signed)
        weight = (step.weight.astype(np.int32) + OFFSET).astype(np.uint8)
        zeros = [self.constant(np.array(point, dtype=np.uint8)) for point in (zero, OFFSET)]
        bias = step.bias.astype(np.int32)
        if step.kind == "linear":
            product = self.node("MatMulInteger", bytes_, self.constant(weight.T.copy()), *zeros)
            return self.node("Add", product, self.constant(bias))
        product = self.node(
            "ConvInteger", bytes_, self.constant(weight), *zeros,
            kernel_shape=step.weight.shape[2:], strides=step.stride, pads=[*step.padding, *step.padding],
            group=step.groups,
        )  # fmt: skip
        return self.node("Add", product, self.constant(bias.reshape(1, -1, 1, 1)))

    def rescaled(self, sums: str, by: Dyadic, rank: int) -> str:
        shape = (1, -1, 1, 1) if rank == 4 else (1, -1)
        unit = np.int64(1) << by.shift
        mantissa, half, whole = (
            self.constant(part.astype(np.int64).reshape(shape)) for part in (by.mantissa, unit >> 1, unit)
        )
        wide = self.node("Cast", sums, to=TensorProto.INT64)
        total = self.node("Add", self.node("Mul", wide, mantissa), half)
        # Mod takes the sign of the divisor, so what is left is a multiple below or at the number: Div is exact then.
        return self.node("Div", self.node("Sub", total, self.node("Mod", total, whole)), whole)
