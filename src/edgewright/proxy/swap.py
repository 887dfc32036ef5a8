"""SWAP-score: how many different ways the units of a network respond to the samples of a batch."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgewright.core.errors import BadInput
from edgewright.proxy import probe
from edgewright.proxy.base import Evidence, Proxy


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

    def init(subject_model: nn.Module) -> tuple[float, list[float]]:
        thousands = sum(parameter.numel() for parameter in subject_model.parameters()) / 1000
        factor = 1.0 if mu is None or sigma is None else math.exp(-((thousands - mu) ** 2) / sigma)
        return factor, []

    return Proxy(
        name="swap" if mu is None else "swap_regularised",
        source="Peng et al., SWAP-NAS, ICLR 2024, arXiv:2403.04161",
        summary="number of distinct activation patterns over samples" + ("" if mu is None else ", by size"),
        needs=frozenset({"inputs"}),
        init=lambda subject: init(subject.model),
        update=lambda state, evidence: (state[0], [*state[1], float(_count_patterns(evidence))]),
        finish=lambda state: state[0] * sum(state[1]) / len(state[1]),
        undefined=_without_relu,
    )


def _without_relu(model: nn.Module) -> str:
    if any(isinstance(module, nn.ReLU | nn.ReLU6) for module in model.modules()):
        return ""
    return "SWAP reads ReLU modules, and this network has none"


@torch.no_grad()
def _count_patterns(evidence: Evidence) -> int:
    packed: list[NDArray[np.uint64]] = []  # (words, units): 64 samples a word

    def see(name: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
        if isinstance(module, nn.ReLU | nn.ReLU6) and output.ndim == 4:
            packed.append(_pack((output > 0).movedim(1, -1).flatten(1).cpu().numpy()))

    probe.run(evidence, evidence.inputs, see)
    return _num_distinct(np.concatenate(packed, axis=1)) if packed else 0


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
