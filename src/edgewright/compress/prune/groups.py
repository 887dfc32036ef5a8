"""Groups of channels that can be removed, read off the wiring of a network.

A *unit* is what goes at once: a channel with every row and column of every parameter that belongs to it, through
norms, residual additions and whatever else `flow_rules` knows; a whole head of an attention. A *group* is units of a
kind: they lie in the same parameters, and any of them may go. What leaves the network, and what an unknown operator
reads, is in no group.

    found = dependencies(model, trace(model, example))
    found.groups[0].members        # which dimension of which parameter
    found.width("relu_3", 1)       # how many channels a tensor has, as a function of what is left of each group

Source: after Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, arXiv:2301.12900 (the idea of groups
that must go together; read here off one graph of torch.export in one pass of labels).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from edgewright.compress.base import Declined
from edgewright.compress.prune.flow import Flow, Role
from edgewright.compress.prune.flow_rules import RULES
from edgewright.compress.wiring import INPUT, Step, Wiring

LAYERS = frozenset({"conv1d", "conv2d", "conv3d", "linear"})
PRODUCTS = frozenset({"matmul", "scaled_dot_product_attention"})


@dataclass(frozen=True)
class Member:
    """A dimension of a parameter or buffer along which units lie.   index: (units, positions of each).
    role: "makes" the channels (rows of a convolution), "reads" them (its columns), "carries" them (a norm, a bias)."""

    tensor: str
    dim: int
    index: np.ndarray
    role: Role

    @property
    def owner(self) -> str:
        return self.tensor.rpartition(".")[0]

    def rows(self, values: Tensor) -> Tensor:
        """What belongs to each unit of such a tensor: (units, numbers)."""
        moved = values.movedim(self.dim, 0).flatten(1) if values.dim() > 1 else values.unsqueeze(1)
        return moved[torch.from_numpy(self.index).to(values.device)].flatten(1)


@dataclass(frozen=True)
class Setting:
    """A whole number of a module that counts channels: so many a unit."""

    module: str
    attribute: str
    each: int


@dataclass(frozen=True)
class Group:
    """name: of the layer that makes the channels.   units: how many there are."""

    name: str
    units: int
    members: tuple[Member, ...]
    settings: tuple[Setting, ...] = ()

    @property
    def per_unit(self) -> int:
        """Channels of the making layer in a unit: 1, or those of a head."""
        return next(member.index.shape[1] for member in self.members if member.role == "makes")

    @property
    def heads(self) -> bool:
        return bool(self.settings)

    def layers(self) -> tuple[str, ...]:
        """The modules that change, the one that makes the channels first."""
        owners = [member.owner for member in sorted(self.members, key=lambda member: member.role != "makes")]
        return tuple(dict.fromkeys([*owners, *(setting.module for setting in self.settings)]))


@dataclass(frozen=True)
class Width:
    """How many channels: fixed + sum of (what is left of a group) times how often it counts."""

    fixed: int
    parts: tuple[tuple[int, int], ...] = ()

    def at(self, left: Sequence[int]) -> int:
        return self.fixed + sum(left[group] * times for group, times in self.parts)


@dataclass(frozen=True)
class Dependencies:
    """groups: in running order.   declined: layers whose channels cannot be removed, and why."""

    wiring: Wiring
    groups: tuple[Group, ...]
    declined: tuple[Declined, ...]
    axes: Mapping[str, tuple[Width, ...]]

    def width(self, step: str, axis: int) -> Width:
        """Of an axis of what a step gives (or INPUT)."""
        if step == INPUT:
            return Width(self.wiring.input_shape[axis])
        return self.axes[step][axis]

    @cached_property
    def full(self) -> tuple[int, ...]:
        """The units of each group."""
        return tuple(group.units for group in self.groups)

    def macs(self, left: Sequence[int]) -> int:
        """Multiply-adds of one input with so many units left of each group."""
        return sum(self.layer_macs(name, left) for name, step in self.wiring.steps.items() if step.macs)

    def layer_macs(self, name: str, left: Sequence[int]) -> int:
        """Of one step: as many as it has, times what is left of each axis that they are proportional to."""
        step = self.wiring.steps[name]
        macs = step.macs
        for width, full in proportional(self, step):
            macs = macs * width.at(left) // full
        return macs


def proportional(found: Dependencies, step: Step) -> list[tuple[Width, int]]:
    """The axes that a step's multiply-adds are proportional to, and their full sizes: what a layer makes and, where it
    sums over all channels or over groups of them, what it reads; of a product every axis of its left side, and the last
    of its right one. Of other steps none: their channels are not removed."""
    source, shape = step.inputs[0], found.wiring.shape(step.inputs[0])
    if step.operator in LAYERS:
        axis = -1 if step.operator == "linear" else 1
        made = [(found.width(step.name, axis), step.shape[axis])]
        alone = step.work is not None and step.work.layer == "depthwise"
        return made if alone else [*made, (found.width(source, axis), shape[axis])]
    if step.operator in PRODUCTS and len(step.inputs) > 1:
        other = step.inputs[1]
        every = [(found.width(source, axis), size) for axis, size in enumerate(shape)]
        last = (found.width(other, -1), found.wiring.shape(other)[-1])
        return [*every, last] if step.operator == "matmul" else every
    return []


def dependencies(model: nn.Module, wiring: Wiring) -> Dependencies:
    """The groups of a network; `model` may be on the meta device."""
    flow = Flow(model, wiring).follow(RULES)
    roots = np.array([flow.root(label) for label in range(len(flow.parents))], dtype=int)
    groups = _groups(flow, roots)
    at = {unit: number for number, (_, units) in enumerate(groups) for unit in units}
    axes = {
        name: tuple(_width(axis, size, roots, at) for axis, size in zip(labels, wiring.shape(name), strict=True))
        for name, labels in flow.labels.items()
        if not isinstance(labels, list)
    }
    return Dependencies(wiring, tuple(group for group, _ in groups), _declined(flow, roots), axes)


def _groups(flow: Flow, roots: np.ndarray) -> list[tuple[Group, list[int]]]:
    places: dict[int, list[tuple[tuple[str, int], np.ndarray]]] = {}
    for key, (axis, _) in flow.slices.items():
        _sort(places, key, axis, roots, flow)
    for (path, attribute), axis in flow.settings.items():
        _sort(places, (f"{path}:{attribute}", -1), axis, roots, flow)
    kinds: dict[tuple, list[int]] = {}
    for unit, found in places.items():
        kinds.setdefault(tuple((key, len(index)) for key, index in found), []).append(unit)
    made = [_group(flow, units, [places[unit] for unit in units]) for units in kinds.values()]
    groups = [(group, units) for group, units in zip(made, kinds.values(), strict=True) if group is not None]
    order = {step.owner: number for number, step in reversed(list(enumerate(flow.wiring.steps.values())))}
    groups.sort(key=lambda item: (order.get(item[0].name, 0), item[1][0]))
    return _named(groups)


def _sort(places: dict, key: tuple[str, int], axis: np.ndarray | None, roots: np.ndarray, flow: Flow) -> None:
    if axis is None:
        return
    of = roots[axis]
    for unit in dict.fromkeys(of.tolist()):
        if unit not in flow.frozen:
            places.setdefault(unit, []).append((key, np.flatnonzero(of == unit)))


def _group(flow: Flow, units: list[int], places: list[list]) -> Group | None:
    members: list[Member] = []
    settings: list[Setting] = []
    for column in zip(*places, strict=True):
        (name, dim), index = column[0][0], np.stack([positions for _, positions in column])
        if dim < 0:
            path, _, attribute = name.rpartition(":")
            settings.append(Setting(path, attribute, index.shape[1]))
        else:
            members.append(Member(name, dim, index, flow.slices[name, dim][1]))
    maker = next((member for member in members if member.role == "makes"), None)
    reads = any(member.role == "reads" for member in members)
    if maker is None or not reads:
        return None
    return Group(maker.owner, len(units), tuple(members), tuple(settings))


def _named(groups: list[tuple[Group, list[int]]]) -> list[tuple[Group, list[int]]]:
    """With a number where a layer makes channels of several kinds."""
    names = [group.name for group, _ in groups]
    result = []
    for number, (group, units) in enumerate(groups):
        several = names.count(group.name) > 1
        name = f"{group.name}#{names[:number].count(group.name) + 1}" if several else group.name
        result.append((Group(name, group.units, group.members, group.settings), units))
    return result


def _width(axis: np.ndarray | None, size: int, roots: np.ndarray, at: Mapping[int, int]) -> Width:
    if axis is None:
        return Width(size)
    of = [at.get(unit) for unit in roots[axis].tolist()]
    units: dict[int, set[int]] = {}
    for group, unit in zip(of, roots[axis].tolist(), strict=True):
        if group is not None:
            units.setdefault(group, set()).add(unit)
    parts = tuple((group, of.count(group) // len(members)) for group, members in units.items())
    return Width(of.count(None), parts)


def _declined(flow: Flow, roots: np.ndarray) -> tuple[Declined, ...]:
    reasons: dict[str, list[str]] = {}
    for (tensor, _), (axis, role) in flow.slices.items():
        if role == "makes" and axis is not None:
            why = next((flow.frozen[unit] for unit in roots[axis].tolist() if flow.frozen.get(unit)), None)
            if why:
                reasons.setdefault(why, []).append(tensor.rpartition(".")[0])
    return tuple(
        Declined(kind="prune", layers=tuple(dict.fromkeys(layers)), why=why) for why, layers in reasons.items()
    )
