"""A network's cost as a sum of parts, each a function of what is left of the groups of channels.

    latency     sum of the prices of pieces, an operator with what the runtime fuses into it, at their widths
    MACs        sum over layers and products

What a piece costs at some widths is the device's to say (`device.widths` measures it). Operators that have no piece of
their own kind are priced by a near one: matrix products of attention as 1x1 convolutions of as many multiply-adds,
norms over channels and smooth activations as x sigmoid(x). Whole networks are measured afterwards and correct the sum.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from edgewright.compress.prune.groups import Dependencies, Width, proportional
from edgewright.compress.wiring import POINTWISE, Step
from edgewright.device.table.pieces import Piece
from edgewright.ir.op import Kind
from edgewright.ir.sizes import Size, plain

Left = Sequence[int]
Prices = Callable[[Piece], float]
SMOOTH = {"gelu", "silu", "silu_", "hardswish", "hardswish_", "layer_norm", "group_norm", "softmax", "mish", "elu"}
JOINING: Mapping[str, Kind] = {"add": "add", "add_": "add", "mul": "mul", "mul_": "mul"}
LARGER: Mapping[str, Kind] = {
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d"), "conv_transpose"),
    "upsample_nearest2d": "upsample_nearest", "upsample_bilinear2d": "upsample_linear",
}  # fmt: skip
FUSED = {"relu", "relu_", "hardtanh", "hardtanh_", "relu6", "clamp", "leaky_relu", "sigmoid", "hardsigmoid"}


@dataclass(frozen=True)
class Part:
    """steps: of the wiring.   groups: whose widths it depends on.   cost: for so many units left of each group."""

    steps: tuple[str, ...]
    groups: tuple[int, ...]
    cost: Callable[[Left], float]


def macs_parts(found: Dependencies) -> list[Part]:
    """Multiply-adds of each layer."""

    def part(name: str, step: Step) -> Part:
        widths = [width for width, _ in proportional(found, step)]
        return Part((name,), _groups(*widths), lambda left: found.layer_macs(name, left))

    return [part(name, step) for name, step in found.wiring.steps.items() if step.macs]


def latency_parts(found: Dependencies, prices: Prices) -> list[Part]:
    """Milliseconds of each piece."""

    def part(timed: "Timed") -> Part:
        return Part(timed.steps, timed.groups, lambda left: sum(prices(piece) for piece in timed.pieces(left)) / 1e3)

    return [part(timed) for timed in timed_steps(found)]


@dataclass(frozen=True)
class Timed:
    """What runs together; its pieces for so many units left of each group."""

    steps: tuple[str, ...]
    groups: tuple[int, ...]
    pieces: Callable[[Left], tuple[Piece, ...]]


def timed_steps(found: Dependencies) -> list[Timed]:
    """All that takes time in a network, in running order."""
    taken: set[str] = set()
    result: list[Timed] = []
    for name, step in found.wiring.steps.items():
        if name in taken:
            continue
        make = MAKERS.get(step.operator)
        if make is not None:
            timed = make(found, step, taken)
            taken.update(timed.steps)
            result.append(timed)
    return result


def _groups(*widths: Width) -> tuple[int, ...]:
    return tuple(dict.fromkeys(group for width in widths for group, _ in width.parts))


def _layer(found: Dependencies, step: Step, taken: set[str]) -> Timed:
    """A convolution, or a linear layer on tokens, with the addition and activation that the runtime works into it."""
    tokens = step.operator == "linear"
    axis = -1 if tokens else 1
    source, result = found.width(step.inputs[0], axis), found.width(step.name, axis)
    before, after = found.wiring.shape(step.inputs[0]), step.shape
    place = (_spatial(before, axis), _spatial(after, axis))
    kernel: Size = 1 if tokens else plain(_spatial(step.weight, 1))
    stride, dilation = (1, 1) if tokens else (_option(step, 3), _option(step, 5))
    ways = int(step.arguments[6]) if not tokens and len(step.arguments) > 6 else 1
    each = step.work is not None and step.work.layer == "depthwise"
    fused = [] if tokens else _fused(found, step, taken)
    add, activation = (any(found.wiring.steps[name].operator in kinds for name in fused) for kinds in (JOINING, FUSED))

    def pieces(left: Left) -> tuple[Piece, ...]:
        a, b = source.at(left), result.at(left)
        if len(after) == 2:
            return (Piece("linear", (a,), (b,)),)
        groups = a if each else ways
        return (Piece("conv", (a, *place[0]), (b, *place[1]), kernel, stride, groups, add, activation, dilation),)

    return Timed((step.name, *fused), _groups(source, result), pieces)


def _larger(found: Dependencies, step: Step, taken: set[str]) -> Timed:
    """What makes images larger: a transposed convolution, or pixels repeated or drawn out."""
    source, result = found.width(step.inputs[0], 1), found.width(step.name, 1)
    before, after = _spatial(found.wiring.shape(step.inputs[0]), 1), _spatial(step.shape, 1)
    kind: Kind = LARGER[step.operator]
    kernel: Size = plain(_spatial(step.weight, 1)) if step.weight else 1
    stride = _option(step, 3) if step.weight else 1
    ways = int(step.arguments[6]) if step.weight and len(step.arguments) > 6 else 1

    def pieces(left: Left) -> tuple[Piece, ...]:
        return (Piece(kind, (source.at(left), *before), (result.at(left), *after), kernel, stride, ways),)

    return Timed((step.name,), _groups(source, result), pieces)


def _option(step: Step, index: int) -> Size:
    """A stride or dilation along the two axes that pieces have: one number may stand for all axes, several are lined
    up."""
    axes = len(step.weight) - 2
    value = step.arguments[index] if len(step.arguments) > index else 1
    each = list(value) * (axes if len(value) == 1 else 1) if isinstance(value, Sequence) else [value] * axes
    return plain((each[0], each[1]) if axes == 2 else (prod(each), 1))


def _spatial(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    sizes = shape[2:] if axis == 1 else shape[1:-1]
    return sizes if len(sizes) == 2 else (prod(sizes), 1)


def _fused(found: Dependencies, step: Step, taken: set[str]) -> list[str]:
    """The norm, addition and activation behind a convolution, each the only reader of the one before."""
    names: list[str] = []
    wanted = [{"batch_norm", "dropout"}, {"dropout"}, {"add", "add_"}, FUSED]
    at = step
    for kinds in wanted:
        reader = found.wiring.steps.get(at.readers[0]) if len(at.readers) == 1 else None
        if reader is not None and reader.operator in kinds and reader.name not in taken:
            names.append(reader.name)
            at = reader
    return names


def _plain(found: Dependencies, step: Step, taken: set[str]) -> Timed:
    """Element by element, and poolings."""
    source = found.wiring.shape(step.inputs[0])
    axis = 1 if len(source) in (2, 4) else -1
    width = found.width(step.inputs[0], axis % len(source))
    sizes = () if len(source) == 2 else _spatial(source, axis)
    pooling = "pool" in step.operator or step.operator == "mean"
    whole = pooling and prod(step.shape[2:]) <= 1
    kind: Kind = "global_pool" if whole else "swish" if step.operator in SMOOTH else JOINING.get(step.operator, "relu")

    def pieces(left: Left) -> tuple[Piece, ...]:
        here = (width.at(left), *sizes)
        if kind == "global_pool" and len(here) == 3:
            return (Piece(kind, here, (here[0], 1, 1)),)
        return (Piece("relu" if kind == "global_pool" else kind, here, here),)

    return Timed((step.name,), _groups(width), pieces)


def _attention(found: Dependencies, step: Step, taken: set[str]) -> Timed:
    """q k', its softmax, and the product with v: (batch, heads, tokens, size)."""
    _, _, tokens, size = found.wiring.shape(step.inputs[0])
    width = found.width(step.inputs[0], 1)

    def pieces(left: Left) -> tuple[Piece, ...]:
        heads = width.at(left)
        inner, pairs = (heads * size, tokens, 1), (tokens, tokens, 1)
        scores = (heads * tokens, tokens, 1)
        return Piece("conv", inner, pairs), Piece("swish", scores, scores), Piece("conv", pairs, inner)

    return Timed((step.name,), _groups(width), pieces)


MAKERS: dict[str, Callable[[Dependencies, Step, set[str]], Timed]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "linear"), _layer),
    **dict.fromkeys((*POINTWISE, *SMOOTH, *JOINING, "sub", "div", "prelu"), _plain),
    **dict.fromkeys(("adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "mean", "cat"), _plain),
    **dict.fromkeys(LARGER, _larger),
    "scaled_dot_product_attention": _attention,
}
