r"""Fold every batch norm into the convolution or linear layer that it alone reads.

    W' = W gamma / sqrt(var + eps)        b' = (b - mean) gamma / sqrt(var + eps) + beta

Exact up to rounding in use; in training the statistics would no longer move, so it is the last thing before shipping,
or the first before quantising. A layer that is used more than once, one whose output has a second reader, and a norm
without running statistics are left alone by name.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, arXiv:1712.05877, section 3.2. Checked against: the network before, random statistics, float64 to 1e-10
(tests/compress/test_fold_batch_norm.py).
"""

from typing import Literal

import torch
from torch import nn

from edgewright.compress.base import Declined, Found, Rewrite, Saving, replace, saved_by
from edgewright.compress.region import norm_as_scale
from edgewright.compress.wiring import Step, Wiring

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class Fold(Rewrite):
    """layers: the convolution or linear layer, and the batch norm after it, which becomes an identity.
    remains: names of the norm's own children that stay in its place, for a norm with an activation inside."""

    kind: Literal["fold_batch_norm"] = "fold_batch_norm"
    remains: tuple[str, ...] = ()

    def carry_out(self, model: nn.Module) -> None:
        layer, norm = (model.get_submodule(name) for name in self.layers)
        if not isinstance(layer, LAYERS) or not isinstance(norm, NORMS):
            raise TypeError(f"{self.layers[0]} and {self.layers[1]} are no layer and its batch norm")
        _fold(layer, norm)
        children = [norm.get_submodule(name) for name in self.remains]
        replace(model, self.layers[1], nn.Sequential(*children) if children else nn.Identity())


def _fold(layer: nn.Module, norm: nn.Module) -> None:
    assert isinstance(layer, LAYERS)
    assert isinstance(norm, NORMS)
    factor, shift = norm_as_scale(norm)
    weight, bias, learns = layer.weight.detach(), layer.bias, layer.weight.requires_grad
    if bias is not None:
        shift = shift + bias.detach().double() * factor
    scaled = weight.double() * factor.reshape(-1, *(1,) * (weight.dim() - 1))
    layer.weight = nn.Parameter(scaled.to(weight.dtype), requires_grad=learns)
    layer.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=learns)


def find(model: nn.Module, wiring: Wiring) -> Found:
    """All pairs of a layer and the batch norm that alone reads it."""
    rewrites: list[Rewrite] = []
    declined: list[Declined] = []
    for step in wiring.steps.values():
        source = wiring.steps.get(step.inputs[0]) if step.operator == "batch_norm" else None
        if source is None or source.owner is None or step.owner is None:
            continue
        layer, norm = model.get_submodule(source.owner), model.get_submodule(step.owner)
        if not isinstance(layer, LAYERS) or not isinstance(norm, NORMS):
            continue
        pair, remains = (source.owner, step.owner), _remains(wiring, step)
        by_hand = source.own != source.owner or step.own != step.owner or source.weight != tuple(layer.weight.shape)
        reasons = (
            wiring.once(pair[0]) or wiring.once(pair[1]),
            len(source.readers) > 1
            and f"what {pair[0]} gives is read by {len(source.readers)} others: {', '.join(source.readers)}",
            by_hand and f"{pair[0]} or {pair[1]} is used by hand, not called",
            not norm.track_running_stats and f"{pair[1]} keeps no running statistics",
            remains is None and f"{pair[1]} does more than norm",
            isinstance(layer, nn.Linear)
            and len(source.shape) != 2
            and f"{pair[1]} does not norm what {pair[0]} gives along the channels",
        )
        why = next(filter(None, reasons), None)
        if why:
            if pair not in {one.layers for one in declined}:
                declined.append(Declined(kind="fold_batch_norm", layers=pair, why=why))
            continue
        rewrites.append(Fold(layers=pair, remains=remains or (), saves=_saving(layer, norm)))
    return Found(rewrites=tuple(rewrites), declined=tuple(declined))


def _remains(wiring: Wiring, step: Step) -> tuple[str, ...] | None:
    """The children of a norm that work on what it gives, one after the other; None where there is more in it."""
    names: list[str] = []
    before = step.name
    for later in wiring.by_module[step.own]:
        if later.name == step.name:
            continue
        name = later.own[len(step.own) + 1 :]
        if not name or "." in name or name in names or later.inputs != (before,):
            return None
        names.append(name)
        before = later.name
    return tuple(names)


def _saving(layer: nn.Module, norm: nn.Module) -> Saving:
    bias = torch.empty(layer.weight.shape[0], dtype=layer.weight.dtype, device="meta")  # pyright: ignore
    added = nn.ParameterList([nn.Parameter(bias)]) if layer.bias is None else nn.ParameterList()
    return saved_by([norm], [added], 0, 1)
