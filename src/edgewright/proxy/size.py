"""Sizes as scores: the naive references that every training-free score has to beat."""

import math

import torch
from torch import Tensor, nn

from edgewright.proxy.base import Evidence, Proxy, Subject


def params() -> Proxy:
    """The number of parameters. No pass over the data. Source: folklore; the baseline of 'NAS evaluation is hard'."""
    return Proxy(
        name="params",
        source="naive reference",
        summary="number of parameters",
        init=lambda subject: float(sum(parameter.numel() for parameter in subject.model.parameters())),
        finish=float,
    )


def macs() -> Proxy:
    """Multiply-adds of the convolutions and linear layers for one input, read off one sample's shapes.

    Convolution: weight.numel() * output height * output width; linear: weight.numel() per output vector.
    Source: folklore. Checked against: counts by hand, and the counter that works on graphs.
    """
    return Proxy(
        name="macs",
        source="naive reference",
        summary="number of multiply-adds",
        needs=frozenset({"shapes"}),
        init=_count_macs,
        finish=float,
    )


def capacity() -> Proxy:
    r"""Multiply-adds first, parameters to settle what they leave open: the most computing that a budget buys.

        S = log(MACs) + 0.1 log(parameters)

    Under a latency ceiling this asks for the operators that the device runs best, which is what made accurate networks
    in `benchmarks/proxies_at_a_budget.py`, where scores that sum over layers (ZiCo, log_sizes) chose deep and thin
    ones. Under a ceiling on MACs every good candidate has about as many, and parameters decide. One sample's shapes.
    Source: this project. Checked against: counts by hand.
    """
    return Proxy(
        name="capacity",
        source="edgewright: naive reference with a tie-break",
        summary="log of multiply-adds, plus a tenth of the log of parameters",
        needs=frozenset({"shapes"}),
        init=lambda subject: math.log(max(_count_macs(subject), 1.0)) + 0.1 * math.log(params().init(subject)),
        finish=float,
    )


def log_sizes() -> Proxy:
    r"""The sum over layers of the log of their number of live weights.

        S = sum_{l: n_l > 0} log n_l        n_l: weights of layer l whose gradient is not zero in every batch

    What ZiCo is without its gradients' sizes (with two batches ZiCo is this plus a positive correction). A dead branch,
    or the border of a 3 x 3 kernel over a 1 x 1 map, does not count. Layers: Conv2d and Linear.
    Cost: a forward and a backward pass per batch; one batch is enough. Source: observed when taking ZiCo apart; on
    NAS-Bench-201 it ranks better than ZiCo. Checked against: counts by hand.
    """
    return Proxy(
        name="log_sizes",
        source="ZiCo (arXiv:2301.11300) without its gradients' sizes",
        summary="sum of the logs of the live layers' sizes",
        needs=frozenset({"gradients"}),
        init=lambda subject: {},
        update=_mark_live,
        finish=_sum_logs,
    )


def _count_macs(subject: Subject) -> float:
    total = 0
    for call in subject.calls:
        if isinstance(call.module, nn.Conv2d):
            total += call.module.weight.numel() * math.prod(call.output_shape[1:])
        elif isinstance(call.module, nn.Linear):
            total += call.module.weight.numel() * math.prod(call.output_shape[:-1])
    return float(total)


def _mark_live(state: dict[str, Tensor], evidence: Evidence) -> dict[str, Tensor]:
    live = {name: gradient != 0 for name, gradient in evidence.gradients.items()}
    return {name: mask | state[name] if name in state else mask for name, mask in live.items()}


def _sum_logs(state: dict[str, Tensor]) -> float:
    counts = torch.tensor([int(mask.count_nonzero()) for mask in state.values()], dtype=torch.float64)
    return float(counts[counts > 0].log().sum()) if bool((counts > 0).any()) else -math.inf
