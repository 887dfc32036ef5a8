"""Which channels must go together: labels of channels, carried through every operator of a wiring.

Each convolution and linear layer gives its outputs fresh labels; whatever adds, multiplies or convolves channel by
channel ties labels; what cannot lose a channel (the classes, a norm over all channels, an operator that is not known
here) freezes them, with the reason. What is left, tied and not frozen, can be removed. `groups` makes values of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import nn

from edgewright.compress.wiring import CONSTANT, INPUT, OUTPUT, PARAMETER, Step, Wiring

Role = Literal["makes", "carries", "reads"]
Axis = np.ndarray | None  # a label for each position along an axis; None: nothing is known, or nothing may go
Axes = tuple[Axis, ...]
HEADS = ("num_heads", "num_attention_heads", "n_heads", "heads")  # attributes that reshape by the number of heads
HARMLESS = {"scale", "is_causal", "inplace", "dtype"}
INNER = ("attn_dim", "all_head_size", "inner_dim")  # and by heads times the size of one


@dataclass(frozen=True)
class Operand:
    """What a step reads.   name: of a parameter or buffer, "" for a step's output."""

    name: str
    shape: tuple[int, ...]
    axes: Axes


@dataclass
class Flow:
    """labels: what each axis of each step's output carries; a list for a step that gives several.   slices: the same
    of parameters and buffers, by name and dimension, and what they do with these channels.   settings: of whole-number
    attributes of modules that count channels."""

    model: nn.Module
    wiring: Wiring
    labels: dict[str, Any] = field(default_factory=dict)
    slices: dict[tuple[str, int], tuple[Axis, Role]] = field(default_factory=dict)
    settings: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    frozen: dict[int, str] = field(default_factory=dict)
    parents: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        tensors = [*self.model.named_parameters(remove_duplicate=False), *self.model.named_buffers()]
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors}
        found: dict[int, list[str]] = {}
        for name, tensor in tensors:
            found.setdefault(id(tensor), []).append(name)
        self.shared = {name for names in found.values() if len(names) > 1 for name in names}

    def root(self, label: int) -> int:
        while self.parents[label] != label:
            self.parents[label] = self.parents[self.parents[label]]
            label = self.parents[label]
        return label

    def fresh(self, count: int) -> np.ndarray:
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def tie(self, a: np.ndarray, b: np.ndarray) -> None:
        for one, other in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True):
            low, high = sorted((self.root(one), self.root(other)))
            self.parents[high] = low
            if high in self.frozen:
                self.frozen.setdefault(low, self.frozen.pop(high))

    def freeze(self, axis: Axis, why: str) -> None:
        for label in [] if axis is None else axis.ravel().tolist():
            self.frozen.setdefault(self.root(label), why)

    def slice(self, tensor: str, dim: int, axis: Axis, role: Role) -> Axis:
        """Channels of a tensor lie along `axis`; what they are from now on, where it is used more than once."""
        known = (tensor, dim) in self.slices
        before, first = self.slices.get((tensor, dim), (axis, role))
        if known and before is not None and axis is not None:
            self.tie(before, axis)
        elif known or tensor in self.shared:
            for one in (before, axis):
                self.freeze(one, f"{tensor} is used several times")
        self.slices[tensor, dim] = (axis if before is None else before, first)
        return axis

    def set_by(self, path: str, names: Sequence[str], axis: np.ndarray) -> str | None:
        """Note that an attribute of a module counts these channels; its name, None where there is none."""
        module = self.model.get_submodule(path)
        name = next((name for name in names if getattr(module, name, None) == len(axis)), None)
        if name is not None:
            self.settings[path, name] = axis
        return name

    def follow(self, rules: Mapping[str, "Rule"]) -> "Flow":
        """Label everything, each operator by its rule."""
        for step in self.wiring.steps.values():
            self.labels[step.name] = self._through(step, rules.get(step.operator))
            if OUTPUT in step.readers:
                for axis in _flat(self.labels[step.name]):
                    self.freeze(axis, "")
        return self

    def _through(self, step: Step, rule: "Rule | None") -> Any:
        operands = [self._operand(name) for name in step.operands if name != CONSTANT]
        if rule is not None and CONSTANT not in step.operands and not set(step.keywords) - HARMLESS:
            return rule(self, step, operands)
        for axis in (axis for operand in operands for axis in _flat(operand.axes)):
            self.freeze(axis, f"{step.operator} in {step.own or 'the network'} cannot be followed")
        return (None,) * len(step.shape)

    def _operand(self, name: str) -> Operand:
        if name.startswith(PARAMETER):
            tensor = name.removeprefix(PARAMETER)
            return Operand(tensor, self.shapes[tensor], (None,) * len(self.shapes[tensor]))
        shape = self.wiring.shape(name)
        return Operand("", shape, (None,) * len(shape) if name == INPUT else self.labels[name])


Rule = Callable[[Flow, Step, list[Operand]], Any]  # to what the step's output carries


def _flat(axes: Any) -> list[Axis]:
    return [axis for part in axes for axis in part] if isinstance(axes, list) else list(axes)
