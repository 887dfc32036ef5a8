r"""Quantisation-aware scaling: plain SGD on the weights of an integer network steps as on the real ones behind them.

An integer network holds w = w_real / s_w and b = b_real / (s_w s_x). Its gradients are s_w and s_w s_x times those of
the real parameters, so that weights and gradients are orders of magnitude apart, differently in every layer:

    |w| / |g_w| = |w_real| / |g_real| / s_w^2           g_w <- g_w / s_w^2          g_b <- g_b / (s_w s_x)^2

scales them once, before the step. No state is added. A step of SGD (with momentum too, not with weight decay of another
size, nor with Adam, which scales for itself) is then that of the real parameters, but for rounding.

For the memory of a step put the rules of `sparse_update.scheme_rules` on the network: inputs and weights are then kept
in a byte an element, clamps in a bit.

Traps of the method itself: weights are floats that are rounded when they are used, so steps smaller than the last bit
add up, which a store of 8 bits would lose; and learning in all layers of a network without norms diverges.
Source: Lin et al., "On-Device Training Under 256KB Memory", NeurIPS 2022, arXiv:2206.15472, section 3.1.
Checked against: SGD on the real parameters through autograd (tests/backward/test_int8.py).
"""

import math

import torch
from torch import nn

from edgewright.model.mcunet import RoundedConv


@torch.no_grad()
def scale_gradients(model: nn.Module) -> None:
    """Call between `backward` and the optimizer's step; what has no gradient, or is no integer layer, is left."""
    for layer in model.modules():
        if isinstance(layer, RoundedConv) and layer.bias is not None:
            if layer.weight.grad is not None:
                layer.weight.grad /= layer.weight_scale.view(-1, 1, 1, 1) ** 2
            if layer.bias.grad is not None:
                layer.bias.grad /= (layer.weight_scale * layer.x_scale) ** 2


def norm_ratios(model: nn.Module) -> dict[str, float]:
    """log10(|w| / |g|) of every integer layer's weight and bias that have gradients, by name: how far apart they are.

    Over the channels that pass gradients: a channel that never fires holds any bias (2^31 - 1 in the published ones).
    On MCUNet (mcunet-5fps) and real images: 7.3 on average with a standard deviation of 2.0 as they come, 0.8 and 0.7
    scaled; 0.9 and 0.7 for the real parameters.
    """
    found: dict[str, float] = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, RoundedConv) or layer.bias is None or layer.bias.grad is None:
            continue
        live = layer.bias.grad != 0
        for kind, parameter in (("weight", layer.weight), ("bias", layer.bias)):
            if parameter.grad is not None and live.any():
                ratio = parameter.detach()[live].norm() / parameter.grad[live].norm()
                found[f"{name}.{kind}"] = math.log10(float(ratio))
    return found
