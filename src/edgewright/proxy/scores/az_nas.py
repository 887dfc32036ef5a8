"""AZ-NAS: four scores of different kinds, and the sum of the logs of their ranks."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from edgewright.core.errors import BadInput
from edgewright.core.ranking import ranks
from edgewright.proxy import probe
from edgewright.proxy.base import Evidence, Proxy

# What the paper aggregates; its complexity is the number of multiply-adds, which is the proxy `macs`.
COMPONENTS = ("az_expressivity", "az_progressivity", "az_trainability", "macs")

_SOURCE = "Lee and Ham, AZ-NAS, CVPR 2024, arXiv:2403.19232"


def az_expressivity() -> Proxy:
    r"""How evenly each block's features fill their channels: the entropy of their spectrum, summed over the blocks.

        S = sum_l e_l,   e_l = - sum_c p_lc log(p_lc + 1e-8),   p_l = eigenvalues of cov_l / their sum

    cov_l: covariance over samples and pixels of the output channels of block l (ddof 0). Nats; higher is better.

    All of AZ-NAS (`az_expressivity`, `az_progressivity`, `az_trainability`) reads one pass of standard normal inputs of
    the batch's shape through the network with He-initialised weights (fan in), norms the identity, in training mode;
    several batches are averaged. Labels are not needed, and of the inputs only the shape. Blocks: `probe.blocks`, on
    NAS-Bench-201 the stem, the cells and the two reductions.
    Undefined with fewer than two blocks. Cost of the three together: a forward pass, and the backward passes of the
    blocks, each once; memory of a forward pass of a training step.
    Differs from the paper: 1e-8 in the log is the official code's guard.
    Source: Lee and Ham, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", CVPR 2024,
    arXiv:2403.19232. Checked against: numpy on stored features, and the official code's number.
    """
    return _proxy("az_expressivity", "entropy of the spectra of the blocks' features", lambda e, g: sum(e))


def az_progressivity() -> Proxy:
    r"""The smallest gain in expressivity from one block to the next: S = min_l (e_l - e_{l-1}), l = 2..L.

    e_l and everything else as in `az_expressivity`. Source: arXiv:2403.19232.
    Checked against: numpy on stored features, and the official code's number.
    """
    return _proxy(
        "az_progressivity",
        "least gain of the blocks' entropies with depth",
        lambda e, g: min((b - a for a, b in itertools.pairwise(e)), default=math.nan),
    )


def az_trainability() -> Proxy:
    r"""How well blocks keep the size of gradients: the mean over blocks of 2 - s - 1 / (s + 1e-6), 0 at best (s = 1).

        s_l = largest singular value of A_l,   A_l = mean over samples and pixels of  g_in g_out^T

    g_out: random signs (+1, -1) given as the gradient of block l's output, (B, C_out, H, W); g_in: what comes back at
    its input, (B, C_in, H', W'), by pixel-unshuffle as channels where the block strides. A block through which signs
    come back unchanged (an identity) scores minus infinity, so the network ranks last; one that lets nothing through
    has s = 0. Everything else as in `az_expressivity`.
    Differs from the paper: 1e-6 is the official code's guard; sides that a stride does not divide are filled with 0.
    Source: arXiv:2403.19232. Checked against: the Jacobian of linear blocks, where s is known, and the
    official code's number.
    """
    return _proxy(
        "az_trainability",
        "how well the blocks keep the size of gradients",
        lambda e, g: sum(g) / len(g) if g else math.nan,
    )


def aggregate_ranks(columns: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """AZ-NAS's non-linear aggregation: sum over the columns of log(rank / n); higher is better, 0 at best.

    columns: scores of the same n networks, each column higher for better networks (negate the others); ranks 1 (worst)
    to n, ties at their mean rank, NaN last. A network that is bad in one column cannot make up for it in the others,
    which is what the log is for. Source: arXiv:2403.19232. Checked against: the official notebook's formula.
    """
    rows = [np.asarray(column, dtype=np.float64) for column in columns]
    if not rows or any(row.ndim != 1 or row.size == 0 or row.shape != rows[0].shape for row in rows):
        raise BadInput("rank aggregation needs one or more columns of equally many scores, at least one each")
    return np.sum([np.log(ranks(row) / row.size) for row in rows], axis=0)


def _proxy(name: str, summary: str, combine: Any) -> Proxy:
    def update(values: list[float], evidence: Evidence) -> list[float]:
        if "az_nas" not in evidence.memo:
            evidence.memo["az_nas"] = _measure(evidence)
        entropies, gains = evidence.memo["az_nas"]
        return [*values, float(combine(entropies, gains)) if len(entropies) > 1 else math.nan]

    return Proxy(
        name=name,
        source=_SOURCE,
        summary=summary,
        needs=frozenset({"inputs", "weights"}),
        init=lambda subject: [],
        update=update,
        finish=lambda values: sum(values) / len(values),
        undefined=_without_blocks,
    )


def _without_blocks(model: nn.Module) -> str:
    return "" if len(probe.blocks(model)) > 1 else "AZ-NAS compares blocks, and this network has fewer than two"


def _measure(evidence: Evidence) -> tuple[list[float], list[float]]:
    """Entropy of every block's output, and trainability of every block after the first, in running order."""
    generator = evidence.generator("az_nas")
    parameters = probe.redrawn(evidence.model, generator, he=True)
    inputs = probe.noise(evidence, generator).requires_grad_()
    features: list[Tensor] = []

    def see(name: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
        if output.ndim == 4:
            features.append(output)

    with torch.enable_grad():
        probe.run(evidence, inputs, see, watched=probe.blocks(evidence.model), parameters=parameters)
    entropies = [_entropy(feature.detach()) for feature in features]
    gains = []
    while len(features) > 1:  # from the last block to the first; what is behind is freed
        gains.append(_gain(features.pop(), features[-1], generator))
    return entropies, gains[::-1]


def _entropy(feature: Tensor) -> float:
    rows = feature.movedim(1, -1).flatten(0, -2)  # (B H W, C)
    rows = rows - rows.mean(0, keepdim=True)
    spectrum = _finite_eigenvalues(rows.T @ rows / len(rows))
    shares = spectrum / spectrum.sum()
    return float(-(shares * (shares + 1e-8).log()).sum())


def _finite_eigenvalues(matrix: Tensor) -> Tensor:
    """Of a covariance, none of which is below 0 but by rounding."""
    return torch.linalg.eigvalsh(matrix).clamp_min(0) if bool(matrix.isfinite().all()) else matrix.diagonal()


def _gain(out: Tensor, given: Tensor, generator: torch.Generator) -> float:
    signs = (torch.bernoulli(torch.full(out.shape, 0.5), generator=generator) * 2 - 1).to(out)
    found = torch.autograd.grad(out, given, signs, allow_unused=True)[0] if out.requires_grad else None
    back = torch.zeros_like(given) if found is None else found
    if back.shape == signs.shape and torch.equal(back, signs):
        return -math.inf
    back = _unshuffled(back, (out.shape[2], out.shape[3]))
    pixels = signs.numel() // signs.shape[1]
    matrix = back.movedim(1, -1).flatten(0, -2).T @ signs.movedim(1, -1).flatten(0, -2) / pixels
    if not bool(matrix.isfinite().all()):
        return math.nan
    size = float(torch.linalg.matrix_norm(matrix, 2))
    return 2 - size - 1 / (size + 1e-6)


def _unshuffled(gradient: Tensor, sides: tuple[int, int]) -> Tensor:
    """(B, C, H', W') to (B, C s s, H, W), s the stride between H', W' and `sides` H, W."""
    high, wide = gradient.shape[2:]
    stride = max(math.ceil(high / sides[0]), math.ceil(wide / sides[1]))
    if (high, wide) == sides:
        return gradient
    filled = nn.functional.pad(gradient, (0, stride * sides[1] - wide, 0, stride * sides[0] - high))
    return nn.functional.pixel_unshuffle(filled, stride)
