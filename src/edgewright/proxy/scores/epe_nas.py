"""EPE-NAS: how the input gradients of samples of one class go together."""

import math

import torch
from torch import Tensor

from edgewright.core.errors import BadInput
from edgewright.proxy.base import Evidence, Proxy

_GUARD = 1e-5
_MANY_CLASSES = 100


def epe_nas() -> Proxy:
    r"""Correlation of the input Jacobians within each class, compared over the classes.

        E_c = sum_{i,j of class c} log( |P_ij| + 1e-5 ),    P = Pearson correlations of J_i, J_j
        S   = sum_c |E_c|                                                      up to 100 classes
        S   = 1/K sum_{c,d} |E_c / n_c - E_d / n_d|                            more

    J_i: gradient of the sum of the batch's logits for the input of sample i, (C H W); n_c: samples of class c in the
    batch; K: classes in the batch, where "up to 100 classes" speaks of the network's outputs. The model's own weights,
    training mode. No units; higher is better; mean over the batches. Needs one class a sample: BadInput otherwise.

    A sample whose Jacobian is constant correlates with none. Cost: a forward and a backward pass to the inputs.
    Source: Lopes et al., "EPE-NAS: Efficient Performance Estimation Without Training for Neural Architecture Search",
    ICANN 2021, arXiv:2102.08099. Checked against: the definition in numpy, and the official
    code's number.
    """
    return Proxy(
        name="epe_nas",
        source="Lopes et al., EPE-NAS, ICANN 2021, arXiv:2102.08099",
        summary="correlation of input gradients within classes",
        needs=frozenset({"input_gradients", "targets"}),
        init=lambda subject: [],
        update=lambda values, evidence: [*values, _one_batch(evidence)],
        finish=lambda values: sum(values) / len(values),
    )


def _one_batch(evidence: Evidence) -> float:
    jacobians, labels = evidence.input_gradients, evidence.targets
    assert jacobians is not None and labels is not None  # both are among the needs
    if labels.ndim != 1 or labels.is_floating_point():
        kind = f"{str(labels.dtype).removeprefix('torch.')} of shape {tuple(labels.shape[1:])}"
        raise BadInput(
            "epe_nas compares the samples of each class: it needs labels of one class number a sample, and here every "
            f"sample has {kind}; choose another proxy"
        )
    rows = jacobians.flatten(1).double()
    if not bool(rows.isfinite().all()):
        return math.nan
    parts = [rows[labels == label] for label in labels.unique()]
    scores = [_within(part) for part in parts]
    if evidence.logits.shape[1] <= _MANY_CLASSES:
        return sum(abs(score) for score in scores)
    means = torch.tensor([score / len(part) for score, part in zip(scores, parts, strict=True)], dtype=torch.float64)
    return float((means[:, None] - means[None]).abs().sum()) / len(means)


def _within(rows: Tensor) -> float:
    correlation = torch.atleast_2d(torch.corrcoef(rows)).nan_to_num(0.0, 0.0, 0.0)
    return float((correlation.abs() + _GUARD).log().sum())
