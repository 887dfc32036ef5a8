"""How labels of channels pass each operator: the table that `flow` follows. An operator that it lacks freezes them."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from edgewright.compress.prune.flow import HEADS, INNER, Axes, Axis, Flow, Operand, Rule
from edgewright.compress.wiring import POINTWISE, Step
from edgewright.ir.counts import depthwise

JOINED = {"add": "added up", "sub": "subtracted", "mul": "multiplied", "div": "divided", "matmul": "multiplied",
          "scaled_dot_product_attention": "multiplied"}  # fmt: skip


def _argument(step: Step, index: int, default: Any) -> Any:
    return step.arguments[index] if len(step.arguments) > index else default


def _tie_rows(flow: Flow, axis: np.ndarray, rows: int) -> np.ndarray:
    """Channels at the same place of each of `rows` equal parts go together; those of the first."""
    parts = axis.reshape(rows, -1)
    for part in parts[1:]:
        flow.tie(parts[0], part)
    return parts[0]


def _conv(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    source, weight, *bias = operands
    groups = int(_argument(step, 6, 1))
    channels, out = source.axes[1], weight.shape[0]
    if depthwise(groups, groups * weight.shape[1]):
        made = None if channels is None else np.repeat(channels, out // groups)
        flow.slice(weight.name, 0, made, "carries")
    else:
        made = flow.fresh(out)
        if channels is not None:
            channels = _tie_rows(flow, channels, groups)
        _tie_rows(flow, made, groups)
        flow.slice(weight.name, 1, channels, "reads")
        flow.slice(weight.name, 0, made, "makes")
    for operand in bias:
        flow.slice(operand.name, 0, made, "carries")
    return (None, made, *(None,) * (len(step.shape) - 2))


def _linear(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    source, weight, *bias = operands
    made = flow.fresh(weight.shape[0])
    flow.slice(weight.name, 1, source.axes[-1], "reads")
    flow.slice(weight.name, 0, made, "makes")
    for operand in bias:
        flow.slice(operand.name, 0, made, "carries")
    return (*source.axes[:-1], made)


def _by_channel(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    """Batch norm, PReLU: every parameter has one number for each channel."""
    source, *parameters = operands
    for operand in parameters:
        if operand.shape != (1,):
            flow.slice(operand.name, 0, source.axes[1], "carries")
    return source.axes


def _over_channels(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    """Norms whose statistics are over channels: with one channel less all others change."""
    source = operands[0]
    first = 1 if step.operator == "group_norm" else len(source.axes) - len(step.arguments[1])
    for axis in source.axes[first:]:
        flow.freeze(axis, f"{step.operator} {step.own} norms over these channels")
    return (*source.axes[:first], *(None,) * (len(source.axes) - first))


def _together(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    """Element by element, with broadcasting."""
    result: list[Axis] = []
    for axis in range(-len(step.shape), 0):
        size = step.shape[axis]
        full = [one for one in operands if len(one.shape) >= -axis and (one.shape[axis] == size)]
        streams = [one.axes[axis] for one in full if not one.name]
        known = [labels for labels in streams if labels is not None]
        if len(known) < len(streams) or not known or size == 1:
            for labels in known:
                flow.freeze(labels, f"they are {JOINED[step.operator.strip('_')]} with channels that stay")
            result.append(None)
            continue
        for labels in known[1:]:
            flow.tie(known[0], labels)
        for one in full:
            if one.name:
                flow.slice(one.name, len(one.shape) + axis, known[0], "carries")
        result.append(known[0])
    return tuple(result)


def _cat(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    dim = int(_argument(step, 1, 0)) % len(step.shape)
    result: list[Axis] = []
    for axis in range(len(step.shape)):
        parts = [one.axes[axis] for one in operands]
        known = [labels for labels in parts if labels is not None]
        if axis == dim:
            full = [
                flow.fresh(one.shape[axis]) if one.axes[axis] is None else one.axes[axis] for one in operands if known
            ]
            for one, labels in zip(operands, full, strict=False):
                if one.axes[axis] is None:
                    flow.freeze(labels, "")
            result.append(np.concatenate([labels for labels in full if labels is not None]) if known else None)
        elif len(known) < len(parts):
            for labels in known:
                flow.freeze(labels, "they are put beside others that stay")
            result.append(None)
        else:
            for labels in known[1:]:
                flow.tie(known[0], labels)
            result.append(known[0])
    return tuple(result)


def _pool(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    source = operands[0]
    for axis in source.axes[2:]:
        flow.freeze(axis, f"{step.operator} in {step.own or 'the network'} pools over these channels")
    return (*source.axes[:2], *(None,) * (len(step.shape) - 2))


def _mean(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    source, rank = operands[0], len(operands[0].shape)
    gone = {int(dim) % rank for dim in (_argument(step, 1, None) or range(rank))}
    for dim in gone:
        flow.freeze(source.axes[dim], f"{step.operator} in {step.own or 'the network'} is over these channels")
    left = [None if dim in gone else axis for dim, axis in enumerate(source.axes)]
    return tuple(left) if len(step.shape) == rank else tuple(left[dim] for dim in range(rank) if dim not in gone)


def _softmax(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    dim = int(step.arguments[1]) % len(step.shape)
    flow.freeze(operands[0].axes[dim], f"softmax in {step.own or 'the network'} is over these channels")
    return tuple(None if number == dim else axis for number, axis in enumerate(operands[0].axes))


def _permute(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    axes = list(operands[0].axes)
    if step.operator == "permute":
        return tuple(axes[int(dim)] for dim in step.arguments[1])
    a, b = (0, 1) if step.operator == "t" else (int(dim) for dim in step.arguments[1:3])
    axes[a], axes[b] = axes[b], axes[a]
    return tuple(axes)


def _several(flow: Flow, step: Step, operands: list[Operand]) -> list[Axes]:
    """chunk into equal parts, unbind into all."""
    source = operands[0]
    dim = int(_argument(step, 2 if step.operator == "chunk" else 1, 0)) % len(source.axes)
    along, before, after = source.axes[dim], source.axes[:dim], source.axes[dim + 1 :]
    if step.operator == "unbind":
        flow.freeze(along, f"unbind in {step.own or 'the network'} tells these channels apart")
        return [(*before, *after)] * source.shape[dim]
    count = int(step.arguments[1])
    if along is not None and source.shape[dim] % count == 0:
        _tie_rows(flow, along, count)
        return [(*before, part, *after) for part in along.reshape(count, -1)]
    flow.freeze(along, f"chunk in {step.own or 'the network'} gives unequal parts")
    return [(*before, None, *after)] * count


def _item(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    axes: Any = operands[0].axes
    return axes[int(step.arguments[1])] if isinstance(axes, list) else (None,) * len(step.shape)


def _attention(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    """softmax(q k') v over (..., tokens, features): the axes before are the heads'."""
    for one in operands:
        for axis in one.axes[-2:]:
            flow.freeze(axis, f"attention in {step.own or 'the network'} works on whole heads")
    whole = [Operand("", one.shape[:-2], one.axes[:-2]) for one in operands]
    heads = Step(**{**vars(step), "shape": step.shape[:-2]})
    return (*_together(flow, heads, whole), None, None)


def _matmul(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    a, b = operands
    for axis in (a.axes[-1], b.axes[-2]):
        flow.freeze(axis, f"matmul in {step.own or 'the network'} sums over these channels")
    whole = [Operand(one.name, one.shape[:-2], one.axes[:-2]) for one in operands]
    heads = Step(**{**vars(step), "shape": step.shape[:-2]})
    return (*_together(flow, heads, whole), a.axes[-2], b.axes[-1])


def _pad(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    pads, axes = list(step.arguments[1]), list(operands[0].axes)
    for number, axis in enumerate(range(len(axes) - 1, len(axes) - 1 - len(pads) // 2, -1)):
        if pads[2 * number] or pads[2 * number + 1]:
            flow.freeze(axes[axis], f"channels are padded in {step.own or 'the network'}")
            axes[axis] = None
    return tuple(axes)


def _slice(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    dim, axes = int(_argument(step, 1, 0)), list(operands[0].axes)
    if step.operator == "select":
        flow.freeze(axes[dim], f"channels are picked in {step.own or 'the network'}")
        del axes[dim]
    elif step.shape[dim] != operands[0].shape[dim]:
        flow.freeze(axes[dim], f"channels are picked in {step.own or 'the network'}")
        axes[dim] = None
    return tuple(axes)


def _reshape(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    source, result = operands[0], []
    for old, new in _blocks(source.shape, step.shape):
        sizes = [step.shape[axis] for axis in new]
        labelled = [axis for axis in old if source.axes[axis] is not None]
        wide = [number for number, size in enumerate(sizes) if size > 1]
        made: list[Axis] = [None] * len(new)
        if len(labelled) == 1 and len(wide) == 1:  # into one axis, those beside it counted with each channel
            shape = [source.shape[axis] for axis in old]
            at = [len(source.axes[axis]) if axis in labelled else 1 for axis in old]  # pyright: ignore
            labels = source.axes[labelled[0]]
            assert labels is not None
            merged = np.broadcast_to(labels.reshape(at), shape).ravel()
            made[wide[0]] = merged
            if sum(size > 1 for size in shape) > 1:
                flow.set_by(step.own, INNER, merged)
        elif len(labelled) == 1 and len(old) == 1:
            made = _split(flow, step, source.axes[old[0]], sizes)
        else:
            for axis in labelled:
                flow.freeze(source.axes[axis], f"{step.operator} in {step.own or 'the network'} rearranges them")
        result += made
    return tuple(result)


def _split(flow: Flow, step: Step, labels: Axis, sizes: list[int]) -> list[Axis]:
    """One axis into several, of which one is the heads: a head is removed as a whole."""
    made: list[Axis] = [None] * len(sizes)
    assert labels is not None
    for axis in range(len(sizes) - 2, -1, -1):
        parts = np.moveaxis(labels.reshape(sizes), axis, 0).reshape(sizes[axis], -1)
        if flow.set_by(step.own, HEADS, parts[:, 0]) is not None:
            for column in parts.T[1:]:
                flow.tie(parts[:, 0], column)
            made[axis] = parts[:, 0]
            return made
    flow.freeze(labels, f"{step.operator} in {step.own or 'the network'} splits them into parts that are not heads")
    return made


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of axes of equal size on both sides."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        left, right = [i], [j]
        while (a := prod(old[x] for x in left)) != (b := prod(new[x] for x in right)):
            (left if a < b else right).append((left if a < b else right)[-1] + 1)
        blocks.append((left, right))
        i, j = left[-1] + 1, right[-1] + 1
    if blocks:  # ones at the end
        blocks[-1][0].extend(range(i, len(old)))
        blocks[-1][1].extend(range(j, len(new)))
    return blocks


def _unchanged(flow: Flow, step: Step, operands: list[Operand]) -> Axes:
    return operands[0].axes


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(POINTWISE, _unchanged),
    **dict.fromkeys(("dropout", "clone", "contiguous", "detach", "alias", "mish", "softplus"), _unchanged),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    "linear": _linear,
    **dict.fromkeys(("batch_norm", "prelu"), _by_channel),
    **dict.fromkeys(("layer_norm", "group_norm", "rms_norm"), _over_channels),
    **dict.fromkeys(("add", "add_", "sub", "mul", "mul_", "div"), _together),
    "cat": _cat,
    **dict.fromkeys(("adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "upsample_nearest2d"), _pool),
    **dict.fromkeys(("mean", "sum", "amax"), _mean),
    "softmax": _softmax,
    **dict.fromkeys(("permute", "transpose", "t"), _permute),
    **dict.fromkeys(("chunk", "unbind"), _several),
    "getitem": _item,
    "scaled_dot_product_attention": _attention,
    "matmul": _matmul,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **dict.fromkeys(("slice", "select"), _slice),
    **dict.fromkeys(("flatten", "reshape", "view", "unsqueeze", "squeeze", "unflatten"), _reshape),
}
