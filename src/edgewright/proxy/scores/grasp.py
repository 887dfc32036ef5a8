"""GraSP: what taking weights out would do to the size of the gradient."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp
from torch.overrides import TorchFunctionMode

from edgewright.proxy import probe
from edgewright.proxy.base import Evidence, Proxy
from edgewright.proxy.calls import weighted_layers

_OTHER_NORMS = (F.layer_norm, F.group_norm, F.instance_norm)


def grasp() -> Proxy:
    r"""Gradient signal preservation, summed over the weights.

        S = - sum_w  w (H g)_w  =  - w^T H g  =  - d^2/ds dt  L( w + s w + t g )  at s = t = 0

    g, H: gradient and Hessian of the mean cross-entropy of the batch for the weights of every layer.
    Freshly initialised network, training mode; the first batch only, as in the official code. Higher is better.

    The score is one number, so it is taken as a second derivative along two directions, forwards: no graph is kept, and
    the memory is that of a few layers' activations. Where an operator has no such derivative (norms other than batch
    norm, operators without a forward formula), by two backward passes, which keep about three times a training step.
    A layer in front of a batch norm adds || g_l ||^2, up to the norm's eps: scaling its weights changes no loss.
    Cost: a forward and a backward pass for g, shared with all proxies that need gradients, and a forward pass of eight
    times the convolutions, the dearest of all proxies here.
    Differs from the paper: the sum ranks networks (after Zero-Cost Proxies), whose sign this is: the paper prunes the
    weights with the largest - w H g first. Logits are not divided by a temperature; one batch serves g and H.
    Source: Wang et al., "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020,
    arXiv:2002.07376. Checked against: two backward passes, finite differences in float64, the closed form for
    batch-normed layers, and the number of the Zero-Cost Proxies code.
    """
    return Proxy(
        name="grasp",
        source="Wang et al., GraSP, ICLR 2020, arXiv:2002.07376",
        summary="minus weights times Hessian times gradient",
        needs=frozenset({"gradients"}),
        init=lambda subject: None,
        update=lambda value, evidence: _one_batch(evidence) if evidence.index == 0 else value,
        finish=float,
    )


def _one_batch(evidence: Evidence) -> float:
    try:
        return -_forwards(evidence)
    except NotImplementedError:
        return -_backwards(evidence)


def _loss(evidence: Evidence, weights: dict[str, Tensor]) -> Tensor:
    assert evidence.targets is not None  # `gradients` needs them
    return evidence.loss_function(probe.run(evidence, evidence.inputs, parameters=weights), evidence.targets)


def _named(evidence: Evidence, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """By parameter name, each parameter once."""
    owned = {name for name, _ in evidence.model.named_parameters()}
    named = {f"{name}.weight": tensors[name] for name in weighted_layers(evidence.model)}
    return {name: tensor for name, tensor in named.items() if name in owned}


def _forwards(evidence: Evidence) -> float:
    weights, slopes = _named(evidence, evidence.weights), _named(evidence, evidence.gradients)

    def along_weights(at: dict[str, Tensor]) -> Tensor:
        return jvp(lambda point: _loss(evidence, point), (at,), (weights,))[1]

    with torch.no_grad(), _Twice(forwards=True):
        return float(jvp(along_weights, (weights,), (slopes,))[1])


def _backwards(evidence: Evidence) -> float:
    weights = {name: weight.detach().requires_grad_() for name, weight in _named(evidence, evidence.weights).items()}
    slopes = _named(evidence, evidence.gradients)
    leaves = list(weights.values())
    with torch.enable_grad(), _Twice(forwards=False):
        found = torch.autograd.grad(
            _loss(evidence, weights), leaves, create_graph=True, allow_unused=True, materialize_grads=True
        )
        along = torch.stack([(a * b).sum() for a, b in zip(found, slopes.values(), strict=True)]).sum()
        if not along.requires_grad:
            return 0.0
        curved = torch.autograd.grad(along, leaves, allow_unused=True, materialize_grads=True)
    return math.fsum(float((a.detach() * b).sum(dtype=torch.float64)) for a, b in zip(leaves, curved, strict=True))


class _Twice(TorchFunctionMode):
    """Operators from elementary ones, where PyTorch's own cannot be differentiated twice.

    The forward derivative of its batch norm takes the statistics for constants, and those of the other norms may;
    its hard sigmoid has no second derivative.
    """

    def __init__(self, *, forwards: bool) -> None:
        super().__init__()
        self._forwards = forwards

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        if func is F.hardsigmoid:
            return F.relu6(args[0] + 3) / 6
        if func in _OTHER_NORMS and self._forwards:
            raise NotImplementedError
        return func(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As F.batch_norm gives it; running statistics are not moved, which no proxy reads."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    if training or running_mean is None or running_var is None:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        centred = x - x.mean(axes, keepdim=True)
        var = centred.square().mean(axes, keepdim=True)
    else:
        centred, var = x - running_mean.view(shape), running_var.view(shape)
    scale = (var + eps).rsqrt()
    y = centred * (scale if weight is None else scale * weight.view(shape))
    return y if bias is None else y + bias.view(shape)
