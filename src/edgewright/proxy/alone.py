"""Images that go through the network alone, as some official code has it: one pass serves all who look at it."""

import torch
from torch import Tensor

from edgewright.proxy import probe
from edgewright.proxy.base import Evidence, weighted_layers

TENSORS, ENTRIES = 11, 50  # of an image's gradients that are kept: the first entries of the first large ones


class Alone:
    """What a batch's images show one at a time, each under a batch norm of its own pixels, in training mode.

    signs: by layer, the sum of the signs of d l_i / d w of the images seen so far.   losses: of each of them.
    entries: of each, the first 50 entries of the first 11 gradients of parameters with as many, in one row; parameters
    that the loss does not reach are passed over.   refused: a batch norm had one value a channel, and nothing is known.
    """

    def __init__(self, evidence: Evidence) -> None:
        layers = {f"{name}.weight" for name in weighted_layers(evidence.model)}
        self._wanted = {
            name: parameter.detach().requires_grad_()
            for name, parameter in evidence.model.named_parameters()
            if name in layers or parameter.numel() >= ENTRIES
        }
        self.signs = {name: torch.zeros_like(self._wanted[name]) for name in layers if name in self._wanted}
        self.losses: list[Tensor] = []
        self.entries: list[Tensor | None] = []
        self.refused = False

    def upto(self, evidence: Evidence, count: int) -> "Alone":
        """Having seen at least the first `count` images; those that another proxy asked for are not run again."""
        assert evidence.targets is not None  # `targets` is among the needs of who comes here
        while len(self.losses) < count and not self.refused:
            one = slice(len(self.losses), len(self.losses) + 1)
            try:
                with torch.enable_grad():
                    logits = probe.run(evidence, evidence.inputs[one], parameters=self._wanted)
                    self._look(evidence.loss_function(logits, evidence.targets[one]))
            except ValueError as error:
                if not probe.one_value_a_channel(error):
                    raise
                self.refused = True
        return self

    def _look(self, loss: Tensor) -> None:
        self.losses.append(loss.detach())
        found: tuple[Tensor | None, ...] = (None,) * len(self._wanted)
        if loss.requires_grad:
            found = torch.autograd.grad(loss, list(self._wanted.values()), allow_unused=True)
        large = [gradient for gradient in found if gradient is not None and gradient.numel() >= ENTRIES]
        self.entries.append(torch.cat([one.flatten()[:ENTRIES] for one in large[:TENSORS]]) if large else None)
        for name, gradient in zip(self._wanted, found, strict=True):
            if gradient is not None and name in self.signs:
                self.signs[name] += gradient.sign_()


def alone(evidence: Evidence, count: int) -> Alone:
    """The first `count` images of the batch, one at a time; what was seen of them is kept with the batch."""
    if "alone" not in evidence.memo:
        evidence.memo["alone"] = Alone(evidence)
    return evidence.memo["alone"].upto(evidence, count)  # it does not hold the evidence, which holds it
