"""The planner: the most useful training step inside a memory and compute budget.

For every layer it chooses among frozen, bias only, shift only, sub-tensor, low rank, filtered and full, by what each is
worth on the user's data (`contribution`) and what it exactly costs (`account`), with a `knapsack`. A gradient
must pass every layer after the first one that learns; that has its own price. The knapsack's prices are additive: they
take branches in running order and count an input that two layers share twice. So its choice is counted exactly, on
shapes, and where it is over, the excess is taken from the budget and the choice made again.

Source: this project; the idea of searching the update scheme by contribution under a memory model is of Lin et al.,
"On-Device Training Under 256KB Memory", NeurIPS 2022, arXiv:2206.15472 (there: evolutionary search, sub-tensors and
biases). Checked against: exhaustive choice on small networks, the bytes of real steps (tests/backward/test_planner.py).
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from edgewright.backward.account import predict_kept, total
from edgewright.backward.base import NORMS, swapped
from edgewright.backward.calls import Call, Needs
from edgewright.backward.plans.knapsack import FROZEN, Choice, Option, solve
from edgewright.backward.plans.training_plan import (
    PLAIN,
    LayerPlan,
    TradePoint,
    TrainingBudget,
    TrainingPlan,
    applied,
    batch_of,
    learning,
    rule_of,
    said,
    trained,
)
from edgewright.backward.plans.worth import Contributions, guess, useful, valued
from edgewright.backward.resolve import exact_onward, rule_for, rules_of
from edgewright.backward.survey import Site, other_macs, survey
from edgewright.core.cost import show
from edgewright.core.errors import BadInput, BudgetInfeasible

ATTEMPTS = 8
POINTS = 12  # of the trade curve
ENOUGH = 0.99  # of the best plan's contribution: for less than the rest, no fewer images are held at a time


@dataclass(frozen=True)
class Menu:
    """What a plan chooses from at each layer, and what each choice would bring.

    contributions: what each method would bring at each layer (`contribution.measure`). Without, guessed: the square
    root of how many numbers learn, times how good the method's gradient usually is.   allowed: methods to choose from;
    default all that pass on exact gradients (`exact_onward`). Frozen always is.   always: layers that learn in full
    whatever their contribution: a new head.
    """

    contributions: Contributions | None = None
    allowed: Sequence[str] | None = None
    always: Sequence[str] = ()

    def methods(self) -> tuple[str, ...]:
        return tuple(self.allowed or exact_onward())

    def of(self, guessed: Sequence[Choice]) -> list[Choice]:
        """The choices worth having, by what they bring. guessed: all that there are, worth what is guessed."""
        options = guessed if self.contributions is None else valued(guessed, self.contributions)
        return [useful(choice, choice.layer in self.always) for choice in options]


ANYTHING = Menu()


def plan(
    model: nn.Module,
    example: Tensor,
    *,
    budget: TrainingBudget | None = None,
    menu: Menu = ANYTHING,
    state: int = 1,
    held: Sequence[int] = (),
    curve: bool = False,
) -> TrainingPlan:
    """The most useful training step inside a budget.

    Args:
        example: a batch as it will be trained on; only shape and type are read.
        held: how many of its images may be held at a time, to choose from; default all of them. Gradients of parts
            accumulate to the same step: fewer held keep less and change no gradient, and are slower, so the most are
            held that cost no contribution. Only a memory budget makes it worth while.
        menu: what each layer may do, and what that would bring; default: any method, by guess.
        state: numbers of optimizer state for each number that learns: 1 for SGD with momentum, 0 without, 2 for Adam.
        curve: whether to say what other memory budgets would buy (a dozen more solutions, seconds).
    Errors: BudgetInfeasible where the budget is below the least possible, saying what that is; BadInput for a model
        without a layer that can learn, or that cannot run on shapes.
    """
    budget = budget or TrainingBudget()

    def ground_of(held: int) -> _Ground:
        return _Ground(model, example, held, menu, state)

    ground, found = _best_held(ground_of, sorted(held or (len(example),), reverse=True), budget)
    if curve:
        found = found.model_copy(update={"curve": ground.curve(found)})
    return found


def _best_held(
    ground_of: Callable[[int], "_Ground"], sizes: Sequence[int], budget: TrainingBudget
) -> tuple["_Ground", TrainingPlan]:
    """The plan that holds the most images among those that contribute as good as the most."""
    plans: list[tuple[_Ground, TrainingPlan]] = []
    for held in sizes:
        ground = ground_of(held)
        try:
            plans.append((ground, ground.best(budget)))
        except BudgetInfeasible:
            if held == sizes[-1] and not plans:
                raise
    worth = [ground.share(found) for ground, found in plans]
    return next(one for one, share in zip(plans, worth, strict=True) if share >= ENOUGH * max(worth))


def plan_of(
    model: nn.Module,
    example: Tensor,
    chosen: Mapping[str, str],
    *,
    state: int = 1,
    held: int | None = None,
    budget: TrainingBudget | None = None,
) -> TrainingPlan:
    """The plan that gives each layer the named method (missing ones are frozen), with its costs: single methods,
    last-k-layers and other schemes beside the planner's own. held: images at a time, default all of the example's."""
    ground = _Ground(model, example, held or len(example), Menu(allowed=("full",)), state)
    unknown = set(chosen) - {choice.layer for choice in ground.choices}
    if unknown:
        raise BadInput(f"the model has no layer '{min(unknown)}' that can learn")
    return ground.costed(dict(chosen), budget or TrainingBudget())


class _Ground:
    """What a plan is made on: the layers with their options and prices."""

    def __init__(self, model: nn.Module, example: Tensor, held: int, menu: Menu, state: int) -> None:
        if len(example) % held:
            raise BadInput(f"a batch of {len(example)} cannot be held {held} at a time: give a divisor")
        self.model, self.state = model, state
        self.batch, self.passes, self.example = tuple(example.shape), len(example) // held, example.detach()[:held]
        self._menu = menu
        self._layers = dict(model.named_modules())
        with _flags(model, True), _evaluating(model):
            sites = survey(model, self.example)
            self._other_macs = 3 * self.passes * other_macs(model, self.example)
            self._full_stored = total(predict_kept(model, example.detach()))
        self._sites = {site.name: site for site in sites}
        if not any(_learnable(self._layers[name]) for name in self._sites):
            raise BadInput("the model has no layer that can learn: no convolution, linear layer or batch norm")
        self._forward = {site.name: self.passes * sum(call.macs() for call in site.calls) for site in sites}
        first = self._forward[sites[0].name] if sites else 0
        self._full_macs = 3 * sum(self._forward.values()) - first + self._other_macs
        own = {p for site in sites for p in self._layers[site.name].parameters(recurse=False)}
        self._full_gradient = sum(p.numel() * p.element_size() for p in own)
        passing = self._passing()
        self.choices = menu.of([self._choice(site, passing.get(site.name, 0)) for site in sites])
        if all(option.method == FROZEN for choice in self.choices for option in choice.options):
            raise BadInput("none of the methods allowed can learn anywhere in this network; allow others")
        self._values = {
            (choice.layer, option.method): option.value for choice in self.choices for option in choice.options
        }
        self._whole = sum(max(option.value for option in choice.options) for choice in self.choices) or 1.0

    def best(self, budget: TrainingBudget) -> TrainingPlan:
        """The best plan whose exact costs keep the budget."""
        memory, macs = budget.memory_bytes, None if budget.macs is None else budget.macs - self._other_macs
        for _ in range(ATTEMPTS):
            chosen = solve(self.choices, memory, macs, state=self.state)
            if chosen is None:
                break
            found = self.costed(chosen, budget)
            over = 0 if budget.memory_bytes is None else found.memory_bytes - budget.memory_bytes
            over_macs = 0 if budget.macs is None else found.macs - budget.macs
            if over <= 0 and over_macs <= 0:
                return found
            memory = None if memory is None else memory - max(over, 0)
            macs = None if macs is None else macs - max(over_macs, 0)
        least = self._least()
        takes = ", ".join(f"{row.layer} ({row.method})" for row in least.layers if row.learns)
        raise BudgetInfeasible(
            f"no training step of a batch of {batch_of(least)} keeps {_ceilings(budget)}: the least possible takes "
            f"{said(least.memory_bytes)} and {show('macs', least.macs)}, for {takes}; give more"
            + (", or a smaller batch" if least.held > 1 else "")
        )

    def share(self, found: TrainingPlan) -> float:
        """Of all contributions that could be had."""
        return self._value(found.methods()) / self._whole

    def curve(self, found: TrainingPlan) -> tuple[TradePoint, ...]:
        """What memory budgets from the least to everything would buy, evenly over the logarithm."""
        low, high = max(1, self._least().memory_bytes), found.full_memory_bytes
        points = []
        for memory in np.geomspace(low, max(high, low + 1), POINTS):
            chosen = solve(self.choices, math.ceil(memory), None, state=self.state)
            if chosen is not None:
                bytes_ = self.costed(chosen, TrainingBudget()).memory_bytes
                points.append(TradePoint(memory_bytes=bytes_, share=self._value(chosen) / self._whole))
        return tuple(sorted(set(points), key=lambda point: (point.memory_bytes, point.share)))

    def costed(self, chosen: Mapping[str, str], budget: TrainingBudget) -> TrainingPlan:
        """The plan of these methods, with what it exactly keeps and computes."""
        rows = [self._row(site, chosen.get(name, FROZEN)) for name, site in self._sites.items()]
        draft = self._plan(rows, 0, budget)
        with applied(self.model, draft):
            kept = predict_kept(self.model, self.example)
        with learning(self.model, draft), _evaluating(self.model):
            needs = {site.name: site.needs for site in survey(self.model, self.example)}
        stored: dict[str, int] = {}
        for one in kept:
            stored[one.layer] = stored.get(one.layer, 0) + one.bytes
        done = [
            row.model_copy(
                update={
                    "stored_bytes": stored.pop(row.layer, 0),
                    "backward_macs": self._backward_macs(row, needs[row.layer]),
                }
            )
            for row in rows
        ]
        return self._plan(done, sum(stored.values()), budget)

    def _backward_macs(self, row: LayerPlan, needs: Sequence[Needs]) -> int:
        rule = rule_of(row.method, row.kind)
        calls = self._sites[row.layer].calls
        return self.passes * sum(rule.macs(call, need) for call, need in zip(calls, needs, strict=True)) if rule else 0

    def _plan(self, rows: list[LayerPlan], other: int, budget: TrainingBudget) -> TrainingPlan:
        learned = {}
        for row in rows:
            own = dict(self._layers[row.layer].named_parameters(recurse=False))
            learned |= {id(own[name]): own[name] for name in trained(row, self._layers[row.layer])}
        gradients = sum(parameter.numel() * parameter.element_size() for parameter in learned.values())
        stored = sum(row.stored_bytes for row in rows) + other
        return TrainingPlan(
            batch=self.batch,
            held=len(self.example),
            layers=tuple(rows),
            stored_bytes=stored,
            other_bytes=other,
            gradient_bytes=gradients,
            state_bytes=self.state * gradients,
            memory_bytes=stored + (1 + self.state) * gradients,
            full_stored_bytes=self._full_stored,
            full_memory_bytes=self._full_stored + (1 + self.state) * self._full_gradient,
            macs=sum(row.forward_macs + row.backward_macs for row in rows) + self._other_macs,
            other_macs=self._other_macs,
            full_macs=self._full_macs,
            state=self.state,
            budget=budget,
        )

    def _row(self, site: Site, method: str) -> LayerPlan:
        layer, kind = self._layers[site.name], site.calls[0].kind
        if kind == "activation":
            method = _activation(site)
        rule = rule_of(method, kind)
        own = {name: p.numel() for name, p in layer.named_parameters(recurse=False)}
        return LayerPlan(
            layer=site.name,
            kind=kind,
            method=method,
            stored_bytes=0,
            forward_macs=self._forward[site.name],
            backward_macs=0,
            learns=sum(own.get(name, 0) for name in rule.trained(layer)) if rule else 0,
            share=self._share(site.name, method),
        )

    def _share(self, layer: str, method: str) -> float | None:
        if self._menu.contributions is None:
            return None
        return self._values.get((layer, method), 0.0) / self._whole

    def _value(self, chosen: Mapping[str, str]) -> float:
        return sum(self._values.get(one, 0.0) for one in chosen.items())

    def _passing(self) -> dict[str, int]:
        """Bytes kept at or after each site only because a gradient passes it."""
        rules = {}
        for name, site in self._sites.items():
            kind = site.calls[0].kind
            if rule := rule_of(_activation(site) if kind == "activation" else FROZEN, kind):
                rules[name] = rule
        with _flags(self.model, False), swapped(self.model, rules):
            kept = predict_kept(self.model, self.example.clone().requires_grad_())
        found: dict[str, int] = {}
        for one in kept:
            place = one.after or next(iter(self._sites))
            found[place] = found.get(place, 0) + one.bytes
        return found

    def _choice(self, site: Site, passing: int) -> Choice:
        options = (Option(FROZEN, 0, 0, 0, 0.0), *self._options(site))
        return Choice(site.name, options, passing, self._forward[site.name], self._forward[site.name])

    def _options(self, site: Site) -> Iterator[Option]:
        layer = self._layers[site.name]
        own = dict(layer.named_parameters(recurse=False))
        for method in self._menu.methods():
            rule = next((rule for rule in rules_of(method) if site.calls[0].kind in rule.kinds), None)
            if rule is None or method == FROZEN or any(map(rule.refuse, site.calls)):
                continue
            rule = rule.bound(layer)
            names = [name for name in rule.trained(layer) if name in own]
            if not names:
                continue
            needs = [_needs(call, names) for call in site.calls]
            pairs = list(zip(site.calls, needs, strict=True))
            stored = sum(rule.stored_bytes(call, need) for call, need in pairs)
            yield Option(
                method=method,
                stored=stored,
                gradient=sum(own[name].numel() * own[name].element_size() for name in names),
                macs=self.passes * sum(rule.macs(call, need) - call.macs() for call, need in pairs),
                value=guess(site, {name: own[name].numel() for name in names}, stored),
            )

    def _least(self) -> TrainingPlan:
        cheapest = solve(self.choices, None, None, state=self.state, cheapest=True)
        assert cheapest is not None
        return self.costed(cheapest, TrainingBudget())


def _learnable(layer: nn.Module) -> bool:
    return next(layer.parameters(recurse=False), None) is not None


def _needs(call: Call, names: Sequence[str]) -> Needs:
    """Which tensors need a gradient in the midst of a network where these parameters learn."""
    every = (True, "weight" in names, "bias" in names, False, False)
    return every[: len(call.shapes)]


def _activation(site: Site) -> str:
    """Exact masks where one bit gives the slope; what is curved stays PyTorch's."""
    mask = rule_for("mask", "activation")
    return PLAIN if any(mask.refuse(call) for call in site.calls) else "mask"


def _ceilings(budget: TrainingBudget) -> str:
    parts = [] if budget.memory_bytes is None else [said(budget.memory_bytes)]
    parts += [] if budget.macs is None else [show("macs", budget.macs)]
    return " and ".join(parts)


@contextlib.contextmanager
def _flags(model: nn.Module, learns: bool) -> Iterator[None]:
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(learns)
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Batch norms in evaluation mode."""
    before = [(layer, layer.training) for layer in model.modules() if isinstance(layer, NORMS)]
    try:
        for layer, _ in before:
            layer.training = False
        yield
    finally:
        for layer, mode in before:
            layer.training = mode
