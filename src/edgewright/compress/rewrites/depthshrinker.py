r"""DepthShrinker: drop the activations inside whole blocks, so that each of these blocks merges into one convolution.

1. *Decisions.* All activations inside a block share one; so have the stem's and the head's own (MobileNetV2 has 19).
2. *Search.* Every decision l has a score s_l in [0, 1], "how linear". The k smallest are kept (b_l = 0), the others
   dropped (b_l = 1), anew in every step; x passes

       y = a(x) + (x - a(x)) b_l            db_l/ds_l taken as 1 in [0, 1]  (straight-through)

       loss = task + weight * sum_l share_l (1 - s_l)        share_l = saving_l / sum of savings

   so what costs most is pushed towards being dropped. Savings are latencies in ms where measured, MACs otherwise.
3. *Fine-tuning* with dropped activations gone and one new ReLU6 behind each such block, after the residual; with
   self-distillation from the network as it was:

       (1 - alpha) task + alpha T^2 KL(teacher || student) + w sum MSE(features)

4. *Merging* is `merge_linear`.

Where it departs, and why. From the authors' code, as described: its cost term has the sign that keeps the most
expensive blocks, here it is the paper's intent; scores that leave [0, 1] get no gradient there and freeze, here they
are put back to the edge in every training step; equal scores (all, at the start) are told apart by their saving, the
largest dropped first; scores start at one half, since at 0, the edge, those of blocks that the task wants kept cannot
tell how much; blocks are really merged, borders included. From the paper: savings enter as shares, so that the
weight has no unit; the mean squared error of features is over blocks that are named, none by default.

Source: Fu et al., "DepthShrinker: A New Compression Paradigm Towards Boosting Real-Hardware Efficiency of Compact
Neural Networks", ICML 2022, arXiv:2206.00843. Checked against: MACs and parameters of MobileNetV2-1.4 merged by the six
published lists, exactly k decisions kept in every step, the block with the dominating saving dropped first, finite
differences of the mask (tests/compress/test_depthshrinker.py). Accuracies on ImageNet are not reproduced.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.compress.affine import num_operators
from edgewright.compress.base import Found, Rewrite, Saving, replace, saved_by
from edgewright.compress.region import macs_of, merged_module, parts_of
from edgewright.compress.wiring import POINTWISE, Step, Wiring, blank, trace
from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput

FINAL = {"relu6": nn.ReLU6, "relu": nn.ReLU}


class Decision(Frozen):
    """One decision. block: the module whose inner activations it drops.   activations: their names.
    saves: what merging the block then saves (negative where a convolution grows).   mergeable: whether the block then
    is one convolution; a stem's or head's single one is as it was.   why: why it cannot be merged, None where it can.
    closed: whether an activation ends the block anyway, and stays."""

    block: str
    activations: tuple[str, ...]
    saves: Saving
    mergeable: bool
    why: str | None = None
    closed: bool = False


class Linearise(Rewrite):
    """layers: the activations that become identities, then the block.   final: what is put behind the block.
    once_merged: what merging it then saves."""

    kind: Literal["linearise"] = "linearise"
    tolerance: float | None = None
    final: Literal["relu6", "relu", ""] = "relu6"
    once_merged: Saving = Saving()

    def promises(self) -> Saving:
        return self.once_merged

    def carry_out(self, model: nn.Module) -> None:
        *activations, block = self.layers
        for name in activations:
            replace(model, name, nn.Identity())
        if self.final:
            replace(model, block, nn.Sequential(model.get_submodule(block), FINAL[self.final]()))


def decisions(model: nn.Module, wiring: Wiring) -> tuple[Decision, ...]:
    """What can be decided, in running order.

    A block is a module with two convolutions or more of which no smaller one has as many; with the largest module
    around it that has no other convolution, which is where a residual is. An activation outside all blocks is decided
    by itself, with the module that holds its one convolution.
    """
    groups: dict[str, list[Step]] = {}
    blocks = _blocks(model)
    for step in wiring.steps.values():
        if step.operator in POINTWISE and step.own and not list(model.get_submodule(step.own).children()):
            groups.setdefault(_home(step.own, blocks, model), []).append(step)
    linear = copy.deepcopy(model).to("meta")
    for steps in groups.values():
        for step in steps:
            replace(linear, step.own, nn.Identity())
    bare = trace(linear, blank(model, wiring.input_shape, "meta"))
    found = [_decision(linear, wiring, bare, block, steps, block in blocks) for block, steps in groups.items()]
    return tuple(decision for decision in found if decision.activations)


def _blocks(model: nn.Module) -> set[str]:
    convs = {path: _conv_names(model, path) for path, _ in model.named_modules() if path}
    several = {path: names for path, names in convs.items() if len(names) > 1}
    inner = [
        path
        for path, names in several.items()
        if not any(other.startswith(f"{path}.") and len(several[other]) < len(names) for other in several)
    ]
    return {min((p for p in several if several[p] == several[path]), key=len) for path in inner}


def _conv_names(model: nn.Module, path: str) -> frozenset[str]:
    modules = model.get_submodule(path).named_modules(prefix=path)
    return frozenset(name for name, module in modules if isinstance(module, nn.Conv2d))


def _home(activation: str, blocks: set[str], model: nn.Module) -> str:
    """The block an activation is in; outside all, the largest module around it with a single convolution, or itself."""
    around = [activation.rsplit(".", count)[0] for count in range(activation.count(".") + 1)]
    inside = [path for path in around if path in blocks]
    single = [path for path in around if len(_conv_names(model, path)) == 1]
    return (inside or single or [activation])[-1 if not inside else 0]


def _decision(linear: nn.Module, wiring: Wiring, bare: Wiring, block: str, steps: list[Step], whole: bool) -> Decision:
    """The decision about one block; `linear`: the network without all these activations, `bare`: its wiring."""
    _, results = wiring.edges(block)
    closing = [step for step in steps if whole and {step.name} == results]
    names = tuple(dict.fromkeys(step.own for step in steps if step not in closing))
    why = next(filter(None, (wiring.once(name) for name in names)), None)
    if why or not whole:
        return Decision(block=block, activations=() if why else names, saves=Saving(), mergeable=False, why=why)
    inner = bare.by_module.get(block, [])
    sources, results = bare.edges(block)
    parts = parts_of(linear, bare, inner, next(iter(sources))) if len(sources) == len(results) == 1 else None
    if parts is None:
        merged = "not all its operators are convolutions, norms and one residual"
    else:
        merged = bare.once(block) or merged_module(linear, parts)
    if isinstance(merged, str) or parts is None:
        return Decision(block=block, activations=names, saves=Saving(), mergeable=False, why=str(merged))
    macs = sum(step.macs for step in inner) - macs_of(merged, parts)
    saves = saved_by([linear.get_submodule(block)], [merged], macs, len(inner) - num_operators(merged))
    return Decision(block=block, activations=names, saves=saves, mergeable=True, closed=bool(closing))


def find(
    model: nn.Module, wiring: Wiring, *, drop: Sequence[str], final: Literal["relu6", "relu", ""] = "relu6"
) -> Found:
    """Drop the activations of the blocks named in `drop`; training must follow, and then merging.

    final: what is put behind each such block, where no activation ends it already.
    Errors: BadInput for a name that is no decision, and for a block that would not merge.
    """
    known = {decision.block: decision for decision in decisions(model, wiring)}
    rewrites: list[Rewrite] = []
    for name in drop:
        decision = known.get(name)
        if decision is None:
            raise BadInput(f"'{name}' is no block with activations to drop; there are {', '.join(known) or 'none'}")
        if decision.why:
            raise BadInput(f"block '{name}' would not merge into one convolution: {decision.why}")
        ends = final if decision.mergeable and not decision.closed else ""
        rewrites.append(
            Linearise(
                layers=(*decision.activations, name),
                final=ends,
                once_merged=decision.saves if decision.mergeable else Saving(),
                saves=Saving(operators=len(decision.activations) - bool(ends)),
                note=f"merged it saves {decision.saves.macs:,} MACs" if decision.mergeable else "",
            )
        )
    return Found(rewrites=tuple(rewrites))


class Masks(nn.Module):
    """The scores of all decisions. savings: what dropping each saves, any unit; only shares count; negative as none.

    keep: how many decisions are kept in every step.
    """

    shares: Tensor

    def __init__(self, savings: Sequence[float], keep: int) -> None:
        super().__init__()
        if not 0 <= keep <= len(savings):
            raise BadInput(f"of {len(savings)} decisions {keep} cannot be kept")
        worth = torch.tensor([max(0.0, float(saving)) for saving in savings])
        self.scores = nn.Parameter(torch.full((len(savings),), 0.5))
        self.register_buffer("shares", worth / worth.sum().clamp_min(1e-30))
        self.keep = keep

    def dropped(self) -> Tensor:
        """1 for each decision that is dropped, 0 for the `keep` of smallest score; of equals, those that save least."""
        order = torch.argsort(self.shares, descending=True, stable=True)
        order = order[torch.argsort(self.scores.detach()[order], descending=True, stable=True)]
        return torch.zeros_like(self.shares).index_fill(0, order[: len(order) - self.keep], 1.0)

    def gates(self) -> Tensor:
        """b, with the gradient of the scores."""
        soft = self.scores.clamp(0, 1)
        return self.dropped() + soft - soft.detach()

    def penalty(self) -> Tensor:
        """sum_l share_l (1 - s_l), between 0 and 1: less, the more cost the scores say to drop."""
        return (self.shares * (1 - self.scores)).sum()


class MaskedActivation(nn.Module):
    """a(x) + (x - a(x)) b, in place of the activation a; the masks belong to the network around it."""

    def __init__(self, activation: nn.Module, masks: Masks, index: int) -> None:
        super().__init__()
        self.activation = activation
        self._masks = (masks,)  # in a tuple, so that the scores are not among this module's parameters
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        gate = self._masks[0].gates()[self.index]
        active = self.activation(x.clone())  # it may work in place
        return active + (x - active) * gate


class Searched(nn.Module):
    """A network with masks: what stage 2 trains. Children: network, masks."""

    def __init__(self, model: nn.Module, found: Sequence[Decision], masks: Masks) -> None:
        super().__init__()
        self.network = copy.deepcopy(model)
        self.masks = masks
        self.blocks = tuple(decision.block for decision in found)
        for index, decision in enumerate(found):
            for name in decision.activations:
                replace(self.network, name, MaskedActivation(self.network.get_submodule(name), masks, index))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.masks.scores.clamp_(0, 1)  # outside there is no gradient: it would stay there
        return self.network(x)

    def drop(self) -> tuple[str, ...]:
        """The blocks that are dropped as the scores are now, for `find`."""
        flags = self.masks.dropped().tolist()
        return tuple(block for block, flag in zip(self.blocks, flags, strict=True) if flag)


def searched(
    model: nn.Module, found: Sequence[Decision], keep: int, savings: Mapping[str, float] | None = None
) -> Searched:
    """A copy of the network with a mask for each decision that can be taken.

    keep: decisions that stay.   savings: by block, measured latencies in ms saved for one; by default MACs.
    Errors: BadInput where there is no decision, or `keep` is not between 0 and their number.
    """
    possible = [decision for decision in found if decision.why is None]
    if not possible:
        raise BadInput("no block of this network would merge into one convolution, whatever activations are dropped")
    worth = [
        float(decision.saves.macs) if savings is None else float(savings.get(decision.block, 0.0))
        for decision in possible
    ]
    return Searched(model, possible, Masks(worth, keep))


def search_loss(
    *, weight: float = 0.1, task: Callable[[Any, Any], Tensor] = functional.cross_entropy
) -> Callable[[nn.Module, Any, Any], Tensor]:
    """The loss of the search for a training loop: (searched network, inputs, targets) to a number.

    weight: of the cost term, >= 0, unitless.   task: what is learned, (outputs, targets) to a number.
    """

    def loss(model: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
        if not isinstance(model, Searched):
            raise BadInput("this loss is for a network with masks: depthshrinker.searched(model, decisions, keep)")
        return task(model(x), targets) + weight * model.masks.penalty()

    return loss
