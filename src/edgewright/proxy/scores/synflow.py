"""SynFlow: the weight of all paths from input to output, without data."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.proxy import probe
from edgewright.proxy.base import Evidence, Proxy
from edgewright.proxy.calls import Weighted

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synflow(*, compat: bool = False) -> Proxy:
    r"""Synaptic flow: how much of the sum of the outputs runs through each weight, summed over the weights.

        S = sum_w | w dR/dw |,   R = sum of the logits for one input of ones, every parameter replaced by |.|

    w: weights of each convolution and linear layer; batch norms bypassed, evaluation mode, float64 (R is a product
    over the depth). No data: only the shape of the batch's inputs is used. Higher is better; spans many powers of ten.

    Args:
        compat: batch norms stay, in training mode, with |weight| and |bias|, as in the survey's code (`synflow_bn` of
            the Zero-Cost Proxies code). A batch norm over a single pixel then has no value: the worst.

    Cost: a forward and a backward pass of one input in float64, once; keeps nothing.
    Differs from the paper: there batch norms keep their running statistics; bypassing them is the Zero-Cost Proxies
    code's choice for ranking networks. ZiCo's code returns minus a mean, after drawing weights from N(0, 1).
    Source: Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow",
    NeurIPS 2020, arXiv:2006.05467. Checked against: a chain of linear layers, where every layer's sum is R; a rewritten
    copy of the network; the numbers of the Zero-Cost Proxies code (both) and of the survey's (compat).
    """

    def update(value: float | None, evidence: Evidence) -> float:
        return _flow(evidence, compat) if value is None else value

    return Proxy(
        name="synflow_compat" if compat else "synflow",
        source="Tanaka et al., SynFlow, NeurIPS 2020, arXiv:2006.05467" + (" (batch norms kept)" * compat),
        summary="flow through all weights of an input of ones, " + ("batch norms kept" if compat else "no norms"),
        needs=frozenset({"inputs", "weights"}),
        init=lambda subject: None,
        update=update,
        finish=float,
    )


def _flow(evidence: Evidence, compat: bool) -> float:
    model = evidence.model
    parameters = {name: p.detach().abs().double() for name, p in model.named_parameters()}
    buffers = {n: b.double() if b.is_floating_point() else b for n, b in probe.copied_buffers(model).items()}
    weights = [
        parameters[f"{name}.weight"].requires_grad_()
        for name, layer in model.named_modules()
        if isinstance(layer, Weighted) and f"{name}.weight" in parameters
    ]
    ones = torch.ones((1, *evidence.inputs.shape[1:]), dtype=torch.float64, device=evidence.inputs.device)
    with torch.enable_grad(), contextlib.nullcontext() if compat else _without_norms(model):
        try:
            total = probe.run(evidence, ones, parameters=parameters, buffers=buffers).sum()
        except ValueError as error:
            if not probe.one_value_a_channel(error):
                raise
            return float("nan")
        if not total.requires_grad:
            return 0.0
        slopes = torch.autograd.grad(total, weights, allow_unused=True, materialize_grads=True)
    return float(sum((weight.detach() * slope).abs().sum() for weight, slope in zip(weights, slopes, strict=True)))


@contextlib.contextmanager
def _without_norms(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and batch norms that hand on what they are given."""

    def bypass(module: nn.Module, arguments: tuple[Tensor, ...], output: Any) -> Tensor:
        return arguments[0]

    modes = [(module, module.training) for module in model.modules()]
    handles = [m.register_forward_hook(bypass) for m in model.modules() if isinstance(m, _NORMS)]
    model.eval()
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
