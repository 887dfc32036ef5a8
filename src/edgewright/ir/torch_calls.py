"""Torch's operators by name, and what a call of each computes: for exported graphs, and for calls that are watched.

Names are ATen's; functions of `torch.nn.functional` and methods of tensors that mean the same have the same. Of these,
what is not listed multiplies nothing, and what multiplies in a way that nobody has said how to count is in UNCOUNTED;
operators of other libraries, written LIBRARY.NAME, are not counted but for PLAIN.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any

from torch import Tensor

from edgewright.ir import counts
from edgewright.ir.counts import NOTHING, Work

Shape = tuple[int, ...]
UNCOUNTED = frozenset(
    {"bilinear", "cdist", "chain_matmul", "linalg_multi_dot", "conv_tbc", "convolution", "_convolution",
     "_native_multi_head_attention", "_transformer_encoder_layer_fwd"}
)  # fmt: skip
PLAIN = frozenset({"torchvision.nms", "torchvision.roi_align", "torchvision.roi_pool"})


@dataclass(frozen=True, slots=True)
class Given:
    """The arguments of one call, shapes in place of tensors.   output: shape of its (first) result."""

    operator: str
    arguments: Sequence[Any]
    named: Mapping[str, Any]
    output: Shape

    def __call__(self, index: int, name: str, default: Any = None) -> Any:
        """An argument, by its place or its name."""
        return self.arguments[index] if index < len(self.arguments) else self.named.get(name, default)


@functools.lru_cache(maxsize=4096)
def name_of(function: Any) -> str:
    """What an operator, a function or a method is called."""
    if type(function).__module__ == "torch._ops":  # ATen's, or from another library
        library, name = str(function).split(".")[:2]
        return name if library == "aten" else f"{library}.{name}"
    namespace = getattr(function, "namespace", "")  # of operators that run others
    return f"{namespace}.{function}" if namespace else str(getattr(function, "__name__", function))


def shaped(value: Any) -> Any:
    """Shapes in place of tensors, inside lists too."""
    if isinstance(value, (list, tuple)):
        return [shaped(part) for part in value]
    return tuple(value.shape) if isinstance(value, Tensor) else value


def work(operator: str, arguments: Sequence[Any], named: Mapping[str, Any], result: Any) -> Work | None:
    """What a call computes, for all inputs that its shapes hold; None where that is not known.

    arguments, named: as they are; tensors may be fake or meta.   result: what it gave.
    """
    if operator in UNCOUNTED or ("." in operator and operator not in PLAIN):
        return None
    count = _COUNTED.get(operator if operator.startswith("__") else operator.rstrip("_"))
    if count is None:
        return NOTHING
    output = shaped(result)
    while isinstance(output, list):
        output = output[0]
    return count(Given(operator, shaped(arguments), {name: shaped(value) for name, value in named.items()}, output))


def _convolution(call: Given) -> Work:
    return counts.convolution(call(1, "weight"), call.output, call(6, "groups", 1))


def _transposed(call: Given) -> Work:
    return counts.transposed(call(1, "weight"), call(0, "input"), call(6, "groups", 1))


def _linear(call: Given) -> Work:
    weight = call(1, "weight")
    return counts.product(weight[-1], call.output, weight)


def _product(place: int, name: str = "input") -> Callable[[Given], Work]:
    """A product of matrices or vectors; place: of the left one among the arguments."""
    return lambda call: counts.product(call(place, name)[-1], call.output)


def _summed_product(call: Given) -> Work:
    left, right = call(1, "batch1"), call(2, "batch2")
    return Work(prod(left) * right[-1], "linear")


def _tensordot(call: Given) -> Work:
    """The axes that go stand in both operands, so what is summed over is the root of all that is not in the output."""
    both = prod(call(0, "a", call.named.get("self"))) * prod(call(1, "b", call.named.get("other")))
    return counts.product(isqrt(both // max(1, prod(call.output))), call.output)


def _einsum(call: Given) -> Work | None:
    equation, *operands = call.arguments
    shapes = operands[0] if len(operands) == 1 and isinstance(operands[0], list) else operands
    return counts.einsum(equation, shapes) if isinstance(equation, str) else None


def _attention(call: Given) -> Work:
    return counts.attention(call(0, "query"), call(1, "key"), call(2, "value"))


def _whole_attention(call: Given) -> Work:
    """`multi_head_attention_forward`: (tokens, batch, features), projections in and out, the products between."""
    query, key, value = (call(index, name) for index, name in enumerate(("query", "key", "value")))
    width, out = query[-1], call(12, "out_proj_bias")
    features = width if out is None else out[0]
    tokens, others = prod(query[:-1]), prod(key[:-1])
    projections = tokens * width * width + others * width * (key[-1] + value[-1]) + tokens * width * features
    return Work(projections + tokens * key[0] * 2 * width, "linear")


def _recurrence(call: Given) -> Work:
    """A layer over a sequence, its weights in the last list of the arguments."""
    weights = [argument for argument in call.arguments if isinstance(argument, list)][-1]
    return counts.recurrence(weights, prod(call(0, "input")[:-1]))


def _cell(call: Given) -> Work:
    return counts.recurrence([call(2, "w_ih"), call(3, "w_hh")], prod(call(0, "input")[:-1]))


_COUNTED: dict[str, Callable[[Given], Work | None]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    "linear": _linear,
    **dict.fromkeys(("matmul", "__matmul__", "linalg_matmul", "mm", "bmm", "mv", "dot", "vdot", "inner"), _product(0)),
    "__rmatmul__": _product(1),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _product(1)),
    "addbmm": _summed_product,
    "tensordot": _tensordot,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _whole_attention,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrence),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
    "embedding": lambda call: counts.fetch(call(0, "weight")),
}
