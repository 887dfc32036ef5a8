"""Scores that add up, over the layers, what one backward pass of the loss says of each weight or channel.

Layers are convolutions, transposed ones too, and linear layers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from edgewright.proxy.base import Need, Proxy, Seen, Subject
from edgewright.proxy.calls import WEIGHTED, Weighted, fan_in

_BENCH = "Abdelfattah et al., Zero-Cost Proxies, ICLR 2021, arXiv:2101.08134"


def grad_norm() -> Proxy:
    r"""Norms of the weights' gradients, summed over the layers.

        S = sum_l || dL / dW_l ||_2        L: mean cross-entropy of the batch, W_l: weights of a layer

    Freshly initialised network, training mode, no biases, no batch norm; mean over the batches. Higher is better.
    Cost: a forward and a backward pass per batch; keeps nothing.
    Differs from others: the code of ZiCo and of Zen-NAS takes the norm of all parameters' gradients as one vector,
    after drawing weights from N(0, 1).
    Source: Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, arXiv:2101.08134. Checked against:
    plain autograd, and the official code's number.
    """
    return _over_weights("grad_norm", _BENCH, "norms of the layers' gradients", lambda weight, slope: slope.norm())


def snip() -> Proxy:
    r"""Connection sensitivity: by how much the loss would change if each weight were taken out, to first order.

        S = sum_w | w dL/dw |        L: mean cross-entropy of the batch, w: every weight of a layer

    Freshly initialised network, training mode; mean over the batches. Higher is better.
    Cost: a forward and a backward pass per batch; keeps nothing.
    Differs from the paper: the sum over weights ranks networks (after Zero-Cost Proxies), the paper's share of each
    weight prunes one. Weights are not drawn anew.
    Source: Lee et al., "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019,
    arXiv:1810.02340. Checked against: autograd through a mask, and the number of the Zero-Cost Proxies code.
    """
    source = "Lee et al., SNIP, ICLR 2019, arXiv:1810.02340"
    return _over_weights("snip", source, "weight times gradient, absolute", lambda w, slope: (w * slope).abs_())


def plain() -> Proxy:
    r"""Weight times gradient with its sign: S = sum_w w dL/dw, over the weights of each layer.

    Freshly initialised network, training mode, L the mean cross-entropy of the batch; mean over the batches. Higher is
    better, so the source has it; on NAS-Bench-201 it ranks the wrong way round.
    A layer in front of a batch norm adds 0, up to the norm's eps: scaling its weights does not change the loss. So in
    networks of such layers the score is that of the classifier.
    Cost: a forward and a backward pass per batch; keeps nothing.
    Source: the baseline of Zero-Cost Proxies, arXiv:2101.08134. Checked against: plain autograd, and the official
    code's number.
    """
    return _over_weights("plain", _BENCH, "weight times gradient, signed", lambda weight, slope: weight * slope)


def fisher(*, compat: bool = False) -> Proxy:
    r"""Channels' importance: by how much the loss would change if a channel were taken out, squared (empirical Fisher).

        S = sum_c D_c,   D_c = 1/(2N) sum_n ( sum_p a_ncp g_ncp )^2

    a: output of a layer, sample n of N, channel c, pixel p; g: d loss / d a, the loss a mean over samples
    (which scales S by 1/N^2 against a sum). Training mode; mean over the batches. Higher is better.

    Args:
        compat: as the Zero-Cost Proxies code adds it up: D_c once for every weight of channel c.

    Cost: a forward and a backward pass per batch; each output is let go when its gradient has come.
    Source: Turner et al., "BlockSwap: Fisher-guided Block Substitution for Network Compression on a Budget", ICLR 2020,
    arXiv:1906.04113; as a score: arXiv:2101.08134. Checked against: stored activations and gradients, and the number of
    the Zero-Cost Proxies code (compat).
    """

    def term(seen: Seen) -> Tensor:
        total = _channels(seen).square().sum(dtype=torch.float64) / (2 * len(seen.value))
        if compat and isinstance(seen.module, Weighted):
            total *= fan_in(seen.module)
        return total

    return _proxy(
        name="fisher_compat" if compat else "fisher",
        source="Turner et al., BlockSwap, ICLR 2020, arXiv:1906.04113" + (" (the official code's sum)" * compat),
        summary="activation times gradient, squared, " + ("per weight" if compat else "per channel"),
        need="activation_gradients",
        term=term,
    )


@dataclass(frozen=True)
class _Terms:
    """What each layer adds in each batch; summed in the order of names, whatever order they came in."""

    num_batches: int
    found: dict[tuple[int, str], float] = field(default_factory=dict)

    def mean(self) -> float:
        return sum(self.found[key] for key in sorted(self.found)) / self.num_batches


def _over_weights(name: str, source: str, summary: str, term: Callable[[Tensor, Tensor], Tensor]) -> Proxy:
    return _proxy(
        name, source, summary, "gradients", lambda seen: term(seen.value, seen.slope).sum(dtype=torch.float64)
    )


def _proxy(name: str, source: str, summary: str, need: Need, term: Callable[[Seen], Tensor]) -> Proxy:
    def init(subject: Subject) -> _Terms:
        return _Terms(subject.num_batches)

    def watch(terms: _Terms, seen: Seen) -> _Terms:
        terms.found[seen.index, seen.name] = float(term(seen))
        return terms

    return Proxy(
        name=name,
        source=source,
        summary=summary,
        needs=frozenset({need}),
        init=init,
        watch=watch,
        modules=WEIGHTED,
        finish=_Terms.mean,
    )


def _channels(seen: Seen) -> Tensor:
    """sum over pixels of activation times gradient, (N, C); the channels of a Linear are its last axis."""
    product = seen.value * seen.slope
    if isinstance(seen.module, nn.Linear):
        product = product.movedim(-1, 1)
    return product.flatten(2).sum(2) if product.ndim > 2 else product
