"""MeCo: how far from linearly dependent the channels of each layer are, from one random image."""

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgewright.core.errors import BadInput
from edgewright.proxy import probe
from edgewright.proxy.base import Evidence, Proxy

_LEAST_SIDE = 64


def meco(*, compat: bool = False) -> Proxy:
    r"""Smallest eigenvalue of the correlation of each layer's channels, summed over the layers.

        S = sum_l lambda_min( P(f_l) )        P_cd = Pearson correlation over pixels of channels c and d

    f_l: output (C, H, W) of layer l for one standard normal image; layers: modules without parts whose output has four
    axes. The model's own weights, training mode. The image has the size of the batch's inputs, but at least 64 pixels a
    side, as in the official code (32 would leave a single pixel where networks stride by 32, and no correlation).
    Channels that are constant correlate with none, themselves included. No units, at most the number of layers; higher
    is better; mean over the batches. No labels, and of the inputs only the shape.

    Args:
        compat: as the official code: 64 x 64 always, every module counts, also those with parts, the head's layers and
            the whole model, so that the output of a block's last layer counts twice.

    Cost: one forward pass of one image, and eigenvalues of C x C where C < H W; where C >= H W, lambda_min is 0.
    Differs from the paper: compat says where the code does.
    Source: Jiang et al., "MeCo: Zero-Shot NAS with One Data and Single Forward Pass via Minimum Eigenvalue of
    Correlation", NeurIPS 2023. Checked against: numpy's corrcoef on stored outputs; compat: the official code's number.
    """
    return Proxy(
        name="meco_compat" if compat else "meco",
        source="Jiang et al., MeCo, NeurIPS 2023" + (" (the official code's modules)" * compat),
        summary="smallest eigenvalues of the correlation between channels",
        needs=frozenset({"inputs"}),
        init=lambda subject: [],
        update=lambda values, evidence: [
            *values,
            _over_layers(evidence, _noise(evidence, _LEAST_SIDE if compat else None), _smallest, compat),
        ],
        finish=lambda values: sum(values) / len(values),
    )


def meco_opt(*, channels: int = 8, compat: bool = False) -> Proxy:
    r"""MeCo on a few random channels of each layer, weighted by how many there are.

        S = sum_l C_l / m_l * lambda_min( P(f_l[c_l]) )

    c_l: m_l = min(channels, C_l) of the C_l channels of layer l, drawn without repetition from the seed; f_l, P and the
    image as in `meco`, and the same image, so that networks of up to `channels` channels have the same value in both. A
    principal submatrix has no smaller least eigenvalue than the whole, so S is never below `meco`'s. Layers with more
    channels than pixels, which add nothing there, count here. No units, at most the sum of the layers' widths; higher
    is better; mean over the batches. No labels, and of the inputs only the shape.

    Args:
        channels: how many of each layer, >= 2; 8 in the official code.
        compat: as the official code: the batch's first image alone, at its own size; every module counts (see `meco`),
            also outputs without pixels (0) in the order in which channels are drawn. Where a layer has fewer than 8
            channels, that code stops; here all are taken.

    Cost: one forward pass of one image, and eigenvalues of `channels` x `channels`.
    Differs from the paper: the image (compat: the code's); layers of few channels.
    Source: Jiang et al., "MeCo: Zero-Shot NAS with One Data and Single Forward Pass via Minimum Eigenvalue of
    Correlation", NeurIPS 2023. Checked against: numpy's corrcoef on stored outputs; compat: the official code's number.
    """
    if channels < 2:
        raise BadInput(f"meco_opt: a correlation needs at least two channels, got {channels}")

    def update(values: list[float], evidence: Evidence) -> list[float]:
        drawn = random.Random(evidence.generator("meco_opt").initial_seed())

        def term(output: Tensor) -> float:
            chosen = drawn.sample(range(len(output)), min(channels, len(output)))
            return _smallest(output[chosen]) * len(output) / len(chosen)

        return [*values, _over_layers(evidence, evidence.inputs[:1] if compat else _noise(evidence), term, compat)]

    return Proxy(
        name="meco_opt_compat" if compat else "meco_opt",
        source="Jiang et al., MeCo, NeurIPS 2023" + (" (the official code's modules and image)" * compat),
        summary="smallest eigenvalues of the correlation between a few channels",
        needs=frozenset({"inputs"}),
        init=lambda subject: [],
        update=update,
        finish=lambda values: sum(values) / len(values),
    )


def _noise(evidence: Evidence, side: int | None = None) -> Tensor:
    """One standard normal image of the inputs' size, at least 64 pixels a side; `side` if given."""
    high, wide = (side or max(_LEAST_SIDE, length) for length in evidence.inputs.shape[2:])
    return probe.noise(evidence, evidence.generator("meco"), (1, evidence.inputs.shape[1], high, wide))


@torch.no_grad()
def _over_layers(evidence: Evidence, image: Tensor, term: Callable[[Tensor], float], every: bool) -> float:
    """Sum of `term` of each output (C, pixels): of layers, or of `every` module with its parts and the model itself."""
    found: list[float] = []

    def see(name: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
        if output.ndim > 1 if every else output.ndim == 4 and not any(module.children()):
            found.append(term(output[0].reshape(output.shape[1], -1)))

    output = probe.run(evidence, image, see)
    if every:  # the whole model is a module as well
        see("", evidence.model, image, output)
    return math.fsum(found) if found else math.nan


def _smallest(channels: Tensor) -> float:
    """channels: (C, pixels)."""
    if not bool(channels.isfinite().all()):
        return math.nan
    if len(channels) >= channels.shape[1]:
        return 0.0  # centred rows in a space of one dimension less than pixels: singular
    correlation = torch.corrcoef(channels).nan_to_num(0.0, 0.0, 0.0)
    return float(torch.linalg.eigvalsh(torch.atleast_2d(correlation))[0])
