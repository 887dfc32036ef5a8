"""A stretch of a network that is one affine map: what it is made of, as data, and the convolution it comes to."""

from collections.abc import Sequence
from math import gcd
from typing import Any

from torch import Tensor, nn

from edgewright.compress.affine import (
    Affine,
    Layer,
    Pair,
    as_module,
    before,
    identity,
    inexact,
    together,
    without_constant,
)
from edgewright.compress.wiring import Step, Wiring
from edgewright.core.data import Frozen
from edgewright.ir import counts

PASSING = frozenset({"dropout", "feature_dropout", "clone", "contiguous", "alias", "detach"})


class Part(Frozen):
    """One operator of a stretch. layer: its name, or "" for an addition or a padding.   inputs: earlier parts by
    number, -1 for what the whole reads.   source, result: sides (H, W) of what it reads and gives.   channels: that it
    gives.   stride, dilation, groups: of a convolution, as it is called (0 groups: it is none).   padding: zeros above,
    left, below, right."""

    layer: str
    inputs: tuple[int, ...]
    source: Pair
    result: Pair
    channels: int
    stride: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 0


def parts_of(model: nn.Module, wiring: Wiring, steps: Sequence[Step], source: str) -> tuple[Part, ...] | None:
    """The steps as parts; None where one of them is no convolution, batch norm or addition of two equal shapes."""
    number: dict[str, int] = {source: -1}
    parts: list[Part] = []
    for step in steps:
        if step.operator in PASSING and step.inputs[0] in number:
            number[step.name] = number[step.inputs[0]]
            continue
        inputs = step.inputs
        shapes = [wiring.shape(name) for name in inputs]
        if any(name not in number for name in inputs) or any(len(shape) != 4 for shape in (*shapes, step.shape)):
            return None
        called = _called(model, step, shapes)
        if called is None:
            return None
        number[step.name] = len(parts)
        parts.append(
            Part(
                inputs=tuple(number[name] for name in inputs),
                source=(shapes[0][2], shapes[0][3]),
                result=(step.shape[2], step.shape[3]),
                channels=step.shape[1],
                **called,
            )
        )
    return tuple(parts) if parts and number[steps[-1].name] == len(parts) - 1 else None


def _called(model: nn.Module, step: Step, shapes: Sequence[tuple[int, ...]]) -> dict[str, Any] | None:
    """The layer of a step and the options it is called with; None for an operator that is no affine map here."""
    if step.keywords or not step.inputs:
        return None
    if step.operator in ("add", "add_"):
        return {"layer": ""} if len(shapes) == 2 and shapes[0] == shapes[1] == step.shape else None
    if len(step.inputs) != 1:
        return None
    if step.operator in ("pad", "constant_pad_nd"):
        return _padding(step)
    if step.owner is None or step.own != step.owner:
        return None
    module = model.get_submodule(step.owner)
    # Whatever class these are of: the operator says all; what else is in them are steps of their own.
    if step.operator == "batch_norm" and isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
        return {"layer": step.owner}
    if step.operator != "conv2d" or not isinstance(module, nn.Conv2d) or step.weight != tuple(module.weight.shape):
        return None
    stride, padding, dilation, groups = [*step.arguments[3:], *([1], [0], [1], 1)[len(step.arguments[3:]) :]]
    dilation = _pair(dilation)
    if isinstance(padding, str):
        spans = [dilation[axis] * (step.weight[2 + axis] - 1) if padding == "same" else 0 for axis in (0, 1)]
        sides = (spans[0] // 2, spans[1] // 2, -(-spans[0] // 2), -(-spans[1] // 2))
    else:
        sides = (*_pair(padding), *_pair(padding))
    return {"layer": step.owner, "stride": _pair(stride), "padding": sides, "dilation": dilation, "groups": groups}


def _padding(step: Step) -> dict[str, Any] | None:
    sides, rest = step.arguments[1], [argument for argument in step.arguments[2:] if argument is not None]
    if len(sides) != 4 or min(sides) < 0 or any(argument not in ("constant", 0) for argument in rest):
        return None
    left, right, above, below = sides
    return {"layer": "", "padding": (above, left, below, right)}


def _pair(sides: Sequence[int]) -> Pair:
    return (sides[0], sides[-1])


def padding_of(conv: nn.Module) -> Pair | None:
    """The zeros on either side, rows and columns; None for other paddings, and for uneven ones."""
    assert isinstance(conv, nn.Conv2d)
    if conv.padding_mode != "zeros":
        return None
    if isinstance(conv.padding, str):
        total = [
            d * (k - 1) if conv.padding == "same" else 0 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)
        ]
        return None if any(side % 2 for side in total) else (total[0] // 2, total[1] // 2)
    return conv.padding[0], conv.padding[1]


def merged_module(model: nn.Module, parts: Sequence[Part]) -> nn.Module | str:
    """The one convolution that the parts come to; or why there is none, in a sentence.

    From the back: what follows a part is known as one map, with which the part becomes a longer one. A sum hands its
    map to both its inputs, the constant to the first only.
    """
    layers = [_layer(model, part) if part.layer or len(part.inputs) == 1 else None for part in parts]
    owner = next((model.get_submodule(part.layer) for part in parts if part.groups), None)
    if owner is None:
        return "there is no convolution in it"
    like = next(owner.parameters())
    after: dict[int, Affine] = {len(parts) - 1: identity(parts[-1].channels, like)}
    for number in reversed(range(len(parts))):
        then, layer = after.pop(number, None), layers[number]
        if then is None:
            return f"what {parts[number].layer or 'an addition'} gives is not read"
        for place, source in enumerate(parts[number].inputs):
            if layer is None:
                map_ = without_constant(then) if place else then
            else:
                why = inexact(layer, then)
                if why:
                    return why
                map_ = before(layer, then)
            held = after.get(source)
            joined = map_ if held is None else together(held, map_)
            if joined is None:
                return "branches of different strides meet in it"
            after[source] = joined
    source = next(part.source for part in parts if -1 in part.inputs)
    learns = any(conv.weight.requires_grad for conv in _convs(model, parts))
    try:
        return as_module(after.pop(-1), _groups(parts), like.dtype, source, parts[-1].result, learns=learns)
    except ValueError as error:
        return str(error)


def _layer(model: nn.Module, part: Part) -> Layer:
    module = model.get_submodule(part.layer) if part.layer else None
    if isinstance(module, nn.BatchNorm2d):
        weight, bias = norm_as_scale(module)
        weight, groups = weight[:, None, None, None], part.channels
    elif isinstance(module, nn.Conv2d):
        weight, bias, groups = _dilated(module.weight.detach(), part.dilation), module.bias, part.groups
    else:  # a padding: each channel as it is, with zeros around
        like = next(model.parameters())
        weight, bias, groups = like.new_ones(part.channels, 1, 1, 1), None, part.channels
    above, left, below, right = part.padding
    return Layer(
        weight=weight,
        bias=None if bias is None else bias.detach(),
        stride=part.stride,
        padding=(above, left),
        groups=groups,
        source=part.source,
        result=part.result,
        pads=(above + below > 0, left + right > 0),
    )


def norm_as_scale(norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation mode as factor and shift, float64:  gamma / sqrt(var + eps),  beta - mean factor."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.detach().double()
    shift = -norm.running_mean.double() * factor
    return factor, shift if norm.bias is None else shift + norm.bias.detach().double()


def _dilated(weight: Tensor, dilation: Pair) -> Tensor:
    if dilation == (1, 1):
        return weight
    size = [dilation[axis] * (weight.shape[2 + axis] - 1) + 1 for axis in (0, 1)]
    wide = weight.new_zeros(*weight.shape[:2], *size)
    wide[:, :, :: dilation[0], :: dilation[1]] = weight
    return wide


def _convs(model: nn.Module, parts: Sequence[Part]) -> list[nn.Conv2d]:
    modules = [model.get_submodule(part.layer) for part in parts if part.layer]
    return [module for module in modules if isinstance(module, nn.Conv2d)]


def _groups(parts: Sequence[Part]) -> int:
    """Where every convolution is made of blocks, so is the merged one, in the blocks they have in common."""
    return gcd(*(part.groups for part in parts)) or 1


def macs_of(merged: nn.Module, parts: Sequence[Part]) -> int:
    """Multiply-adds of the convolution that a stretch came to, for one input."""
    conv = next(module for module in merged.modules() if isinstance(module, nn.Conv2d))
    return counts.convolution(conv.weight.shape, (conv.out_channels, *parts[-1].result), conv.groups).macs
