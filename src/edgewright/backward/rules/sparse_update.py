"""Sparse updates: a slice of a layer's weight learns, and only the inputs of that slice are kept.

For a convolution or linear layer y = W x + b and a set S of its input channels (of a depthwise one: its channels), with
g the gradient of what it gives:

    gx = W^T g  (exact)      gW[:, S] = g x[S]^T,  zero elsewhere      gb = sum g  (exact)

S is chosen once, when the rule is put on: the int(share x channels) (at least one) whose weights have the largest norm.
Which layers learn what is a `Scheme`; `scheme_search.py` finds one for a budget, `int8.py` scales integer gradients.

The paper's memory of a scheme, in bits for one image, over the layers whose bias learns (the last n of them):

    outputs (one-bit masks) + 32 biases + 8 pixels |S| (inputs) + 8 |W[:, S]|           the classifier is not counted

Source: Lin et al., "On-Device Training Under 256KB Memory", NeurIPS 2022, arXiv:2206.15472.
Differs from the paper: grouped convolutions, which it updates whole, learn the same channels of every group; linear
layers are served too. The gradient has the shape of the whole weight, with zeros, so that any optimizer works; one with
weight decay also shrinks what does not learn. Where a float network's inputs are kept, they cost 32 bits, not 8.
Checked against: autograd's gradient on the slice, bit-identical weights elsewhere, the published 100 KB scheme and the
bytes that a step really keeps (tests/backward/test_sparse_update.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgewright.backward.base import Rule
from edgewright.backward.calls import Call, Kind, Needs, Tensors, conv_input_gradient, conv_weight_gradient
from edgewright.backward.exact import BitMask
from edgewright.backward.survey import Site
from edgewright.core.errors import BadInput
from edgewright.model.mcunet import RoundedConv


@dataclass(frozen=True, slots=True)
class SubTensor(Rule):
    """A convolution or linear layer of whose weight a share of the input channels learns; with share 0 its bias alone.

    share: 0 to 1.   channels: those that learn, rising; None until the rule is bound to a layer.   zero: zero point of
    the inputs of an integer layer, which are then kept in a byte an element, and its weights likewise; None for floats.
    """

    share: float
    channels: tuple[int, ...] | None = None
    zero: float | None = None
    name: ClassVar[str] = "sub-tensor"
    kinds: ClassVar[frozenset[Kind]] = frozenset(("conv", "linear"))

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise BadInput(f"the share of a weight that learns is between 0 and 1, not {self.share}")

    def trained(self, layer: nn.Module) -> tuple[str, ...]:
        return ("weight", "bias") if self.share else ("bias",)

    def bound(self, layer: nn.Module) -> "SubTensor":
        if self.channels is not None:
            return self
        weight = layer.weight
        assert isinstance(weight, Tensor)
        groups = getattr(layer, "groups", 1)
        zero = layer.x_zero if isinstance(layer, RoundedConv) else None
        return replace(self, channels=self._largest(weight, groups), zero=zero)

    def run(self, call: Call, *tensors: Tensor | None) -> Tensor:
        if self.channels is not None:
            return Rule.run(self, call, *tensors)
        assert tensors[1] is not None
        rule = replace(self, channels=self._largest(tensors[1], call.options.get("groups", 1)))
        return Rule.run(rule, call, *tensors)

    def count(self, num_channels: int) -> int:
        """How many of a layer's channels learn."""
        return max(1, int(num_channels * self.share)) if self.share else 0

    def _largest(self, weight: Tensor, groups: int) -> tuple[int, ...]:
        num_channels = _num_channels(tuple(weight.shape), groups)
        if weight.is_meta or self.share in (0, 1):
            return tuple(range(self.count(num_channels)))
        weight = weight.detach().float()
        by_channel = weight if _alone(weight.shape, groups) else weight.transpose(0, 1)
        order = by_channel.reshape(num_channels, -1).norm(dim=1).argsort(descending=True, stable=True)
        return tuple(sorted(order[: self.count(num_channels)].tolist()))

    def _chosen(self, call: Call) -> tuple[int, ...]:
        if self.channels is not None:
            return self.channels
        return tuple(range(self.count(_num_channels(call.weight, call.options.get("groups", 1)))))

    def keep(self, call: Call, needs: Needs, *tensors: Tensor | None) -> Tensors:
        x, weight, _ = tensors
        assert x is not None and weight is not None
        channels = self._chosen(call)
        kept = None
        if needs[1] and channels:
            kept = x if len(channels) == _all(call) else _take(x, _inputs(call, channels), _axis(call))
        if self.zero is not None:
            kept = None if kept is None else (kept + self.zero).to(torch.int8)
            weight = weight.to(torch.int8) if needs[0] else None
        return kept, (weight if needs[0] else None)

    def gradients(self, call: Call, needs: Needs, gradient: Tensor, kept: Tensors) -> Tensors:
        x, weight = (None if tensor is None else tensor.to(gradient.dtype) for tensor in kept)
        if x is not None and self.zero is not None:
            x = x - self.zero
        gx = None
        if weight is not None:
            gx = conv_input_gradient(call, gradient, weight) if call.kind == "conv" else gradient @ weight
        gb = gradient.sum([d for d in range(gradient.dim()) if d != _axis(call) % gradient.dim()]) if needs[2] else None
        if not needs[1]:
            return gx, None, gb
        gw = gradient.new_zeros(call.weight)
        if x is not None:
            self._fill(gw, call, gradient, x)
        return gx, gw, gb

    def _fill(self, gw: Tensor, call: Call, gradient: Tensor, x: Tensor) -> None:
        """The gradient of the slice, written into its place in the whole weight's."""
        channels = self._chosen(call)
        if call.kind == "linear":
            part = gradient.reshape(-1, gradient.shape[-1]).T @ x.reshape(-1, x.shape[-1])
            gw.index_copy_(1, _index(channels, gw), part)
            return
        groups = call.options["groups"]
        if _alone(call.weight, groups):
            each = call.weight[0] // groups
            outputs = tuple(channel * each + place for channel in channels for place in range(each))
            gradient, groups = _take(gradient, outputs, 1), len(channels)
            shape, axis, places = (len(outputs), *call.weight[1:]), 0, outputs
        else:
            shape, axis, places = (call.weight[0], len(channels), *call.weight[2:]), 1, channels
        part = replace(
            call.with_options(groups=groups), shapes=(tuple(x.shape), shape, None), output=tuple(gradient.shape)
        )
        gw.index_copy_(axis, _index(places, gw), conv_weight_gradient(part, gradient, x))

    def macs(self, call: Call, needs: Needs) -> int:
        return call.macs() * needs[0] + call.macs() * len(self._chosen(call)) // _all(call) * needs[1]


def _alone(weight: Sequence[int], groups: int) -> bool:
    """Whether every group reads one channel, so that channels are chosen among groups."""
    return groups > 1 and weight[1] == 1


def _num_channels(weight: tuple[int, ...], groups: int) -> int:
    return groups if _alone(weight, groups) else weight[1]


def _all(call: Call) -> int:
    return _num_channels(call.weight, call.options.get("groups", 1))


def _axis(call: Call) -> int:
    return 1 if call.kind == "conv" else -1


def _inputs(call: Call, channels: tuple[int, ...]) -> tuple[int, ...]:
    """Places in the input of the chosen channels: of a grouped convolution the same ones of every group."""
    if call.kind == "linear" or _alone(call.weight, call.options["groups"]):
        return channels
    width = call.weight[1]
    return tuple(group * width + channel for group in range(call.options["groups"]) for channel in channels)


def _index(places: tuple[int, ...], like: Tensor) -> Tensor:
    return torch.tensor(places, device=like.device)


def _take(x: Tensor, places: tuple[int, ...], axis: int) -> Tensor:
    return x.index_select(axis, _index(places, x))


@dataclass(frozen=True, slots=True)
class Scheme:
    """What learns.   num_biases: the last so many convolutions learn their biases.   shares: of those, by name, the
    share of the weight that learns too; 1 is all of it."""

    num_biases: int
    shares: Mapping[str, float] = field(default_factory=dict)


def convolutions(sites: Sequence[Site]) -> tuple[Site, ...]:
    return tuple(site for site in sites if site.calls[0].kind == "conv")


def scheme_rules(scheme: Scheme, sites: Sequence[Site], model: nn.Module) -> tuple[dict[str, Rule], tuple[str, ...]]:
    """The rules of a scheme by layer, and the names of the parameters that learn; linear layers learn as they are, and
    activations behind the first layer that learns keep a bit an element where that is exact.

    Errors: BadInput for a share of a layer whose bias does not learn, or of one that is not there.
    """
    learning = _learning(scheme, convolutions(sites))
    rules: dict[str, Rule] = {}
    trained: list[str] = []
    for site in sites:
        layer, kind = model.get_submodule(site.name), site.calls[0].kind
        if site.name in learning:
            rules[site.name] = rule = SubTensor(scheme.shares.get(site.name, 0.0)).bound(layer)
            names = rule.trained(layer)
        elif kind == "activation" and rules and BitMask().refuse(site.calls[0]) is None:
            rules[site.name], names = BitMask(), ()
        else:
            names = ("weight", "bias") if kind == "linear" else ()
        trained += [f"{site.name}.{name}" for name in names if getattr(layer, name, None) is not None]
    return rules, tuple(trained)


def _learning(scheme: Scheme, convs: Sequence[Site]) -> dict[str, Site]:
    if not 0 <= scheme.num_biases <= len(convs):
        raise BadInput(f"the biases of {scheme.num_biases} convolutions were to learn; the model has {len(convs)}")
    learning = {site.name: site for site in convs[len(convs) - scheme.num_biases :]}
    for name in scheme.shares:
        if name not in learning:
            raise BadInput(f"the weight of '{name}' was to learn; it is not among the last {scheme.num_biases} layers")
    return learning


def memory_bits(scheme: Scheme, convs: Sequence[Site]) -> int:
    """The paper's memory of a scheme for one image, in bits (see the top of this file). convs: of `convolutions`."""
    return sum(layer_bits(site, scheme.shares.get(site.name, 0.0)) for site in _learning(scheme, convs).values())


def layer_bits(site: Site, share: float) -> int:
    """One layer's part of `memory_bits`, its bias learning and a share of its weight."""
    call = site.calls[0]
    bits = prod(call.output[1:]) + 32 * call.weight[0]
    chosen = SubTensor(share).count(_all(call))
    inputs = len(_inputs(call, tuple(range(chosen))))
    return bits + 8 * (prod(call.input[2:]) * inputs + prod(call.weight) * chosen // _all(call))
