r"""Network slimming: a channel by the size of its batch norm's scale.

    I_u = mean over the unit's batch norms of |gamma_u|

Compared over the whole network, as in the paper, whose training adds an L1 penalty on the scales: put
`scale_penalty(model)` times 1e-4 on the loss for it. Groups without a batch norm cannot be judged so and stay: their
units score infinity. No data needed.

Source: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017, arXiv:1708.06519.
Checked against: loops over units (tests/compress/test_importance.py).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgewright.compress.prune.groups import Group
from edgewright.compress.prune.importance import Batches, Loss
from edgewright.model.settle import NORMS


def network_slimming(model: nn.Module, groups: Sequence[Group], batches: Batches, loss: Loss) -> list[Tensor]:
    """See the top of this file; `batches` and `loss` are not looked at."""
    scales = {f"{name}.weight": scale.detach() for name, scale in _scales(model).items()}
    scores = []
    for group in groups:
        found = [member.rows(scales[member.tensor]) for member in group.members if member.tensor in scales]
        none = torch.full((group.units,), float("inf"), dtype=torch.float64)
        scores.append(torch.cat(found, 1).double().abs().mean(1).cpu() if found else none)
    return scores


def scale_penalty(model: nn.Module) -> Tensor:
    """sum |gamma| over all batch norms: the term of the sparsity training."""
    return torch.stack([scale.abs().sum() for scale in _scales(model).values()]).sum()


def _scales(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: module.weight for name, module in model.named_modules() if isinstance(module, NORMS) and module.affine
    }
