"""A training step as a plan: which layers learn, by which method, what that keeps and computes; and carrying it out.

The *memory* of a training step is what it needs on top of running the network:

    stored      what autograd keeps between forward and backward, to the byte (see `account`)
    gradients   of the parameters that learn, as PyTorch holds them: as large as the parameters
    state       of the optimizer, `state` numbers for each number that learns (1 for SGD with momentum)

Parameters and buffers are there anyway; what one operator needs while it runs is not counted.

A step learns from a batch. Where only some of its images are *held* at a time, their gradients accumulate to the same
step: what is stored is then of the images held, the multiply-adds stay those of the whole batch.
"""

import contextlib
from collections.abc import Iterator

from pydantic import Field
from torch import nn

from edgewright.backward.base import Rule, swapped
from edgewright.backward.calls import Kind
from edgewright.backward.resolve import rule_for
from edgewright.core.cost import show
from edgewright.core.data import Asked, Frozen

PLAIN = "plain"  # an activation as PyTorch does it


class TrainingBudget(Asked):
    """Ceilings of one training step on the example's batch; None: no ceiling.

    memory_bytes: on top of running the network (see the top of this file).   macs: multiply-adds, forward and backward.
    """

    memory_bytes: int | None = Field(default=None, ge=0)
    macs: int | None = Field(default=None, ge=0)


class LayerPlan(Frozen):
    """What one layer does. stored_bytes, MACs: of a step.   learns: numbers of its parameters that learn.
    share: of all contributions that could be had, None where none were measured."""

    layer: str
    kind: Kind
    method: str
    stored_bytes: int
    forward_macs: int
    backward_macs: int
    learns: int
    share: float | None = None


class TradePoint(Frozen):
    """What a memory budget buys: contribution as a share of training everything in full."""

    memory_bytes: int
    share: float


class TrainingPlan(Frozen):
    """What learns and how; `str` prints it, `applied` carries it out.

    batch: shape of the example.   held: of its images, how many at a time.   layers: in running order.
    stored_bytes: predicted for the whole network, what functions between layers keep (`other_bytes`) included.
    full_*: of plain PyTorch on the whole batch at once, everything learning, norms with frozen statistics.   macs:
    forward and backward, of the layers and of what multiplies outside them (`other_macs`: three times its forward pass,
    as if a gradient went to all that it reads).   state: numbers of the optimizer's state for each that learns.
    curve: what other memory budgets would buy, holding as many images at a time.
    """

    batch: tuple[int, ...]
    held: int
    layers: tuple[LayerPlan, ...]
    stored_bytes: int
    other_bytes: int
    gradient_bytes: int
    state_bytes: int
    memory_bytes: int
    full_stored_bytes: int
    full_memory_bytes: int
    macs: int
    full_macs: int
    other_macs: int = 0
    state: int
    budget: TrainingBudget
    curve: tuple[TradePoint, ...] = ()

    def methods(self) -> dict[str, str]:
        return {row.layer: row.method for row in self.layers}

    def __str__(self) -> str:
        return as_text(self)


def trained(row: LayerPlan, layer: nn.Module) -> tuple[str, ...]:
    """Names of the parameters that learn, of the layer's own."""
    rule = rule_of(row.method, row.kind)
    own = dict(layer.named_parameters(recurse=False))
    return tuple(name for name in (rule.trained(layer) if rule else ()) if name in own)


def rule_of(method: str, kind: Kind) -> Rule | None:
    return None if method == PLAIN else rule_for(method, kind)


@contextlib.contextmanager
def learning(model: nn.Module, plan: TrainingPlan) -> Iterator[None]:
    """`requires_grad` on for what learns under the plan, off for all else; on leaving as before."""
    layers = dict(model.named_modules())
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        for row in plan.layers:
            own = dict(layers[row.layer].named_parameters(recurse=False))
            for name in trained(row, layers[row.layer]):
                own[name].requires_grad_(True)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextlib.contextmanager
def applied(model: nn.Module, plan: TrainingPlan) -> Iterator[nn.Module]:
    """The model with the plan's backward; on leaving it is as before, but for the weights that learned.

    Inside, parameters that do not learn have `requires_grad` off, so an optimizer over the others is
    `SGD((p for p in model.parameters() if p.requires_grad), ...)`; batch norms run on their frozen statistics whatever
    mode the model is in.
    Errors: BadInput for a plan of another model.
    """
    rules = {row.layer: rule for row in plan.layers if (rule := rule_of(row.method, row.kind)) is not None}
    with swapped(model, rules), learning(model, plan):
        yield model


def said(count: float) -> str:
    """Bytes for people: 1 MB = 1024 x 1024."""
    if count < 1024:
        return f"{count:.0f} bytes"
    if count < 2**20:
        return f"{count / 1024:.2f} KB" if count < 10 * 1024 else f"{count / 1024:.1f} KB"
    return f"{count / 2**20:.2f} MB"


def held_of(plan: TrainingPlan) -> str:
    """How many images are held at a time, for people; nothing where that is all of the batch."""
    return "" if plan.held == plan.batch[0] else f", {plan.held} held at a time,"


def batch_of(plan: TrainingPlan) -> str:
    """The batch for people."""
    return " x ".join(map(str, plan.batch)) + held_of(plan).rstrip(",")


def as_text(plan: TrainingPlan) -> str:
    """What learns, layer by layer, and the sums; layers without work of their own are counted in the last lines."""
    rows = [row for row in plan.layers if row.learns]
    width = max([len("layer"), *(len(row.layer) for row in rows)])
    lines = [
        f"{'layer':<{width}}  {'method':<10} {'learns':>9} {'stored':>10} {'M MACs fwd':>10} {'M MACs bwd':>10}  share",
        *(
            f"{row.layer:<{width}}  {row.method:<10} {row.learns:>9,} {said(row.stored_bytes):>10} "
            f"{row.forward_macs / 1e6:>10.2f} {row.backward_macs / 1e6:>10.2f}"
            + (f"  {100 * row.share:4.1f} %" if row.share is not None else "")
            for row in rows
        ),
    ]
    passing = sum(row.stored_bytes for row in plan.layers if not row.learns) + plan.other_bytes
    frozen = sum(row.kind != "activation" and not row.learns for row in plan.layers)
    lines += [
        f"{frozen} layers frozen; {said(passing)} kept for the gradient's way through activations and between layers",
        f"batch {batch_of(plan)}: memory {said(plan.memory_bytes)} = {said(plan.stored_bytes)} "
        f"stored + {said(plan.gradient_bytes)} gradients + {said(plan.state_bytes)} optimizer "
        f"({100 * plan.memory_bytes / max(1, plan.full_memory_bytes):.1f} % of full: {said(plan.full_memory_bytes)})",
        f"{show('macs', plan.macs)} a step ({100 * plan.macs / max(1, plan.full_macs):.1f} % of full)",
    ]
    if plan.curve:
        lines.append(
            "memory -> contribution: " + ", ".join(f"{said(p.memory_bytes)} {100 * p.share:.0f} %" for p in plan.curve)
        )
    return "\n".join(lines)
