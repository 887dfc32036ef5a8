"""TE-NAS: trainability by the condition number of the tangent kernel, expressivity by the number of linear regions."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgewright.proxy import probe
from edgewright.proxy.base import Evidence, Proxy

_SOURCE = "Chen et al., TE-NAS, ICLR 2021, arXiv:2102.11535"


def ntk_condition(*, samples: int = 16, compat: bool = False) -> Proxy:
    r"""Condition number of the network's neural tangent kernel.

        S = lambda_max(K) / lambda_min(K),   K_ij = < d z_i / d theta, d z_j / d theta >

    z_i: sum of the logits of sample i; theta: all parameters; the first `samples` inputs of the batch, the model's own
    weights, training mode (batch norm by the statistics of these samples, through which samples see each other). Mean
    over the batches. No units; lower is better; a singular kernel is the worst value. No labels.

    Args:
        samples: how many inputs of each batch, >= 2.
        compat: only parameters called `weight` (also batch norms'), as in the official code; biases are left out.

    Cost: a forward pass and `samples` backward passes of `samples` inputs; keeps `samples` gradients.
    Differs from the paper: fewer samples (64 there; the cost grows with their square); products in float64, because the
    smallest eigenvalue is the difference of large numbers.
    Source: Chen et al., "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired
    Perspective", ICLR 2021, arXiv:2102.11535, section 3.1. Checked against: a linear network, whose kernel is known;
    per-sample autograd; compat: the official code's number.
    """

    def update(values: list[float], evidence: Evidence) -> list[float]:
        every, weights = _kernels(evidence, samples)
        return [*values, _condition(weights if compat else every)]

    return Proxy(
        name="ntk_condition_compat" if compat else "ntk_condition",
        source=_SOURCE + (" (the official code's parameters)" * compat),
        summary="condition number of the neural tangent kernel",
        needs=frozenset({"inputs"}),
        higher_is_better=False,
        init=lambda subject: [],
        update=update,
        finish=lambda values: sum(values) / len(values),
    )


def linear_regions(*, samples: int = 1000, side: int = 3) -> Proxy:
    r"""The number of linear regions that Gaussian inputs fall into: of distinct patterns of which ReLUs are on.

        S = | { ( 1[h_v(x) > 0] )_v : x ~ N(0, 1) } |        v: every unit of every ReLU with a feature map (4 axes)

    The model's own weights, training mode. A count, at most `samples`; higher is better; mean over the batches. No
    labels, and of the inputs only the channels.

    Args:
        samples: how many inputs.   side: of the inputs, pixels.

    In a network of usual width every input has a region of its own and S is `samples`, for good networks and bad ones:
    it tells only networks that are all but dead. The paper counts in thin networks (one channel, one cell a stage) on
    such inputs; here the network is scored that was given.
    Undefined without ReLU. Cost: one forward pass; keeps one bit per unit and sample.
    Source: arXiv:2102.11535, section 3.2, after Xiong et al., "On the Number of Linear Regions of Convolutional Neural
    Networks", ICML 2020. Checked against: counting Python tuples, and the official code's number.
    """

    def update(values: list[float], evidence: Evidence) -> list[float]:
        return [*values, float(_count_patterns(evidence, (samples, evidence.inputs.shape[1], side, side)))]

    return Proxy(
        name="linear_regions",
        source=_SOURCE,
        summary="number of linear regions that random inputs fall into",
        needs=frozenset({"inputs"}),
        init=lambda subject: [],
        update=update,
        finish=lambda values: sum(values) / len(values),
        undefined=_without_relu,
    )


def _without_relu(model: nn.Module) -> str:
    if any(isinstance(module, nn.ReLU | nn.ReLU6) for module in model.modules()):
        return ""
    return "linear regions are counted by ReLU modules, and this network has none"


def _kernels(evidence: Evidence, samples: int) -> tuple[Tensor, Tensor]:
    """The kernel of all parameters, and that of those called `weight`; one pass a batch serves whoever asks."""
    key = f"ntk {samples}"
    if key not in evidence.memo:
        evidence.memo[key] = _both_kernels(evidence, samples)
    return evidence.memo[key]


def _both_kernels(evidence: Evidence, samples: int) -> tuple[Tensor, Tensor]:
    every = {name: parameter.detach().requires_grad_() for name, parameter in evidence.model.named_parameters()}
    weights = [parameter for name, parameter in every.items() if "weight" in name]
    others = [parameter for name, parameter in every.items() if "weight" not in name]
    rows = []
    with torch.enable_grad():
        sums = probe.run(evidence, evidence.inputs[:samples], parameters=every).flatten(1).sum(1)
        for index in range(len(sums)):
            found = torch.autograd.grad(
                sums[index],
                weights + others,
                retain_graph=index + 1 < len(sums),
                allow_unused=True,
                materialize_grads=True,
            )
            rows.append(torch.cat([part.flatten() for part in found]))
    split = sum(weight.numel() for weight in weights)
    of_weights = _gram([row[:split] for row in rows])
    return of_weights + _gram([row[split:] for row in rows]), of_weights


def _gram(rows: list[Tensor]) -> Tensor:
    """All products of the rows, in float64; a piece of them at a time is copied to it."""
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for pieces in zip(*(row.split(1 << 16) for row in rows), strict=True):
        piece = torch.stack(pieces).double()
        gram += (piece @ piece.T).cpu()
    return gram


def _condition(gram: Tensor) -> float:
    """lambda_max / lambda_min; infinite where the kernel is singular to rounding."""
    if not bool(gram.isfinite().all()):
        return math.inf
    values = torch.linalg.eigvalsh(gram)
    largest, smallest = float(values[-1]), float(values[0])
    # float32 gradients carry no eigenvalue below their own rounding.
    return largest / smallest if smallest > 1e-12 * largest else math.inf


@torch.no_grad()
def _count_patterns(evidence: Evidence, shape: tuple[int, ...]) -> int:
    packed: list[NDArray[np.uint8]] = []

    def see(name: str, module: nn.Module, given: Tensor, output: Tensor) -> None:
        if isinstance(module, nn.ReLU | nn.ReLU6) and output.ndim == 4:
            packed.append(np.packbits((output > 0).movedim(1, -1).flatten(1).cpu().numpy(), axis=1))

    probe.run(evidence, probe.noise(evidence, evidence.generator("linear_regions"), shape), see)
    if not packed:
        return 0
    return len({row.tobytes() for row in np.concatenate(packed, axis=1)})
