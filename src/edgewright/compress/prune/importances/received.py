r"""Received: how much of what the next layers are given comes from a unit, by the network's own statistics.

    I_u = R_u M_u / mean over the group's units of the same
    R_u = sum over the readers' columns of w_ui^2
    M_u = product over the norms of a group with one maker, sum over those of several, of E[max(0, z)^2]

z is normal with the mean beta and the standard deviation |gamma| that a batch norm gives its channel, so that

    E[max(0, z)^2] = (beta^2 + gamma^2) Phi(beta / |gamma|) + beta |gamma| phi(beta / |gamma|)

Norms that follow each other can each shut a channel (they multiply), those of layers that are added cannot (they add).
Without batch norms M is 1, and so is R without readers. No data needed: what a network learned on stands in
its norms. EfficientNet-Lite0 at 3/4 of its inner channels, with a new head taught on 180 images of another task, tells
45 % of ten kinds of image where magnitude's choice tells 34 (`benchmarks/shrunk_importance.py`).

Source: our own; the product of weight and input is that of Sun et al., "A Simple and Effective Pruning Approach for
Large Language Models" (Wanda), ICLR 2024, arXiv:2306.11695, with norms in place of calibration data.
Checked against: loops over units, and sampling (tests/compress/test_importance.py).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgewright.compress.prune.groups import Group
from edgewright.compress.prune.importance import Batches, Loss
from edgewright.model.settle import NORMS


def received(model: nn.Module, groups: Sequence[Group], batches: Batches, loss: Loss) -> list[Tensor]:
    """See the top of this file; `batches` and `loss` are not looked at."""
    weights = {name: parameter.detach().cpu().double() for name, parameter in model.named_parameters()}
    norms = [name for name, module in model.named_modules() if isinstance(module, NORMS) and module.affine]
    scores = []
    for group in groups:
        reads = [m.rows(weights[m.tensor]).square().sum(1) for m in group.members
                 if m.role == "reads" and m.tensor in weights]  # fmt: skip
        moments = [
            _passed(m.rows(weights[m.tensor]), m.rows(weights[f"{m.owner}.bias"])).sum(1)
            for m in group.members
            if m.owner in norms and m.tensor == f"{m.owner}.weight"
        ]
        makers = sum(m.role == "makes" and m.tensor.endswith(".weight") for m in group.members)
        one = torch.ones(group.units, dtype=torch.float64)
        series = makers == 1 or not moments
        given = torch.stack([one, *moments]).prod(0) if series else torch.stack(moments).sum(0)
        found = given * (torch.stack(reads).sum(0) if reads else one)
        scores.append(found / found.mean().clamp_min(1e-30))
    return scores


def _passed(scale: Tensor, shift: Tensor) -> Tensor:
    """E[max(0, z)^2] of z ~ N(shift, scale^2)."""
    scale = scale.abs().clamp_min(1e-12)
    t = shift / scale
    below = torch.special.ndtr(t)
    density = torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi)
    return (shift.square() + scale.square()) * below + shift * scale * density
