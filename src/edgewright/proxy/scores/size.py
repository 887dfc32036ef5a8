"""Sizes as scores: the naive references that every training-free score has to beat."""

import math

from torch import Tensor

from edgewright.proxy.base import Proxy, Seen


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
    """Multiply-adds for one input, as `ir.counts` has them, read off the calls of one sample: layers, and products that
    are written out in the forward pass.

    Errors: BadInput that names what cannot be counted. Source: folklore. Checked against: counts by hand, and the
    counter that works on graphs.
    """
    return Proxy(
        name="macs",
        source="naive reference",
        summary="number of multiply-adds",
        needs=frozenset({"shapes"}),
        init=lambda subject: float(subject.ran.macs()),
        finish=float,
    )


def live_macs() -> Proxy:
    """Multiply-adds of the calls whose output depends on the input and reaches the logits: what dead branches cost is
    left out.

    Found by autograd on one sample with every weight frozen (`calls.run_calls`). Higher is better. Source: the
    naive reference for spaces with operators that nothing reads, as NAS-Bench-201. Checked against: counts by
    hand, and the cells' graphs.
    """
    return Proxy(
        name="live_macs",
        source="naive reference",
        summary="number of multiply-adds on a way from input to output",
        needs=frozenset({"shapes", "live"}),
        init=lambda subject: float(subject.ran.macs(live=True)),
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
        init=lambda subject: math.log(max(subject.ran.macs(), 1)) + 0.1 * math.log(params().init(subject)),
        finish=float,
    )


def log_sizes() -> Proxy:
    r"""The sum over layers of the log of their number of live weights.

        S = sum_{l: n_l > 0} log n_l        n_l: weights of layer l whose gradient is not zero in every batch

    What ZiCo is without its gradients' sizes (with two batches ZiCo is this plus a positive correction). A dead branch,
    or the border of a 3 x 3 kernel over a 1 x 1 map, does not count. Layers: convolutions and linear ones.
    Cost: a forward and a backward pass per batch; one batch is enough. Source: observed when taking ZiCo apart; on
    NAS-Bench-201 it ranks better than ZiCo. Checked against: counts by hand.
    """
    return Proxy(
        name="log_sizes",
        source="ZiCo (arXiv:2301.11300) without its gradients' sizes",
        summary="sum of the logs of the live layers' sizes",
        needs=frozenset({"gradients"}),
        init=lambda subject: {},
        watch=_mark_live,
        finish=_sum_logs,
    )


def _mark_live(state: dict[str, Tensor], seen: Seen) -> dict[str, Tensor]:
    live = seen.slope != 0
    state[seen.name] = live.logical_or_(state[seen.name]) if seen.name in state else live
    return state


def _sum_logs(state: dict[str, Tensor]) -> float:
    counts = [int(state[name].count_nonzero()) for name in sorted(state)]
    return sum(math.log(count) for count in counts if count) if any(counts) else -math.inf
