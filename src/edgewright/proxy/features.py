r"""What a network makes of the task's samples before its last layer: read once, shared by all scores that read it.

The last layer is the last convolution or linear layer, in running order, on a way from input to logits. What it is
given are the *features*, what it gives are the outputs of the *source*: where the head is still the start's own, what
the start says. Both are read in evaluation mode. How they pair with targets is the kind's to say (`Kind.examples`): one
example a sample, or a few places of each map.

    F (n, D) features,   y (n,) whole numbers, or (n, M) floats,   n at most 2,048, drawn at random where there are more

Scores need the singular vectors of F, which come from the smaller of its two Gram matrices in float64: a product and
one symmetric eigenproblem of min(n, D), kept for all that ask.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.core.errors import BadInput
from edgewright.core.seed import derive
from edgewright.model.settle import settle
from edgewright.proxy.calls import WEIGHTED, Ran, left_as_it_was
from edgewright.task.kind import Examples

MOST = 2048  # examples
CHUNK = 64  # samples that pass at once
ZERO = 1e-12  # of the sum of the squared singular values; what is below is the noise of float32 features


class Spectrum(NamedTuple):
    """F = U diag(s) V^T without its zeros.   left: U (n, r), orthonormal columns.   squares: s^2 (r,), decreasing."""

    left: Tensor
    squares: Tensor


@dataclass(frozen=True, eq=False)
class Features:
    """n examples.   values: F (n, D) float64.   source: (n, K) float64, the last layer's own outputs.
    targets: (n,) int64, or (n, M) float64 where they are numbers."""

    values: Tensor
    source: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def groups(self, name: str) -> Tensor:
        """(n,) int64: which of the targets that are there each example has, 0 to C - 1.

        name: of the score that asks.   Errors: BadInput where targets are floats, which are no groups.
        """
        if self.targets.is_floating_point():
            raise BadInput(
                f"{name} needs one whole number for each sample, and here targets are floats; "
                "choose logme or linear_fit"
            )
        return self.targets.unique(return_inverse=True)[1]

    @functools.cached_property
    def columns(self) -> Tensor:
        """Y (n, C): a column of 0 and 1 for each group that is there; floats less their mean, over their spread."""
        if not self.targets.is_floating_point():
            return functional.one_hot(self.groups("")).double()
        spread = self.targets.std(0, correction=0)
        return (self.targets - self.targets.mean(0))[:, spread > 0] / spread[spread > 0]

    @functools.cached_property
    def probabilities(self) -> Tensor:
        """(n, K): softmax of the source's outputs; one output alone is the logit of the second of two."""
        if self.source.shape[1] == 1:
            return torch.cat([-self.source, self.source], 1).sigmoid()
        return self.source.softmax(1)

    @functools.cached_property
    def plain(self) -> Spectrum:
        """Of F as it is."""
        return _spectrum(self.values)

    @functools.cached_property
    def centred(self) -> Spectrum:
        """Of F less the mean of each feature."""
        return _spectrum(self.values - self.values.mean(0))


def _spectrum(values: Tensor) -> Spectrum:
    wide = values.shape[0] <= values.shape[1]
    found, vectors = torch.linalg.eigh(values @ values.T if wide else values.T @ values)
    kept = (found > ZERO * values.square().sum()) & (found > 0)
    squares, vectors = found[kept].flip(0), vectors[:, kept].flip(1)
    return Spectrum(vectors if wide else values @ vectors / squares.sqrt(), squares)


def read_features(
    model: nn.Module,
    ran: Ran,
    batches: Sequence[tuple[Any, Any]],
    examples: Examples,
    *,
    seed: int = 0,
    settled: bool = True,
) -> Features | None:
    """What the last layer of `model` is given and gives; the model is afterwards as it was.

    Args:
        ran: what running one sample showed, with what is live.
        settled: False takes the statistics of batch norms anew from these batches first: for weights that have never
            learned. Of a learned network that was changed it may help or harm: channels that are silent on these
            samples become as loud as the others.
    Returns: None where the logits do not depend on the input, or features are not finite.
    Errors: BadInput for a network that ends in something else, and for targets that do not pair with its features.
    Cost: a forward pass over all samples in parts of 64, two where the norms settle.
    """
    if (layer := _last(model, ran)) is None:
        return None
    generator = torch.Generator().manual_seed(derive(seed, "features"))
    found: list[tuple[Sequence[Tensor], Tensor]] = []
    with left_as_it_was(model), torch.no_grad():
        if not settled:
            torch.manual_seed(derive(seed, "settle"))
            parts = [part for inputs, _ in batches for part in _chunks(inputs)]
            settle(model, parts, len(parts))
        model.eval()
        for inputs, targets in batches:
            seen = [_through(model, layer, part) for part in _chunks(inputs)]
            maps = [torch.cat(list(one)) for one in zip(*seen, strict=True)]
            found.append(examples(maps, targets, generator))
    values, source = (torch.cat([maps[i] for maps, _ in found]).double().cpu() for i in range(2))
    targets = torch.cat([one for _, one in found]).cpu()
    targets = targets.double().reshape(len(targets), -1) if targets.is_floating_point() else targets.long()
    if not bool(values.isfinite().all()) or not len(values):
        return None
    kept = torch.randperm(len(values), generator=generator)[:MOST].sort().values if len(values) > MOST else slice(None)
    return Features(values[kept], source[kept], targets[kept])


def _last(model: nn.Module, ran: Ran) -> nn.Module | None:
    """The layer that the network ends in."""
    live = [product for product in ran.products if product.live]
    if not live:
        return None
    layer = model if isinstance(model, WEIGHTED) else dict(model.named_modules()).get(live[-1].name)
    called = any(call.module is layer for call in ran.calls) or any(layer.children() if layer else ())
    if not isinstance(layer, WEIGHTED) or not called:  # a product may bear the name of a layer that nobody calls
        raise BadInput(
            f"the network ends in '{live[-1].name}' ({live[-1].operator}), and scores of features need a linear layer "
            "or a convolution there; choose another score"
        )
    return layer


def _chunks(inputs: Tensor) -> Sequence[Tensor]:
    """Parts of about the same size, so that none is a single sample where that can be helped."""
    return inputs.tensor_split(-(-len(inputs) // CHUNK))


def _through(model: nn.Module, layer: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """What the layer is given and gives at its last call: (B, channels, *places) each."""
    caught: list[tuple[Tensor, Tensor]] = []

    def look(_: nn.Module, arguments: Any, named: Any, output: Tensor) -> None:
        given = next(iter([*arguments, *named.values()]))
        last = isinstance(layer, nn.Linear)
        caught[:] = [(given.movedim(-1, 1), output.movedim(-1, 1)) if last else (given, output)]

    handle = layer.register_forward_hook(look, with_kwargs=True)
    try:
        model(inputs)
    finally:
        handle.remove()
    return caught[0]
