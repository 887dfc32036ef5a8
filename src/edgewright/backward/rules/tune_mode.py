r"""Efficient ConvBN, "Tune mode": a convolution and its frozen batch norm trained as one convolution.

    c = gamma / sqrt(variance + eps)      w' = c w      b' = beta + c (b - mean)      y = conv(x; w', b')

made anew in every forward pass, with autograd on, so the gradients of w, b, gamma, beta and x are those of evaluation
mode (the norm's statistics frozen, the two layers one after the other), while what is stored is x and w' in place of x
and the convolution's output, and one pass over the activations falls away. Training w' itself ("Deploy mode") is
something else: a step on w moves w' by c^2 times what the same step on w' does, so one learning rate does not suit
both; where c is small, a rate that suits w lets w' diverge.

The convolution is any rule's: `inner` is handed the call with w' and b', so Gradient Filtering and the others compose.
Outputs differ from evaluation mode by rounding, the one exception to "forward bit by bit".
Differs from the paper: nothing in the algebra. Left alone are transposed convolutions and the pairs where the paper's
conditions do not hold: a norm in training mode or without statistics, a convolution that others read as well, layers
called more than once.
Source: You et al., "Efficient ConvBN Blocks for Transfer Learning and Beyond", ICLR 2024, arXiv:2305.11624. Checked
against: evaluation mode under autograd, 1e-10 in float64 (tests/backward/test_tune_mode.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgewright.backward.base import NORMS, Rule
from edgewright.backward.calls import Call, Kind, Needs, Tensors
from edgewright.backward.exact import Exact, Learns
from edgewright.backward.survey import Site, storage
from edgewright.core.errors import BadInput

EXACT = Exact()


@dataclass(frozen=True, slots=True, eq=False)
class TuneMode(Rule):
    """A convolution that does its norm's work as well; on the norm goes `PassThrough`. See `tune_mode`.

    norm: the batch norm that alone reads this convolution. The rule holds the module, not its tensors: a deep copy of
    the model made meanwhile takes the copy's norm along.   inner: the rule of the convolution itself.
    """

    norm: nn.Module
    inner: Rule = EXACT
    name: ClassVar[str] = "tune"
    kinds: ClassVar[frozenset[Kind]] = frozenset(("conv",))
    always: ClassVar[bool] = True  # without gradients too: the norm passes through then as well

    def trained(self, layer: nn.Module) -> tuple[str, ...]:
        return self.inner.trained(layer)

    def bound(self, layer: nn.Module) -> Rule:
        return replace(self, inner=self.inner.bound(layer))

    def refuse(self, call: Call) -> str | None:
        return Rule.refuse(self, call) or self.inner.refuse(_with_bias(call))

    def run(self, call: Call, *tensors: Tensor | None) -> Tensor:
        return self._run(call, _norm_tensors(self.norm), *tensors)

    def _run(self, call: Call, norm: Tensors, *tensors: Tensor | None) -> Tensor:
        x, weight, bias = tensors
        assert x is not None and weight is not None
        whole = _with_bias(call)
        fused = (x, *_fused(weight, bias, norm, float(self.norm.eps)))  # pyright: ignore[reportArgumentType]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in fused):
            return self.inner.run(whole, *fused)
        return whole.compute(*fused)

    def keep(self, call: Call, needs: Needs, *tensors: Tensor | None) -> Tensors:
        raise NotImplementedError("the inner rule keeps, of the fused call")

    def gradients(self, call: Call, needs: Needs, gradient: Tensor, kept: Tensors) -> Tensors:
        raise NotImplementedError("the inner rule makes those of w' and b', autograd the others from them")

    def macs(self, call: Call, needs: Needs) -> int:
        """With those from w' to w and c."""
        learns = self._fused_needs(needs)
        return self.inner.macs(_with_bias(call), learns) + 2 * prod(call.weight) * learns[1]

    def stored_bytes(self, call: Call, needs: Needs) -> int:
        """What the inner rule holds, w' where the input needs a gradient, and a few vectors."""
        dtype = {8: torch.float64, 4: torch.float32, 2: torch.bfloat16}[call.element]
        blanks = [
            None if shape is None else torch.empty(shape, dtype=dtype, device="meta", requires_grad=need)
            for shape, need in zip(call.shapes, needs, strict=True)
        ]
        norm = tuple(
            None if t is None else torch.empty_like(t, device="meta").requires_grad_(t.requires_grad)
            for t in _norm_tensors(self.norm)
        )
        own = {storage(tensor) for tensor in (*blanks[1:], *norm) if tensor is not None}
        found: dict[int, Tensor] = {}

        def pack(tensor: Tensor) -> Tensor:
            found[storage(tensor)] = tensor
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = self._run(call, norm, *blanks)
        del result
        return sum(t.untyped_storage().nbytes() for identity, t in found.items() if identity not in own)

    def _fused_needs(self, needs: Needs) -> Needs:
        scale, shift, _, _ = (t is not None and t.requires_grad for t in _norm_tensors(self.norm))
        return needs[0], needs[1] or scale, needs[2] or scale or shift


@dataclass(frozen=True, slots=True)
class PassThrough(Rule):
    """A batch norm whose work the convolution before it does; its scale and shift learn there.

    learns: scale and shift ("all"), the shift ("bias"), or nothing.
    """

    learns: Learns = "all"
    name: ClassVar[str] = "tune-norm"
    kinds: ClassVar[frozenset[Kind]] = frozenset(("norm",))
    always: ClassVar[bool] = True
    evaluating: ClassVar[bool] = True

    def trained(self, layer: nn.Module) -> tuple[str, ...]:
        return {"all": ("weight", "bias"), "bias": ("bias",), "nothing": ()}[self.learns]

    def run(self, call: Call, *tensors: Tensor | None) -> Tensor:
        assert tensors[0] is not None
        return tensors[0]

    def keep(self, call: Call, needs: Needs, *tensors: Tensor | None) -> Tensors:
        return ()

    def gradients(self, call: Call, needs: Needs, gradient: Tensor, kept: Tensors) -> Tensors:
        return gradient, None, None, None, None

    def macs(self, call: Call, needs: Needs) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Tuned:
    """What `tune_mode` decided.   rules: by layer, for `swapped`.   left: the norms that stay as they are, and why."""

    rules: Mapping[str, Rule]
    left: Mapping[str, str]


def tune_mode(
    sites: Sequence[Site], model: nn.Module, inner: Rule | Mapping[str, Rule] = EXACT, *, learns: Learns = "all"
) -> Tuned:
    """Tune mode for every pair of a convolution and the frozen batch norm that alone reads it.

    sites: of `survey(model, example)`.   inner: the rule of the convolutions, or of some by name; pairs whose
    convolution has none there are left.   learns: what of the norms learns.
    Returns: rules for `swapped(model, rules)`, and the norms that were left, each with the reason.
    Errors: BadInput where `inner` names a layer that is no convolution of the model.
    """
    layers = dict(model.named_modules())
    convs = {site.feeds: site for site in sites if site.feeds}
    by_name = dict(inner) if isinstance(inner, Mapping) else {site.name: inner for site in convs.values()}
    known = {site.name for site in sites if site.calls[0].kind == "conv"}
    for name in by_name:
        if name not in known:
            raise BadInput(f"Tune mode was given a rule for '{name}', which is no convolution of this model")
    rules: dict[str, Rule] = {}
    left: dict[str, str] = {}
    for site in sites:
        norm, conv = layers[site.name], convs.get(site.name)
        if not isinstance(norm, NORMS):
            continue
        reason = _unfit(site, norm, conv)
        if not reason and conv is not None:
            rule = by_name.get(conv.name)
            if rule is None:
                reason = f"no rule was given for the convolution '{conv.name}'"
            elif refused := (tuned := TuneMode(norm, rule)).refuse(conv.calls[0]):
                reason = f"the rule of the convolution '{conv.name}' {refused}"
            else:
                rules |= {conv.name: tuned, site.name: PassThrough(learns)}
        if reason:
            left[site.name] = reason
    return Tuned(rules, left)


def _unfit(site: Site, norm: nn.Module, conv: Site | None) -> str | None:
    if norm.training:
        return "is in training mode, its statistics are not frozen; call eval() on it first"
    if norm.running_mean is None or norm.running_var is None:
        return "has no running statistics; make it with track_running_stats=True"
    if len(site.calls) > 1:
        return f"is called {len(site.calls)} times"
    if conv is None:
        return "reads no convolution's output, or not alone, or that of a convolution called more than once"
    return None


def _norm_tensors(norm: nn.Module) -> Tensors:
    """Scale, shift, mean, variance."""
    return norm.weight, norm.bias, norm.running_mean, norm.running_var  # pyright: ignore[reportReturnType]


def _with_bias(call: Call) -> Call:
    return replace(call, shapes=(*call.shapes[:2], (call.output[1],)))


def _fused(weight: Tensor, bias: Tensor | None, norm: Tensors, eps: float) -> tuple[Tensor, Tensor]:
    """w' and b', in the convolution's type; made in the norm's, which under autocast is the finer one."""
    scale, shift, mean, variance = norm
    assert mean is not None and variance is not None
    over = torch.rsqrt(variance + eps)
    c = over if scale is None else scale * over
    fused = weight * c.view(-1, *(1,) * (weight.dim() - 1))
    moved = c * (-mean if bias is None else bias - mean)
    return fused.to(weight.dtype), (moved if shift is None else shift + moved).to(weight.dtype)
