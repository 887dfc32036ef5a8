"""Gradient filtering on a network of one's own, in one line around its training loop."""

import contextlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn

from edgewright.backward.base import CONVS, swapped
from edgewright.backward.rules.gradient_filter import GradientFilter
from edgewright.core.errors import BadInput


@contextlib.contextmanager
def filtered(
    model: nn.Module, patch: int = 2, *, only: Sequence[str] = ("*",), exact_inputs: bool = False
) -> Iterator[nn.Module]:
    """The network with a backward of convolutions on patches in place of pixels; its outputs stay equal bit by bit.

        with edgewright.backward.filtered(net, patch=2):
            ...  # your own training loop, as it is

    Of a convolution's input about 1 / patch^2 is kept for the backward pass, and the products of the backward shrink
    by patch^2 times the kernel's taps. Gradients become approximate; `exact_inputs` keeps those that are passed on to
    earlier layers exact, at the cost of their multiply-adds, so that errors do not add up from layer to layer.

    Args:
        patch: pixels a side; 2, 4 and 8 are usual.
        only: patterns of names of the convolutions that it is for, 1-d, 2-d and 3-d, of any groups and stride; all by
            default. What does not learn (`requires_grad`) is not touched.
        exact_inputs: whether the gradients of inputs are exact.
    Errors: BadInput where no convolution is among `only`, and one that has another backward already.
    More: `backward.plan` chooses a method for each layer inside a memory budget.   Source: Yang et al., CVPR 2023,
        arXiv:2301.00330; see `backward.rules.gradient_filter` for the equation and what differs.
    """
    convolutions = [name for name, layer in model.named_modules() if isinstance(layer, CONVS)]
    chosen = [name for name in convolutions if any(fnmatchcase(name, pattern) for pattern in only)]
    if not chosen:
        have = ", ".join(convolutions[:5]) or "none"
        raise BadInput(f"filtered: no convolution is called {' or '.join(only)}; the network has {have}")
    rule = GradientFilter(patch, filter_input=not exact_inputs)
    with swapped(model, dict.fromkeys(chosen, rule)):
        yield model
