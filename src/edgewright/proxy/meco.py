"""MeCo: how far from linearly dependent the channels of each layer are, from one random image."""

import math

import torch
from torch import Tensor, nn

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
        update=lambda values, evidence: [*values, _sum_of_smallest(evidence, compat)],
        finish=lambda values: sum(values) / len(values),
    )


@torch.no_grad()
def _sum_of_smallest(evidence: Evidence, compat: bool) -> float:
    high, wide = (_LEAST_SIDE if compat else max(_LEAST_SIDE, side) for side in evidence.inputs.shape[2:])
    image = probe.noise(evidence, evidence.generator("meco"), (1, evidence.inputs.shape[1], high, wide))
    found: list[float] = []

    def see(name: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
        if output.ndim == 4 and (compat or not any(module.children())):
            found.append(_smallest(output[0].flatten(1)))

    output = probe.run(evidence, image, see)
    if compat and output.ndim == 4:  # the whole model is a module as well
        found.append(_smallest(output[0].flatten(1)))
    return math.fsum(found) if found else math.nan


def _smallest(channels: Tensor) -> float:
    """channels: (C, pixels)."""
    if not bool(channels.isfinite().all()):
        return math.nan
    if len(channels) >= channels.shape[1]:
        return 0.0  # centred rows in a space of one dimension less than pixels: singular
    correlation = torch.corrcoef(channels).nan_to_num(0.0, 0.0, 0.0)
    return float(torch.linalg.eigvalsh(torch.atleast_2d(correlation))[0])
