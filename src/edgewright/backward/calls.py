"""The calls that rules take over: which operators, with which options, on tensors of which shapes."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from edgewright.core.errors import BadInput
from edgewright.ir import counts

Kind = Literal["conv", "linear", "norm", "activation"]
Tensors = tuple[Tensor | None, ...]
Needs = tuple[bool, ...]  # of each tensor, whether it needs a gradient

# Of each operator that may be taken over: its kind, its tensors in order, its options with their defaults.
_CONV = ("input", "weight", "bias"), {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_BATCH_NORM = (
    ("input", "weight", "bias", "running_mean", "running_var"),
    {"training": False, "momentum": 0.1, "eps": 1e-5},
)
_INPLACE = ("input",), {"inplace": False}
OPERATORS: dict[Callable[..., Tensor], tuple[Kind, tuple[str, ...], dict[str, Any]]] = {
    functional.conv1d: ("conv", *_CONV),
    functional.conv2d: ("conv", *_CONV),
    functional.conv3d: ("conv", *_CONV),
    functional.linear: ("linear", ("input", "weight", "bias"), {}),
    functional.batch_norm: ("norm", *_BATCH_NORM),
    functional.relu: ("activation", *_INPLACE),
    functional.relu6: ("activation", *_INPLACE),
    functional.hardtanh: ("activation", ("input",), {"min_val": -1.0, "max_val": 1.0, "inplace": False}),
    functional.hardswish: ("activation", *_INPLACE),
    functional.hardsigmoid: ("activation", *_INPLACE),
    functional.silu: ("activation", *_INPLACE),
    functional.gelu: ("activation", ("input",), {"approximate": "none"}),
}
_ORDER = {  # of the arguments, where inspect cannot tell
    functional.conv1d: (*_CONV[0], *_CONV[1]),
    functional.conv2d: (*_CONV[0], *_CONV[1]),
    functional.conv3d: (*_CONV[0], *_CONV[1]),
    functional.linear: _CONV[0],
    functional.gelu: ("input", "approximate"),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an operator: what was called, with which options, on tensors of which shapes.

    options: by name; of a convolution stride, padding and dilation as one number a dimension (padding may not be a
    string: `same` is written out before), and groups.   shapes: of the tensors in the operator's order, None for one
    that is not there.   output: shape of the result.   element: bytes of one element of the input.
    """

    function: Callable[..., Tensor]
    options: Mapping[str, Any]
    shapes: tuple[tuple[int, ...] | None, ...]
    output: tuple[int, ...]
    element: int

    @property
    def kind(self) -> Kind:
        return OPERATORS[self.function][0]

    @property
    def input(self) -> tuple[int, ...]:
        shape = self.shapes[0]
        assert shape is not None
        return shape

    @property
    def weight(self) -> tuple[int, ...]:
        shape = self.shapes[1]
        if shape is None:
            raise ValueError(f"a {self.kind} without a weight")
        return shape

    @property
    def depthwise(self) -> bool:
        """Whether a convolution reads each of several channels alone."""
        return self.kind == "conv" and counts.depthwise(self.options["groups"], self.input[1])

    def compute(self, *tensors: Tensor | None) -> Tensor:
        """The operator itself."""
        names = OPERATORS[self.function][1]
        return self.function(**dict(zip(names, tensors, strict=True)), **self.options)

    def with_options(self, **options: Any) -> "Call":
        """The same call with some options changed."""
        return replace(self, options={**self.options, **options})

    def macs(self) -> int:
        """Multiply-adds of the forward pass, of the whole batch; norms and activations have none."""
        if self.kind == "conv":
            return counts.convolution(self.weight, self.output, self.options["groups"]).macs
        return counts.product(self.weight[1], self.output).macs if self.kind == "linear" else 0


def as_call(function: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]) -> tuple[Call, Tensors]:
    """The call in words, and its tensors in the operator's order, cast as autocast would."""
    kind, tensor_names, defaults = OPERATORS[function]
    order = _ORDER.get(function) or tuple(inspect.signature(function).parameters)
    given = {**dict(zip(order, arguments, strict=False)), **named}
    options = {name: given.get(name, default) for name, default in defaults.items()}
    tensors = tuple(given.get(name) for name in tensor_names)
    source = tensors[0]
    assert source is not None
    device = source.device.type
    if kind in ("conv", "linear") and device != "meta" and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        tensors = tuple(None if tensor is None else tensor.to(dtype) for tensor in tensors)
    if kind == "conv":
        options, source = _written_out(options, tensors[0], tensors[1])
        tensors = (source, *tensors[1:])
    shapes = tuple(None if tensor is None else tuple(tensor.shape) for tensor in tensors)
    output = shapes[0]
    assert output is not None and tensors[0] is not None
    if kind == "linear":
        output = (*output[:-1], tensors[1].shape[0])  # pyright: ignore[reportOptionalMemberAccess]
    if kind == "conv":
        output = _conv_output(output, shapes[1], options)
    return Call(function, options, shapes, output, tensors[0].element_size()), tensors


def _written_out(options: dict[str, Any], source: Any, weight: Any) -> tuple[dict[str, Any], Tensor]:
    """Stride, padding and dilation as one number a dimension; where `same` is lopsided, the input padded."""
    dims = weight.dim() - 2
    wide = {name: (value,) * dims if isinstance(value, int) else value for name, value in options.items()}
    wide["groups"] = options["groups"]
    if source.dim() == dims + 1:
        raise BadInput("a convolution was given one image without a batch dimension; give it a batch of one")
    for name in ("stride", "dilation", "padding"):
        if not isinstance(wide[name], str):
            wide[name] = tuple(wide[name]) * (dims if len(wide[name]) == 1 else 1)
    if wide["padding"] == "valid":
        wide["padding"] = (0,) * dims
    elif wide["padding"] == "same":
        total = [d * (k - 1) for d, k in zip(wide["dilation"], weight.shape[2:], strict=True)]
        wide["padding"] = tuple(t // 2 for t in total)
        if any(t % 2 for t in total):
            source = functional.pad(source, [side for t in reversed(total) for side in (0, t % 2)])
    return wide, source


def _conv_output(source: tuple[int, ...], weight: Any, options: Mapping[str, Any]) -> tuple[int, ...]:
    sides = [
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, pad, dilation in zip(
            source[2:], weight[2:], options["stride"], options["padding"], options["dilation"], strict=True
        )
    ]
    return (source[0], weight[0], *sides)


def conv_input_gradient(call: Call, gradient: Tensor, weight: Tensor) -> Tensor:
    """The exact gradient of a convolution's input."""
    return _conv_backward(call, gradient, gradient.new_empty(1).expand(call.input), weight, (True, False, False))[0]


def conv_weight_gradient(call: Call, gradient: Tensor, x: Tensor) -> Tensor:
    """The exact gradient of a convolution's weight."""
    return _conv_backward(call, gradient, x, gradient.new_empty(1).expand(call.weight), (False, True, False))[1]


def _conv_backward(call: Call, gradient: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]) -> Sequence[Tensor]:
    options = call.options
    stride, padding, dilation = (list(options[name]) for name in ("stride", "padding", "dilation"))
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, dilation, False, [0] * len(stride), options["groups"], list(wanted)
    )
