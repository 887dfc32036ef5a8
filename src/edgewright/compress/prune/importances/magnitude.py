r"""Magnitude: how large the numbers of a unit are.

    I_u = sqrt(sum over the group's parameters of sum_i w_ui^2) / mean over the group's units of the same

over everything that belongs to the unit: its rows, its columns, its norm's scale and shift (running statistics are no
weights). Divided by the group's mean, so that layers of different scale can be held against each other; a unit's share
among its own, then, not its worth for the network. No data needed.

Differs from the paper: L2 over the whole group in place of L1 over the rows, as in DepGraph.
Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv:1608.08710; Fang et al., "DepGraph",
CVPR 2023, arXiv:2301.12900, section 3.3. Checked against: loops over units (tests/compress/test_importance.py).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgewright.compress.prune.groups import Group
from edgewright.compress.prune.importance import Batches, Loss


def magnitude(model: nn.Module, groups: Sequence[Group], batches: Batches, loss: Loss) -> list[Tensor]:
    """See the top of this file; `batches` and `loss` are not looked at."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    scores = []
    for group in groups:
        squares = torch.zeros(group.units, dtype=torch.float64)
        for member in group.members:
            if member.tensor in weights:
                squares += member.rows(weights[member.tensor]).double().square().sum(1).cpu()
        norms = squares.sqrt()
        scores.append(norms / norms.mean().clamp_min(1e-30))
    return scores
