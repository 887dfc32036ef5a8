"""ZiCo: weights whose gradients are large and consistent over batches promise fast convergence."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from edgewright.proxy.base import Evidence, Proxy, Subject


def zico(*, compat: bool = False) -> Proxy:
    r"""Inverse coefficient of variation of the gradients over batches, summed in each layer, logs summed over layers.

        S = sum_l log( sum_{w in l}  E_i |g_i(w)|  /  sqrt(Var_i |g_i(w)|) )

    g_i(w): gradient of the cross-entropy of batch i for weight w of a Conv2d or Linear (no biases, no batch norm), the
    network freshly initialised and in training mode, i = 1..M; Var with ddof 0. Weights with zero variance and layers
    whose sum is zero are left out. No units; higher is better; at least two batches (with one, S is the worst value).

    With M = 2 the ratio is (|g_1| + |g_2|) / ||g_1| - |g_2|| >= 1, so S is the sum of log layer sizes (`log_sizes`)
    plus a positive correction.

    Args:
        compat: take the variance of the signed gradients, as the official code does where the paper writes |g|. With
            M = 2 the ratio is then exactly 1 for every weight whose gradient changes sign, about half of them.

    Cost: one forward and one backward pass per batch; streaming, it keeps two tensors of the weights' size (compat:
    three) however many batches there are.
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
        init=_init_signed if compat else _init_absolute,
        update=_update,
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
    count: int
    layers: dict[str, _Moments]


def _init_absolute(subject: Subject) -> _State:
    return _State(False, 0, {})


def _init_signed(subject: Subject) -> _State:
    return _State(True, 0, {})


def _update(state: _State, evidence: Evidence) -> _State:
    count = state.count + 1
    layers: dict[str, _Moments] = {}
    for name, gradient in evidence.gradients.items():
        size = gradient.abs()
        value = gradient if state.signed else size
        before = state.layers.get(name)
        layers[name] = (
            _Moments(value, None, size if state.signed else None)
            if before is None
            else _add(before, value, size, count)
        )
    return _State(state.signed, count, layers)


def _add(moments: _Moments, value: Tensor, size: Tensor, count: int) -> _Moments:
    """Welford's update, with the root of the sum of squares kept in place of the sum.

    Squares of gradients underflow where gradients do not; and for two batches this is |g_1 - g_2| / sqrt(2) at once.
    """
    delta = value - moments.mean
    mean = torch.add(moments.mean, delta, alpha=1 / count)
    step = delta.abs_().mul_(math.sqrt((count - 1) / count))
    root = step if moments.root is None else torch.hypot(moments.root, step)
    absolute = None if moments.absolute is None else torch.lerp(moments.absolute, size, 1 / count)
    return _Moments(mean, root, absolute)


def _finish(state: _State) -> float:
    sums = []
    for moments in state.layers.values():
        if moments.root is None:
            return -math.inf  # one batch: nothing varies
        mean = moments.mean if moments.absolute is None else moments.absolute
        # mean / sd, sd = root / sqrt(count); 0 / 0 and x / 0 are the weights that do not vary.
        ratio = (mean / moments.root).masked_fill_(moments.root == 0, 0)
        sums.append(ratio.sum(dtype=torch.float64))
    if not sums:
        return -math.inf
    total = torch.stack(sums) * math.sqrt(state.count)
    return float(total[total != 0].log().sum()) if bool((total != 0).any()) else -math.inf
