"""The exact gradients, keeping no more than they need.

PyTorch keeps the input of a convolution, of a batch norm and of an activation whether or not it will be read. Here, for
an output gradient g:

    conv, linear    gx = W^T g      gW = g x^T     gb = sum g                 x is kept only where W learns
    norm, frozen    gx = c g        gb = sum g     g_gamma = sum g (x - mu) / s    x is kept only where gamma learns
    ReLU and kin    gx = g [0 < x]                                            one bit an element

with c = gamma / s, s^2 = variance + eps. A norm's statistics are frozen, whatever mode the model is in: this is its
evaluation mode. Checked against: PyTorch's own gradients, finite differences (tests/backward/test_contract.py).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.backward.base import Rule
from edgewright.backward.bits import pack, unpack
from edgewright.backward.calls import Call, Kind, Needs, Tensors, conv_input_gradient, conv_weight_gradient

Learns = Literal["all", "bias", "nothing"]
_NAMES: dict[Learns, tuple[str, ...]] = {"all": ("weight", "bias"), "bias": ("bias",), "nothing": ()}


@dataclass(frozen=True, slots=True)
class Exact(Rule):
    """A convolution or linear layer with its exact gradients.

    learns: everything, the bias alone (BitFit's and the sparse update's cheapest choice: nothing is kept), or nothing
    (the gradient passes through). Published for biases: Ben Zaken et al., "BitFit", ACL 2022, arXiv:2106.10199.
    """

    learns: Learns = "all"
    name: ClassVar[str] = "exact"
    kinds: ClassVar[frozenset[Kind]] = frozenset(("conv", "linear"))

    def trained(self, layer: nn.Module) -> tuple[str, ...]:
        return _NAMES[self.learns]

    def keep(self, call: Call, needs: Needs, *tensors: Tensor | None) -> Tensors:
        x, weight, _ = tensors
        return (x if needs[1] else None), (weight if needs[0] else None)

    def gradients(self, call: Call, needs: Needs, gradient: Tensor, kept: Tensors) -> Tensors:
        x, weight = kept
        if call.kind == "conv":
            gx = None if weight is None else conv_input_gradient(call, gradient, weight)
            gw = None if x is None else conv_weight_gradient(call, gradient, x)
            return gx, gw, gradient.sum((0, *range(2, gradient.dim()))) if needs[2] else None
        rows = gradient.reshape(-1, gradient.shape[-1])
        gx = None if weight is None else gradient @ weight
        gw = None if x is None else rows.T @ x.reshape(-1, x.shape[-1])
        return gx, gw, rows.sum(0) if needs[2] else None


@dataclass(frozen=True, slots=True)
class FrozenNorm(Rule):
    """A batch norm with frozen statistics.

    learns: "all" (scale and shift), "bias" (MobileTL's shift-only norm: nothing is kept), or nothing.
    Source of the shift-only norm: Chiang et al., "MobileTL", AAAI 2023, arXiv:2212.03246.
    """

    learns: Learns = "bias"
    name: ClassVar[str] = "frozen-norm"
    kinds: ClassVar[frozenset[Kind]] = frozenset(("norm",))
    evaluating: ClassVar[bool] = True

    def trained(self, layer: nn.Module) -> tuple[str, ...]:
        return _NAMES[self.learns]

    def refuse(self, call: Call) -> str | None:
        if call.kind == "norm" and call.shapes[3] is None:
            return "needs a norm with running statistics; make it with track_running_stats=True"
        return Rule.refuse(self, call)

    def keep(self, call: Call, needs: Needs, *tensors: Tensor | None) -> Tensors:
        x, weight, _, mean, variance = tensors
        return (x if needs[1] else None), weight, mean, variance

    def gradients(self, call: Call, needs: Needs, gradient: Tensor, kept: Tensors) -> Tensors:
        x, weight, mean, variance = kept
        assert mean is not None and variance is not None
        shape = (-1, *(1,) * (gradient.dim() - 2))
        others = (0, *range(2, gradient.dim()))
        over = torch.rsqrt(variance + call.options["eps"])
        scale = over if weight is None else weight * over
        gx = gradient * scale.view(shape).to(gradient.dtype) if needs[0] else None
        gw = None if x is None else (gradient * (x - mean.view(shape)) * over.view(shape)).sum(others)
        return gx, gw, gradient.sum(others) if needs[2] else None, None, None


@dataclass(frozen=True, slots=True)
class BitMask(Rule):
    """An activation that is straight inside an interval and flat outside it, exact from one bit an element.

        ReLU: slope 1 on (0, inf)    ReLU6: (0, 6)    hardtanh: (min, max)    hard sigmoid: slope 1/6 on (-3, 3)

    At the ends PyTorch's own choice is kept: flat.
    """

    name: ClassVar[str] = "bit-mask"
    kinds: ClassVar[frozenset[Kind]] = frozenset(("activation",))

    def trained(self, layer: nn.Module) -> tuple[str, ...]:
        return ()

    def refuse(self, call: Call) -> str | None:
        if call.kind == "activation" and interval(call) is None:
            return f"{call.function.__name__} is curved, one bit does not give its slope; use the signed mask"
        return Rule.refuse(self, call)

    def keep(self, call: Call, needs: Needs, *tensors: Tensor | None) -> Tensors:
        inside = interval(call)
        assert inside is not None and tensors[0] is not None
        low, high, _ = inside
        x = tensors[0]
        return (pack((x > low) & (x < high) if high < torch.inf else x > low),)

    def gradients(self, call: Call, needs: Needs, gradient: Tensor, kept: Tensors) -> Tensors:
        inside = interval(call)
        assert inside is not None and kept[0] is not None
        slope = gradient if inside[2] == 1 else gradient * inside[2]
        return (slope * unpack(kept[0], call.input).view(torch.uint8),)  # five times faster than with booleans


def interval(call: Call) -> tuple[float, float, float] | None:
    """Where an activation is straight, and its slope there; None for one that is curved."""
    if call.function is functional.hardtanh:
        return float(call.options["min_val"]), float(call.options["max_val"]), 1.0
    known = {
        functional.relu: (0.0, torch.inf, 1.0),
        functional.relu6: (0.0, 6.0, 1.0),
        functional.hardsigmoid: (-3.0, 3.0, 1 / 6),
    }
    return known.get(call.function)
