r"""FPGM: a channel that lies in the middle of the others can be replaced by them.

    I_u = sum_v ||F_u - F_v||_2 / mean over the group of the same          F_u: the rows of unit u, all that make it

Small near the geometric median of the layer's filters, whatever their size. Divided by the group's mean, so that layers
can be held against each other (the paper prunes every layer by one rate instead). No data needed.

Source: He et al., "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks Acceleration", CVPR 2019,
arXiv:1811.00250. Checked against: loops over pairs (tests/compress/test_importance.py).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgewright.compress.prune.groups import Group
from edgewright.compress.prune.importance import Batches, Loss


def fpgm(model: nn.Module, groups: Sequence[Group], batches: Batches, loss: Loss) -> list[Tensor]:
    """See the top of this file; `batches` and `loss` are not looked at."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    scores = []
    for group in groups:
        made = [member.rows(weights[member.tensor]) for member in group.members if member.role == "makes"]
        filters = torch.cat(made, 1).double().cpu()
        distances = torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
        scores.append(distances / distances.mean().clamp_min(1e-30))
    return scores
