"""Networks of several inputs or outputs, for proxies, which know one of each: everything laid end to end.

    x = [flat(x_1), flat(x_2), ...]  (N, F),     y = [flat(y_1), ...]  (N, G)

Scores read gradients, activations and sums, which do not depend on how numbers are laid out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.core.tensors import ask, leaves
from edgewright.proxy.base import Batch, Loss


class EndToEnd(nn.Module):
    """A network that takes and gives one vector a sample. shapes: of its inputs by name; one without a name is
    alone."""

    def __init__(self, network: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.network = network
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.given: dict[str, tuple[int, ...]] = {}  # of the last outputs

    def forward(self, x: Tensor) -> Tensor:
        outputs = ask(self.network, parted(x, self.shapes))
        named = outputs if isinstance(outputs, Mapping) else {"": outputs}
        self.given = {name: tuple(y.shape[1:]) for name, y in named.items()}
        return joined(outputs)


def joined(tree: Any) -> Tensor:
    """(N, F): all tensors of a tree end to end."""
    return torch.cat([leaf.flatten(1) for leaf in leaves(tree)], 1)


def parted(x: Tensor, shapes: Mapping[str, Sequence[int]]) -> Any:
    """The tree that `joined` made into one; of one tensor without a name, that tensor."""
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    parts = x.split(sizes, 1)
    found = {name: part.unflatten(1, shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
    return found[""] if list(found) == [""] else found


def end_to_end(
    network: nn.Module, batches: Sequence[tuple[Any, Any]], loss: Loss
) -> tuple[nn.Module, Sequence[Batch], Loss]:
    """What proxies take; a network of one input and one output as it is."""
    inputs, targets = batches[0]
    if not isinstance(inputs, Mapping) and not isinstance(targets, Mapping):
        return network, batches, loss
    named = inputs if isinstance(inputs, Mapping) else {"": inputs}
    whole = EndToEnd(network, {name: x.shape[1:] for name, x in named.items()})

    def judged(outputs: Tensor, wanted: Any) -> Tensor:
        return loss(parted(outputs, whole.given), wanted)

    return whole, [(joined(x), y) for x, y in batches], judged
