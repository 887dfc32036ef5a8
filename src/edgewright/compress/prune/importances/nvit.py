r"""NViT's importance: what a unit does to the loss as a whole, squared.

    I_u = mean over batches of (sum over the unit's parameters i of w_i dL/dw_i)^2

The paper derives it from the change of a trained network's loss by its Hessian, w' H w / 2, with the Hessian of the
negative log likelihood replaced by the mean square of gradients. Against `taylor` the sum comes before the square:
parameters that cancel each other count for nothing.

Left to the allocation (`prune`): the paper ranks by I_u - eta (time saved); here it is I_u a millisecond saved, from
measured times, which needs no eta. The paper's rounds of pruning inside training, its coupled sizes (embedding, heads,
query-key and value) and its redistribution rule are not here: heads and hidden units are what goes.
Source: Yang et al., "Global Vision Transformer Pruning with Hessian-Aware Saliency" (NViT), CVPR 2023,
arXiv:2110.04869, section 3. Checked against: loops over units and autograd (tests/compress/test_importance.py).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from edgewright.compress.prune.groups import Group
from edgewright.compress.prune.importance import Batches, Loss, by_first_order


def nvit(model: nn.Module, groups: Sequence[Group], batches: Batches, loss: Loss) -> list[Tensor]:
    """See the top of this file."""
    return by_first_order(model, groups, batches, loss, lambda products: products.sum(1).square())
