r"""Taylor importance: how much the loss would change, to first order, without a unit.

    I_u = mean over batches of sum over the unit's parameters i of (w_i dL/dw_i)^2

over rows, columns and norms alike. In units of the loss squared, so layers can be held against each other as they are.
Norms use their running statistics: with a batch's own, the rows before a norm would have a sum w . dL/dw of zero.

Source: Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, arXiv:1906.10771, equation 8.
Checked against: loops over units and autograd (tests/compress/test_importance.py).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from edgewright.compress.prune.groups import Group
from edgewright.compress.prune.importance import Batches, Loss, by_first_order


def taylor(model: nn.Module, groups: Sequence[Group], batches: Batches, loss: Loss) -> list[Tensor]:
    """See the top of this file."""
    return by_first_order(model, groups, batches, loss, lambda products: products.square().sum(1))
