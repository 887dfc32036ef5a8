"""MobileTL: the last blocks of a mobile network learn; inner norms learn their shift, curved activations keep a bit.

In an inverted residual block (expand, norm 1, activation, depthwise, norm 2, activation, project, norm 3), with g the
gradient of what a layer gives:

    convolutions    exact; their inputs are kept
    norms 1, 2      statistics and scale frozen:  g_beta = sum g,  gx = gamma / sigma g;  nothing is kept
    norm 3          scale, shift and statistics learn, as in ordinary training; its input is kept
    activations     gx = g [x > 0]                                     one bit an element

Blocks below the last `blocks`, and all before them, are frozen; no gradient goes there. All after the last block, the
classifier among it, learns as norm 3 and the convolutions do.

Kept for a block of C channels, expansion t and stride 1, in units of (pixels x C) elements of 32 bits: everything
learning, with one-bit ReLU6 masks, (1 + 2t) + (2t + 1) + 2t/32; here (1 + 2t) + 1 + 2t/32. At t = 6 that is 26.4 and
14.4, 45.5 % less. PyTorch as it comes keeps 38 (ReLU6, in place or not: 62 % less) or, with ReLU in place, whose result
is the next convolution's input, 26 (45 % less).

Differs from the paper: the signed mask serves only curved activations (hard-swish, SiLU, GELU); ReLU and its kin get
their exact one-bit masks (`BitMask`), which cost as much; `SignedMask` takes ReLU and ReLU6 where it is asked for.
Blocks are found by their shapes (a depthwise convolution with 1x1 convolutions around it), in any model.
Source: Chiang et al., "MobileTL: On-device Transfer Learning with Inverted Residual Blocks", AAAI 2023,
arXiv:2212.03246. Checked against: autograd with everything but the shifts frozen, the figures of the abstract (46 %
saved, MobileNetV2), and the closed form above (tests/backward/test_mobiletl.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.backward.base import NORMS, Rule
from edgewright.backward.bits import pack, unpack
from edgewright.backward.calls import Call, Kind, Needs, Tensors
from edgewright.backward.exact import BitMask, Exact, FrozenNorm, interval
from edgewright.backward.survey import Site
from edgewright.core.errors import BadInput

_SIGNED = (functional.hardswish, functional.silu, functional.gelu, functional.relu, functional.relu6)


@dataclass(frozen=True, slots=True)
class SignedMask(Rule):
    """An activation whose slope is taken as 1 where the input is positive and 0 elsewhere: one bit an element.

    The slopes it stands for, with Phi and phi of the normal distribution: hard-swish 0 | (2x + 3) / 6 | 1 with ends at
    -3 and 3; SiLU s(x) (1 + x (1 - s(x))); GELU Phi(x) + x phi(x). On normal inputs and gradients the cosine between
    the two gradients is 0.90, 0.93 and 0.95. For ReLU it is exact; ReLU6 also passes what is above 6.
    """

    name: ClassVar[str] = "signed-mask"
    kinds: ClassVar[frozenset[Kind]] = frozenset(("activation",))

    def trained(self, layer: nn.Module) -> tuple[str, ...]:
        return ()

    def refuse(self, call: Call) -> str | None:
        if call.kind == "activation" and call.function not in _SIGNED:
            return f"{call.function.__name__} does not rise like max(0, x); use the exact one-bit mask ('mask')"
        return Rule.refuse(self, call)

    def keep(self, call: Call, needs: Needs, *tensors: Tensor | None) -> Tensors:
        assert tensors[0] is not None
        return (pack(tensors[0] > 0),)

    def gradients(self, call: Call, needs: Needs, gradient: Tensor, kept: Tensors) -> Tensors:
        assert kept[0] is not None
        return (gradient * unpack(kept[0], call.input).view(torch.uint8),)  # five times faster than with booleans


@dataclass(frozen=True, slots=True)
class Block:
    """An inverted residual block, by the names of its layers: all of them in running order, and its last norm."""

    layers: tuple[str, ...]
    last_norm: str


@dataclass(frozen=True, slots=True)
class LastBlocks:
    """What learns and how.   rules: by layer.   trained: names of the parameters that learn; all others are frozen."""

    rules: Mapping[str, Rule]
    trained: tuple[str, ...]


def inverted_residuals(sites: Sequence[Site]) -> tuple[Block, ...]:
    """The blocks of a model, found by shape: [1x1 and norm,] depthwise and norm, 1x1 and norm; what runs between them
    (squeeze-and-excitation) belongs to the block."""
    found: list[Block] = []
    place = {site.name: index for index, site in enumerate(sites)}
    start = 0  # of what no block has taken yet
    for index, site in enumerate(sites):
        if site.calls[0].depthwise and site.feeds:
            wide = site.calls[0].output[1]
            before = [i for i in range(start, index) if _pointwise(sites[i]) and sites[i].calls[0].output[1] == wide]
            after = [s for s in sites[index + 1 :] if _pointwise(s) and s.calls[0].input[1] == wide]
            if after and after[0].feeds:
                first, last = before[-1] if before else index, place[after[0].feeds]
                found.append(Block(tuple(s.name for s in sites[first : last + 1]), after[0].feeds))
                start = last + 1
    return tuple(found)


def _pointwise(site: Site) -> bool:
    call = site.calls[0]
    return call.kind == "conv" and call.options["groups"] == 1 and set(call.weight[2:]) == {1} and bool(site.feeds)


def mobiletl(sites: Sequence[Site], model: nn.Module, *, blocks: int = 3) -> LastBlocks:
    """The rules and the parameters that learn when the last `blocks` inverted residual blocks (3 to 5 in the paper) do.

    sites: of `survey(model, example)`. Put the model in training mode: norm 3 then follows the new data's statistics,
    and the others stay as they are under their rules.
    Errors: BadInput where the model has no such block, or fewer than `blocks`.
    """
    found = inverted_residuals(sites)
    if not 1 <= blocks <= len(found):
        has = f"{len(found)} of them" if found else "none (MobileTL is for mobile networks; use 'full' or 'bias')"
        raise BadInput(f"{blocks} inverted residual blocks were to learn, the model has {has}")
    learning = found[-blocks:]
    names = [site.name for site in sites]
    first = names.index(learning[0].layers[0])
    inner = {name for block in learning for name in block.layers if name != block.last_norm}
    rules: dict[str, Rule] = {}
    trained: list[str] = []
    for index, site in enumerate(sites):
        layer = model.get_submodule(site.name)
        rule = _rule(site, index >= first, site.name in inner)
        if rule is not None:
            rules[site.name] = rule
        if index >= first:
            own = (
                ("weight", "bias") if rule is None and isinstance(layer, NORMS) else rule.trained(layer) if rule else ()
            )
            trained += [f"{site.name}.{name}" for name in own if getattr(layer, name, None) is not None]
    return LastBlocks(rules, tuple(trained))


def _rule(site: Site, learns: bool, inner: bool) -> Rule | None:
    """None leaves a layer to PyTorch: norm 3 and those after the blocks, and activations that no mask serves."""
    call = site.calls[0]
    if call.kind in ("conv", "linear"):
        return Exact("all" if learns else "nothing")
    if call.kind == "norm":
        return FrozenNorm("bias" if learns else "nothing") if inner or not learns else None
    mask = BitMask() if interval(call) is not None else SignedMask()
    return mask if learns and mask.refuse(call) is None else None


def cosine(function: nn.Module, x: Tensor, gradient: Tensor) -> float:
    """Cosine between the signed mask's gradient of an activation and the exact one."""
    x = x.detach().requires_grad_()
    (true,) = torch.autograd.grad(function(x), x, gradient)
    return float(functional.cosine_similarity(true.flatten(), (gradient * (x > 0)).flatten(), dim=0))
