"""ZiCo: weights whose gradients are large and consistent over batches promise fast convergence."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from edgewright.proxy.base import Proxy, Seen


def zico(*, compat: bool = False) -> Proxy:
    r"""Inverse coefficient of variation of the gradients over batches, summed in each layer, logs summed over layers.

        S = sum_l log( sum_{w in l}  E_i |g_i(w)|  /  sqrt(Var_i |g_i(w)|) )

    g_i(w): gradient of the cross-entropy of batch i for weight w of a layer (no biases, no batch norm), the
    network freshly initialised and in training mode, i = 1..M; Var with ddof 0. Weights with zero variance and layers
    whose sum is zero are left out. No units; higher is better; at least two batches (with one, S is the worst value).

    With M = 2 the ratio is (|g_1| + |g_2|) / ||g_1| - |g_2|| >= 1, so S is the sum of log layer sizes (`log_sizes`)
    plus a positive correction.

    Args:
        compat: take the variance of the signed gradients, as the official code does where the paper writes |g|. With
            M = 2 the ratio is then exactly 1 for every weight whose gradient changes sign, about half of them.

    Cost: one forward and one backward pass per batch; streaming, it keeps one tensor of the weights' size with two
    batches, two (compat: three) with more.
    Differs from the paper: only in the networks scored (its search strips residual links and squeeze-excite first).
    Source: Li et al., "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients", ICLR 2023,
    arXiv:2301.11300; code SLDGroup/ZiCo. Checked against: a case by hand, numpy's std over stored gradients,
    the M = 2 closed form, and the official function rewritten line by line in the tests.
    """
    return Proxy(
        name="zico_compat" if compat else "zico",
        source="Li et al., ZiCo, ICLR 2023, arXiv:2301.11300" + (" (the official code's formula)" if compat else ""),
        summary="large and consistent gradients over batches, " + ("signed variance" if compat else "per layer"),
        needs=frozenset({"gradients"}),
        init=lambda subject: _State(compat, subject.num_batches),
        watch=_watch,
        finish=_finish,
    )


@dataclass(frozen=True)
class _Moments:
    """Running moments of one layer: `root` is sqrt(sum of squared deviations), `absolute` the mean of |g|."""

    mean: Tensor
    root: Tensor | None = None
    absolute: Tensor | None = None  # None when `mean` already is the mean of |g|


@dataclass(frozen=True)
class _State:
    signed: bool
    num_batches: int
    layers: dict[str, _Moments] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)  # of the layers whose last batch has been seen


def _watch(state: _State, seen: Seen) -> _State:
    """Add one layer's gradient; with the last batch's, nothing but the layer's sum is kept."""
    size = seen.slope.abs()
    value = seen.slope if state.signed else size
    before = state.layers.pop(seen.name, None)
    if before is None:
        moments = _Moments(value)
    else:
        if state.signed and before.absolute is None:
            before = _Moments(before.mean, None, before.mean.abs())
        moments = _add(before, value, size, seen.index + 1)
    if seen.index + 1 < state.num_batches:
        state.layers[seen.name] = moments
    else:
        state.sums[seen.name] = _sum_of_ratios(moments, state.num_batches)
    return state


def _add(moments: _Moments, value: Tensor, size: Tensor, count: int) -> _Moments:
    """Welford's update, with the root of the sum of squares kept in place of the sum.

    Squares of gradients underflow where gradients do not; and for two batches this is |g_1 - g_2| / sqrt(2) at once.
    """
    if value is size:  # this state's own, as the mean is: no further tensor of the layer's size
        delta = value.sub_(moments.mean)
        mean = moments.mean.add_(delta, alpha=1 / count)
    else:
        delta = value - moments.mean
        mean = torch.add(moments.mean, delta, alpha=1 / count)
    step = delta.abs_().mul_(math.sqrt((count - 1) / count))
    root = step if moments.root is None else torch.hypot(moments.root, step)
    absolute = None if moments.absolute is None else torch.lerp(moments.absolute, size, 1 / count)
    return _Moments(mean, root, absolute)


def _sum_of_ratios(moments: _Moments, count: int) -> float:
    if moments.root is None:
        return 0.0  # one batch: nothing varies
    mean = moments.mean if moments.absolute is None else moments.absolute
    # mean / sd, sd = root / sqrt(count); 0 / 0 and x / 0 are the weights that do not vary.
    ratio = mean.div_(moments.root).masked_fill_(moments.root == 0, 0)
    return float(ratio.sum(dtype=torch.float64)) * math.sqrt(count)


def _finish(state: _State) -> float:
    if any(math.isnan(state.sums[name]) for name in state.sums):
        return math.nan
    sums = [state.sums[name] for name in sorted(state.sums) if state.sums[name] != 0]
    return sum(math.log(found) for found in sums) if sums else -math.inf
