"""GradSign: how far the samples of a batch agree on the direction in which each weight should go."""

import math

import torch
from torch import Tensor

from edgewright.core.errors import BadInput
from edgewright.proxy import probe
from edgewright.proxy.alone import alone
from edgewright.proxy.base import Evidence, Proxy, weighted_layers


def gradsign(*, samples: int = 16, compat: bool = False) -> Proxy:
    r"""Agreement of the signs of per-sample gradients, summed over the weights.

        S = sum_w | sum_i sign( d l_i / d w ) |

    l_i: loss of sample i (cross-entropy, or what is scored with), the first `samples` of the batch; w: every weight of
    a layer, as they are in the model, training mode. A count, at most `samples` times the number of weights; higher is
    better; mean over the batches.

    Args:
        samples: how many inputs of each batch, >= 1.
        compat: as the official code: each sample goes alone, so that batch norm takes its statistics over one image's
            pixels; all samples of the batch. Not finite where a batch norm sees a single value a channel.

    Cost: `samples` backward passes of `samples` inputs (compat: a forward and a backward pass per image, which
    `knas_compat` shares); keeps one tensor of the weights' size.
    Differs from the paper: fewer samples; batch norm by the statistics of all of them.
    Source: Zhang and Jia, "GradSign: Model Performance Inference with Theoretical Insights", ICLR 2022,
    arXiv:2110.08616. Checked against: per-sample autograd; compat: the number of the code in HamsterMimi/MeCo.
    """
    if samples < 1:
        raise BadInput(f"gradsign: needs at least one sample, got {samples}")

    def update(values: list[float], evidence: Evidence) -> list[float]:
        return [*values, _one_by_one(evidence) if compat else _together(evidence, samples)]

    return Proxy(
        name="gradsign_compat" if compat else "gradsign",
        source="Zhang and Jia, GradSign, ICLR 2022, arXiv:2110.08616" + (" (one sample at a time)" * compat),
        summary="agreement of the signs of the samples' gradients",
        needs=frozenset({"inputs", "targets", "weights"}),
        init=lambda subject: [],
        update=update,
        finish=lambda values: sum(values) / len(values),
    )


def _weights(evidence: Evidence) -> dict[str, Tensor]:
    return {
        f"{name}.weight": layer.weight.detach().requires_grad_()
        for name, layer in weighted_layers(evidence.model).items()
    }


def _together(evidence: Evidence, samples: int) -> float:
    weights = _weights(evidence)
    labels = evidence.targets[:samples] if evidence.targets is not None else None
    assert labels is not None  # `targets` is among the needs
    with torch.enable_grad():
        logits = probe.run(evidence, evidence.inputs[:samples], parameters=weights)
        each = [slice(index, index + 1) for index in range(len(labels))]
        losses = torch.stack([evidence.loss_function(logits[one], labels[one]) for one in each])
        signs = [torch.zeros_like(weight, requires_grad=False) for weight in weights.values()]
        for index in range(len(losses)):
            found = torch.autograd.grad(
                losses[index],
                list(weights.values()),
                retain_graph=index + 1 < len(losses),
                allow_unused=True,
                materialize_grads=True,
            )
            for total, gradient in zip(signs, found, strict=True):
                total += gradient.sign_()
    return _agreement(signs, losses)


def _one_by_one(evidence: Evidence) -> float:
    seen = alone(evidence, len(evidence.inputs))
    return math.nan if seen.refused else _agreement(list(seen.signs.values()), torch.stack(seen.losses))


def _agreement(signs: list[Tensor], losses: Tensor) -> float:
    if not bool(losses.isfinite().all()):
        return math.nan
    return float(sum(total.abs().sum(dtype=torch.float64) for total in signs))
