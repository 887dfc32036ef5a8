"""What each method would bring at each layer, measured on the user's own data.

A step of length t along a method's gradient g' lowers the loss, to first order, by t <g', g> / |g'|, where g is the
gradient over all data. With g'_b of batch b and g the mean of the exact gradients of the batches before it (independent
of b, so that noise does not count as progress),

    contribution = mean over b of <g'_b, mean_{a < b} g_a>  /  root of the mean over b of |g'_b|^2

One forward and backward pass a batch serves all layers and methods at once: each layer's backward makes its exact
gradients, passes the exact input gradient on, and makes every method's weight gradient beside them. First order: what
layers do together is not in it. It holds where it is measured; a network with a new head is measured after the head has
learned a little.

Source: this project. "On-Device Training Under 256KB Memory" (arXiv:2206.15472) takes the accuracy gained by training
one tensor alone, a training for each; this takes a few batches for all. Checked against: the dot products of gradients
made one method at a time (tests/backward/test_contribution.py).
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgewright.backward.base import Rule, swapped
from edgewright.backward.calls import Call, Kind, Needs, Tensors
from edgewright.backward.exact import Exact, FrozenNorm
from edgewright.backward.resolve import exact_onward, rules_of
from edgewright.backward.survey import survey
from edgewright.core.errors import BadInput

Loss = Callable[[Tensor, Tensor], Tensor]


def measure(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss,
    *,
    allowed: Sequence[str] | None = None,
) -> dict[tuple[str, str], float]:
    """Contributions by layer and method, for `plan`.

    Args:
        batches: (x, y), two at least; eight of 32 images are enough to tell layers apart.
        loss: (model(x), y) -> scalar.
        allowed: methods to measure; default all that pass on exact gradients, as the planner's.
    Errors: BadInput for fewer than two batches, or a loss that is not a number.
    """
    notes: dict[str, _Note] = {}
    rules: dict[str, Rule] = {}
    count = 0
    with _learning_and_evaluating(model):
        for x, y in batches:
            if not rules:
                rules = _rules(model, x, tuple(allowed or exact_onward()), notes)
            with swapped(model, rules):
                value = loss(model(x), y)
                if not torch.isfinite(value):
                    raise BadInput(f"the loss is {value.item()} in calibration batch {count + 1}; look at the data")
                torch.autograd.grad(value, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
            for note in notes.values():
                note.close()
            count += 1
    if count < 2:
        raise BadInput(f"contributions need two batches at least; got {count}")
    return {
        (layer, method): value / (count - 1) / math.sqrt(note.squares[method] / count or 1.0)
        for layer, note in notes.items()
        for method, value in note.found.items()
    }


@dataclass
class _Note:
    """Of one layer: the sum of earlier batches' exact gradients, this batch's, and what was found by method."""

    batches: int = 0
    before: dict[int, Tensor] = field(default_factory=dict)
    now: dict[int, Tensor] = field(default_factory=dict)
    found: dict[str, float] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)

    def exact(self, gradients: Tensors) -> None:
        for index in (1, 2):
            if (gradient := _at(gradients, index)) is not None:
                self.now[index] = gradient + self.now[index] if index in self.now else gradient

    def compare(self, method: str, gradients: Tensors) -> None:
        for index in (1, 2):
            if (gradient := _at(gradients, index)) is None:
                continue
            self.squares[method] = self.squares.get(method, 0.0) + float((gradient * gradient).sum())
            if (before := self.before.get(index)) is not None:
                self.found[method] = self.found.get(method, 0.0) + float((gradient * before).sum()) / self.batches

    def close(self) -> None:
        self.before = {index: gradient + self.before.get(index, 0.0) for index, gradient in self.now.items()}
        self.now = {}
        self.batches += 1


def _at(gradients: Tensors, index: int) -> Tensor | None:
    return gradients[index] if len(gradients) > index else None


@dataclass(frozen=True)
class _Compare(Rule):
    """Exact gradients onward, every candidate's beside them."""

    exact: Rule
    candidates: Mapping[str, tuple[Rule, tuple[str, ...]]]
    note: _Note
    name: ClassVar[str] = "compare"
    kinds: ClassVar[frozenset[Kind]] = frozenset(("conv", "linear", "norm"))
    always: ClassVar[bool] = True

    def trained(self, layer: nn.Module) -> tuple[str, ...]:
        return ("weight", "bias")

    def keep(self, call: Call, needs: Needs, *tensors: Tensor | None) -> Tensors:
        return tensors

    def gradients(self, call: Call, needs: Needs, gradient: Tensor, kept: Tensors) -> Tensors:
        found = self.exact.gradients(call, needs, gradient, self.exact.keep(call, needs, *kept))
        self.note.exact(found)
        for method, (rule, names) in self.candidates.items():
            wanted = (False, needs[1] and "weight" in names, needs[2] and "bias" in names, *needs[3:])
            self.note.compare(method, rule.gradients(call, wanted, gradient, rule.keep(call, wanted, *kept)))
        return found


def _rules(model: nn.Module, x: Tensor, allowed: Sequence[str], notes: dict[str, _Note]) -> dict[str, Rule]:
    layers = dict(model.named_modules())
    rules: dict[str, Rule] = {}
    for site in survey(model, x):
        kind = site.calls[0].kind
        if kind == "activation":
            continue
        layer, candidates = layers[site.name], {}
        for method in allowed:
            for rule in rules_of(method):
                if kind in rule.kinds and not any(map(rule.refuse, site.calls)) and rule.trained(layer):
                    candidates[method] = (rule.bound(layer), rule.trained(layer))
        notes[site.name] = _Note()
        exact = FrozenNorm("all") if kind == "norm" else Exact("all")
        rules[site.name] = _Compare(exact, candidates, notes[site.name])
    return rules


@contextlib.contextmanager
def _learning_and_evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(layer, layer.training) for layer in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(True)
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
