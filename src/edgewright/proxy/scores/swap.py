"""SWAP-score: how many different ways the units of a network respond to the samples of a batch."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import nn

from edgewright.core.errors import BadInput
from edgewright.proxy.base import Evidence, Proxy, Seen, Subject

_RELU = (nn.ReLU, nn.ReLU6)


def swap(*, mu: float | None = None, sigma: float | None = None) -> Proxy:
    r"""The number of distinct sample-wise activation patterns.

        S = | { ( 1[h_v(x_s) > 0] )_s : v } |        s: the samples of a batch,  v: every unit of every ReLU

    h_v: output of a ReLU with a feature map (4 axes), one unit per channel and pixel; the batch's inputs, the model's
    own weights, training mode. A count, at most the number of units and 2^B; higher is better; mean over the batches.
    No labels. Regularised (mu and sigma given), S is multiplied by exp(-(P - mu)^2 / sigma), P the number of parameters
    in thousands, which prefers networks of about mu thousand parameters; with large mu and sigma, large ones.

    Args: mu: thousand parameters.   sigma: > 0, thousand parameters squared. Both or none.

    Undefined without ReLU. Cost: one forward pass; keeps one bit per unit and sample.
    Differs from the paper: nothing; ReLU6 counts as ReLU.
    Source: Peng et al., "SWAP-NAS: Sample-Wise Activation Patterns for Ultra-fast NAS", ICLR 2024, arXiv:2403.04161.
    Checked against: counting Python tuples, and the official code's number, with and without regularisation.
    """
    if (mu is None) != (sigma is None) or (sigma is not None and not sigma > 0):
        raise BadInput(f"swap: the regularisation takes mu and a sigma above 0, both; got mu {mu}, sigma {sigma}")

    def init(subject: Subject) -> _State:
        thousands = sum(parameter.numel() for parameter in subject.model.parameters()) / 1000
        return _State(1.0 if mu is None or sigma is None else math.exp(-((thousands - mu) ** 2) / sigma))

    return Proxy(
        name="swap" if mu is None else "swap_regularised",
        source="Peng et al., SWAP-NAS, ICLR 2024, arXiv:2403.04161",
        summary="number of distinct activation patterns over samples" + ("" if mu is None else ", by size"),
        needs=frozenset({"activations"}),
        init=init,
        watch=_add_units,
        modules=_RELU,
        update=_close_batch,
        finish=lambda state: state.factor * sum(state.values) / len(state.values),
        undefined=_without_relu,
    )


def _without_relu(model: nn.Module) -> str:
    if any(isinstance(module, _RELU) for module in model.modules()):
        return ""
    return "SWAP reads ReLU modules, and this network has none"


@dataclass
class _State:
    factor: float
    units: list[NDArray[np.uint64]] = field(default_factory=list)  # of this batch: (words, units), 64 samples a word
    values: list[int] = field(default_factory=list)


def _add_units(state: _State, seen: Seen) -> _State:
    if seen.value.ndim == 4:
        state.units.append(_pack((seen.value > 0).movedim(1, -1).flatten(1).cpu().numpy()))
    return state


def _close_batch(state: _State, evidence: Evidence) -> _State:
    state.values.append(_num_distinct(np.concatenate(state.units, axis=1)) if state.units else 0)
    state.units = []
    return state


def _pack(on: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """(samples, units) of bits to (words, units)."""
    num_words = -(-len(on) // 64)
    octets = np.zeros((num_words * 8, on.shape[1]), dtype=np.uint8)
    for sample, bits in enumerate(on.view(np.uint8)):
        octets[sample // 8] |= bits << (sample % 8)
    return np.ascontiguousarray(octets.reshape(num_words, 8, -1).transpose(0, 2, 1)).view(np.uint64)[..., 0]


def _num_distinct(words: NDArray[np.uint64]) -> int:
    """The number of distinct columns."""
    ordered = np.sort(words) if len(words) == 1 else words[:, np.lexsort(words)]
    return 1 + int((ordered[:, 1:] != ordered[:, :-1]).any(0).sum())
