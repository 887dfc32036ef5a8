r"""Structured pruning: whole channels, and heads, removed from every parameter they lie in.

    W' = W[kept, :]  of the layer that makes them       W' = W[:, kept]  of the layers that read them

and the like for norms, biases and depthwise convolutions between; `groups` says which these are. What remains is a
smaller dense network, as if it had been built so. Which units stay is the caller's: `prune.plan_pruning` chooses by
importance and measured time.

Exact where what is removed was zero; otherwise training must follow.
Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv:1608.08710. Checked against: the same
network with naively sliced weights; channels that count for nothing, removed, change nothing
(tests/compress/test_prune_channels.py).
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from edgewright.compress.base import Found, Rewrite, Saving
from edgewright.compress.prune.groups import Dependencies, Group, dependencies
from edgewright.compress.wiring import Wiring
from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput
from edgewright.ir.counts import depthwise
from edgewright.model.settle import NORMS

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Cut(Frozen):
    """The positions that stay along a dimension of a parameter or buffer."""

    tensor: str
    dim: int
    keep: tuple[int, ...]


class Count(Frozen):
    """A whole number of a module that counts channels or heads, and its value afterwards."""

    module: str
    attribute: str
    value: int


class Prune(Rewrite):
    """group: the layer that makes the channels.   units: of the group before.   kept: those that stay."""

    kind: Literal["prune"] = "prune"
    tolerance: float | None = None
    group: str
    units: int
    kept: tuple[int, ...]
    cuts: tuple[Cut, ...]
    counts: tuple[Count, ...] = ()

    def carry_out(self, model: nn.Module) -> None:
        for cut in self.cuts:
            _cut(model, cut)
        for count in self.counts:
            setattr(model.get_submodule(count.module), count.attribute, count.value)
        for name in self.layers:
            _tell(model.get_submodule(name))


def _cut(model: nn.Module, cut: Cut) -> None:
    path, _, name = cut.tensor.rpartition(".")
    module = model.get_submodule(path)
    old: Tensor = getattr(module, name)
    if max(cut.keep) >= old.shape[cut.dim]:
        raise TypeError(f"{cut.tensor} has {old.shape[cut.dim]} channels")
    new = old.detach().index_select(cut.dim, torch.tensor(cut.keep, device=old.device)).clone()
    setattr(module, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)


def _tell(module: nn.Module) -> None:
    """The module's own counts of channels, from its weights as they are now."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return
    if isinstance(module, CONVS):
        each = module.out_channels // module.in_channels
        if depthwise(module.groups, module.in_channels):
            module.groups = len(weight) // each
        module.out_channels, module.in_channels = len(weight), weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, NORMS):
        module.num_features = len(weight)


def find(model: nn.Module, wiring: Wiring, *, keep: Mapping[str, Sequence[int]]) -> Found:
    """Keep only these units of these groups, by name; groups that are not named stay whole.
    Errors: BadInput for a name that is no group, and for units that it does not have, or none."""
    found = dependencies(model, wiring)
    groups = {group.name: number for number, group in enumerate(found.groups)}
    for name, units in keep.items():
        if name not in groups:
            known = ", ".join(groups) or "none"
            raise BadInput(f"'{name}' makes no channels that can be removed; layers that do: {known}")
        if not units or len(set(units)) < len(units) or not set(units) <= set(range(found.full[groups[name]])):
            raise BadInput(f"of '{name}' some of the {found.full[groups[name]]} units must stay, each named once")
    rewrites = narrowed(model, found, keep)
    return Found(rewrites=tuple(rewrites), declined=found.declined)


def narrowed(model: nn.Module, found: Dependencies, keep: Mapping[str, Sequence[int]]) -> list[Rewrite]:
    """The rewrites that leave these units of these groups; groups that are not named stay whole."""
    state = _State(model, found)
    return [
        state.prune(number, sorted(keep[group.name]))
        for number, group in enumerate(found.groups)
        if group.name in keep and len(keep[group.name]) < group.units
    ]


class _State:
    """The network as the rewrites so far leave it: what is left of each group, and of each dimension cut."""

    def __init__(self, model: nn.Module, found: Dependencies) -> None:
        self.found, self.left = found, list(found.full)
        self.tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.shapes = {name: list(tensor.shape) for name, tensor in self.tensors.items()}
        self.parameters = {name for name, _ in model.named_parameters()}
        self.stays: dict[tuple[str, int], list[int]] = {}

    def prune(self, number: int, kept: list[int]) -> Prune:
        group = self.found.groups[number]
        touched = dict.fromkeys(member.tensor for member in group.members)
        before = {name: prod(self.shapes[name]) for name in touched}
        macs = self.found.macs(self.left)
        cuts = self._cuts(group, kept)
        self.left[number] = len(kept)
        gone = {name: before[name] - prod(self.shapes[name]) for name in touched}
        return Prune(
            layers=group.layers(),
            group=group.name,
            units=group.units,
            kept=tuple(kept),
            cuts=cuts,
            counts=self._counts(group, len(kept)),
            saves=Saving(
                params=sum(count for name, count in gone.items() if name in self.parameters),
                macs=macs - self.found.macs(self.left),
                bytes=sum(count * self.tensors[name].element_size() for name, count in gone.items()),
            ),
            note=f"{len(kept)} of {group.units} {'heads' if group.heads else 'channels'} stay",
        )

    def _cuts(self, group: Group, kept: list[int]) -> tuple[Cut, ...]:
        """By positions as they are when this rewrite's turn comes."""
        cuts: list[Cut] = []
        removed = sorted(set(range(group.units)) - set(kept))
        for member in group.members:
            place = member.tensor, member.dim
            now = self.stays.get(place) or list(range(self.shapes[member.tensor][member.dim]))
            gone = set(member.index[removed].ravel().tolist())
            self.stays[place] = [position for position in now if position not in gone]
            self.shapes[member.tensor][member.dim] = len(self.stays[place])
            keep = tuple(number for number, position in enumerate(now) if position not in gone)
            cuts.append(Cut(tensor=member.tensor, dim=member.dim, keep=keep))
        return tuple(cuts)

    def _counts(self, group: Group, left: int) -> tuple[Count, ...]:
        gone = {setting: setting.each * (group.units - left) for setting in group.settings}
        counts: list[Count] = []
        for setting, less in gone.items():
            place = f"{setting.module}:{setting.attribute}", -1
            whole = self.stays.get(place) or list(range(setting.each * group.units))
            self.stays[place] = whole[: len(whole) - less]
            counts.append(Count(module=setting.module, attribute=setting.attribute, value=len(self.stays[place])))
        return tuple(counts)
