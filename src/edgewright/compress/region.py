"""A stretch of a network that is one affine map: what it is made of, as data, and the convolution it comes to."""

from collections.abc import Sequence
from math import gcd

import torch
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

PASSING = frozenset({"dropout", "feature_dropout", "clone", "contiguous", "alias", "detach"})


class Part(Frozen):
    """One operator of a stretch. layer: its name, or "" for an addition.   inputs: earlier parts by number, -1 for what
    the whole reads.   source, result: sides (H, W) of what it reads and gives."""

    layer: str
    inputs: tuple[int, ...]
    source: Pair
    result: Pair


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
        if not (_adds(step, shapes) or _is_layer(model, step)):
            return None
        number[step.name] = len(parts)
        parts.append(
            Part(
                layer=step.own if _is_layer(model, step) else "",
                inputs=tuple(number[name] for name in inputs),
                source=(shapes[0][2], shapes[0][3]),
                result=(step.shape[2], step.shape[3]),
            )
        )
    return tuple(parts) if parts and number[steps[-1].name] == len(parts) - 1 else None


def _adds(step: Step, shapes: Sequence[tuple[int, ...]]) -> bool:
    plain = step.operator in ("add", "add_") and not step.keywords
    return plain and len(shapes) == 2 and shapes[0] == shapes[1] == step.shape


def _is_layer(model: nn.Module, step: Step) -> bool:
    if step.owner is None or step.own != step.owner or len(step.inputs) != 1:
        return False
    module = model.get_submodule(step.owner)
    if step.operator == "conv2d" and type(module) is nn.Conv2d:
        return padding_of(module) is not None
    # Whatever class it is of: the operator says all, and an activation inside it is a step of its own.
    return step.operator == "batch_norm" and isinstance(module, nn.BatchNorm2d) and module.track_running_stats


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
    layers = [_layer(model, part) if part.layer else None for part in parts]
    first = next((layer for layer in layers if layer is not None), None)
    last = next((layer for layer in reversed(layers) if layer is not None), None)
    if first is None or last is None:
        return "there is no convolution in it"
    after: dict[int, Affine] = {len(parts) - 1: identity(last.weight.shape[0], last.weight)}
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
    whole = after.pop(-1)
    why = _misfit(whole, parts)
    return why or as_module(whole, _groups(model, parts), _dtype(model, parts), learns=_learns(model, parts))


def _misfit(map_: Affine, parts: Sequence[Part]) -> str | None:
    """Uneven kernels of branches can give a map whose output has another size."""
    source = next(part.source for part in parts if -1 in part.inputs)
    for axis in (0, 1):
        sides = source[axis] + 2 * map_.padding[axis] - map_.size[axis]
        if sides // map_.stride[axis] + 1 != parts[-1].result[axis]:
            return "its branches pad unevenly, so that one convolution would give another size"
    return None


def _layer(model: nn.Module, part: Part) -> Layer:
    module = model.get_submodule(part.layer)
    if isinstance(module, nn.BatchNorm2d):
        factor, shift = norm_as_scale(module)
        return Layer(factor[:, None, None, None], shift, (1, 1), (0, 0), len(factor), part.source, part.result)
    assert isinstance(module, nn.Conv2d)
    padding = padding_of(module)
    assert padding is not None
    return Layer(
        weight=_dilated(module.weight.detach(), (module.dilation[0], module.dilation[1])),
        bias=None if module.bias is None else module.bias.detach(),
        stride=(module.stride[0], module.stride[1]),
        padding=padding,
        groups=module.groups,
        source=part.source,
        result=part.result,
    )


def norm_as_scale(norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
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


def _groups(model: nn.Module, parts: Sequence[Part]) -> int:
    """Where every convolution is made of blocks, so is the merged one, in the blocks they have in common."""
    return gcd(*(conv.groups for conv in _convs(model, parts))) or 1


def _dtype(model: nn.Module, parts: Sequence[Part]) -> torch.dtype:
    return next((conv.weight.dtype for conv in _convs(model, parts)), torch.float32)


def _learns(model: nn.Module, parts: Sequence[Part]) -> bool:
    return any(conv.weight.requires_grad for conv in _convs(model, parts))
