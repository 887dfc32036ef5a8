"""KNAS: how far the samples of a batch pull the weights the same way, as the mean of their gradients' Gram matrix."""

import math
from dataclasses import dataclass

import torch

from edgewright.proxy.alone import alone
from edgewright.proxy.base import Evidence, Proxy, Seen

_SOURCE = "Xu et al., KNAS, ICML 2021, arXiv:2111.13293"
_SAMPLES = 50  # what the official code looks at; of each as much as `alone` keeps


def knas(*, compat: bool = False) -> Proxy:
    r"""Mean of the Gram matrix of the samples' gradients (MGM).

        S = 1/n^2 sum_i sum_j < g_i, g_j > = || 1/n sum_i g_i ||^2        g_i = d l_i / d w

    l_i: cross-entropy of sample i of the batch's n, w: every weight of a layer, as they are in the model,
    training mode (batch norm by the statistics of the batch). Both sums may be taken inside the product, so neither the
    n x n matrix nor any sample's gradient is formed: S is the squared norm of the gradient of the mean loss, added up
    layer by layer while one backward pass runs. `grad_norm` adds the layers' norms, this their squares, so that the
    layers with the largest gradients decide. No units; higher is better; mean over the batches. The loss must be a mean
    over the samples, as the default is.

    Args:
        compat: what the official code computes, which is another quantity. Of the first 11 parameters with a gradient
            and at least 50 entries it takes the first 50 entries e, of 50 samples that go alone (batch norm by one
            image's pixels), and sums covariances between the first 25 samples and the last 25:

                S = 1/50^2 sum_e sum_k ( g_k,e - mean_k g_k,e ) ( g_k+25,e - mean_k g_k+25,e )

            Samples are drawn independently, so its expectation is 0 for any network, and its sign is chance. With
            fewer samples, as many as make two equal halves, in place of 50; under four it is the worst value.

    Cost: a forward and a backward pass per batch, keeps one number (compat: a forward and a backward pass per image,
    which `gradsign_compat` shares; keeps 550 numbers of each).
    Differs from the paper: all weights rather than a sample of each layer's parameters, no biases, no batch norm;
    samples see each other through batch norm. The paper's text was not at hand: the formula is that of its abstract
    (mean of the gradients' Gram matrix), and that of lines which its code has switched off.
    Source: Xu et al., "KNAS: Green Neural Architecture Search", ICML 2021, arXiv:2111.13293; code Jingjing-NLP/KNAS.
    Checked against: the Gram matrix of stored per-sample gradients, with and without batch norm; compat: the official
    code's number.
    """
    if compat:
        return Proxy(
            name="knas_compat",
            source=_SOURCE + " (the official code's covariance)",
            summary="covariance of gradient entries between two halves of the samples",
            needs=frozenset({"inputs", "targets"}),
            init=lambda subject: [],
            update=lambda values, evidence: [*values, _covariance(evidence)],
            finish=lambda values: sum(values) / len(values),
        )
    return Proxy(
        name="knas",
        source=_SOURCE,
        summary="mean of the Gram matrix of the samples' gradients",
        needs=frozenset({"gradients"}),
        init=lambda subject: _State(subject.num_batches),
        watch=_watch,
        finish=lambda state: state.total / state.num_batches,
    )


@dataclass
class _State:
    num_batches: int
    total: float = 0.0


def _watch(state: _State, seen: Seen) -> _State:
    state.total += float(torch.linalg.vector_norm(seen.slope)) ** 2
    return state


def _covariance(evidence: Evidence) -> float:
    half = min(_SAMPLES, len(evidence.inputs)) // 2
    if half < 2:
        return math.nan  # one value has no deviation from its mean
    rows = [row for row in alone(evidence, 2 * half).entries[: 2 * half] if row is not None]
    if len(rows) < 2 * half:  # a batch norm of one value, or a loss that depends on nothing
        return math.nan
    halves = torch.stack(rows).double().unflatten(0, (2, half))
    first, second = halves - halves.mean(1, keepdim=True)
    return float((first * second).sum()) / (2 * half) ** 2
