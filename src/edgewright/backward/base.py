"""The mechanism: another backward for a layer, with its forward as it was.

A *rule* says, for the one operator inside a layer, what is kept of its inputs for the backward pass and how gradients
are made from that. `swapped` puts rules on layers of any `nn.Module` and takes them off again. Nothing about the model
but the classes of those layers changes meanwhile: parameters, buffers, names and hooks stay, so `state_dict`, copies,
checkpointing, autocast and gradient accumulation work as before, and a copy made meanwhile has the rules as well.

How: the layer's class becomes a subclass of itself whose forward runs the old forward and takes over the one call of
`conv2d`, `linear`, `batch_norm` or an activation in it. So layers that do more around that call (padding of their own,
an activation inside, standardised weights) need no code here. The operator itself is the one that was called: outputs
are equal bit by bit.
"""

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from edgewright.backward.calls import OPERATORS, Call, Kind, Needs, Tensors, as_call
from edgewright.core.errors import BadInput

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.GELU)
LAYERS = (*CONVS, nn.Linear, *NORMS, *ACTIVATIONS)


class Rule(ABC):
    """How one layer learns: what its backward keeps, what it computes, which parameters it trains.

    A rule is a frozen dataclass; it holds options, never tensors, so one object may serve many layers.
    """

    name: ClassVar[str]
    kinds: ClassVar[frozenset[Kind]]
    always: ClassVar[bool] = False  # whether it takes over calls that need no gradient as well
    evaluating: ClassVar[bool] = False  # whether the layer runs in evaluation mode whatever mode it is in

    @abstractmethod
    def trained(self, layer: nn.Module) -> tuple[str, ...]:
        """Names of the layer's own parameters that learn under this rule."""

    def bound(self, layer: nn.Module) -> "Rule":
        """The rule as it serves this layer. One whose choices depend on the weights makes them here, once, when it is
        put on; the bound rule is data again (`bound` gives it back as it is), and a plan that holds it repeats them."""
        return self

    def refuse(self, call: Call) -> str | None:
        """Why it cannot serve this call and what would, in a sentence's second half; None where it can."""
        return None if call.kind in self.kinds else f"is for {' and '.join(sorted(self.kinds))}, not for {call.kind}"

    @abstractmethod
    def keep(self, call: Call, needs: Needs, *tensors: Tensor | None) -> Tensors:
        """What the backward pass will read. `needs`: which of the tensors need a gradient. Parameters and buffers may
        be given back as they are, which costs nothing; all else is memory that the step holds."""

    @abstractmethod
    def gradients(self, call: Call, needs: Needs, gradient: Tensor, kept: Tensors) -> Tensors:
        """Gradients of the operator's tensors, None where none is needed. `kept`: what `keep` gave."""

    def macs(self, call: Call, needs: Needs) -> int:
        """Multiply-adds of `gradients`: as many as forward for each of input and weight, unless the rule saves some."""
        return call.macs() * (needs[0] + (len(needs) > 1 and needs[1]))

    def stored_bytes(self, call: Call, needs: Needs) -> int:
        """Bytes that `keep` holds for this call, from the shapes alone."""
        if not any(needs):
            return 0
        tensors = [None if shape is None else _blank(shape, call) for shape in call.shapes]
        own = {id(tensor) for tensor in tensors[1:]}
        kept = {id(t): t for t in self.keep(call, needs, *tensors) if t is not None and id(t) not in own}
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    def run(self, call: Call, *tensors: Tensor | None) -> Tensor:
        """The call under this rule."""
        return _Swapped.apply(self, call, *tensors)  # pyright: ignore[reportReturnType]


def _blank(shape: tuple[int, ...], call: Call) -> Tensor:
    dtype = {8: torch.float64, 4: torch.float32, 2: torch.bfloat16}[call.element]
    return torch.empty(shape, dtype=dtype, device="meta")


class _Swapped(torch.autograd.Function):
    """The operator forward, the rule backward."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, call: Call, *tensors: Tensor | None) -> Tensor:
        ctx.rule, ctx.call = rule, call
        ctx.save_for_backward(*rule.keep(call, ctx.needs_input_grad[2:], *tensors))
        if call.options.get("inplace"):  # after keep: it reads the input as it was
            ctx.mark_dirty(tensors[0])
        return call.compute(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return None, None, *ctx.rule.gradients(ctx.call, ctx.needs_input_grad[2:], gradients[0], ctx.saved_tensors)


class _TakeOver(TorchFunctionMode):
    """Hands the operator inside one layer's forward to its rule."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._rule: Rule = layer.__dict__["_backward_rule"]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func not in OPERATORS or OPERATORS[func][0] not in self._rule.kinds:
            return func(*args, **named)
        call, tensors = as_call(func, args, named)
        learns = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
        if not learns and not self._rule.always:
            return func(*args, **named)
        return self._rule.run(call, *tensors)


@contextlib.contextmanager
def swapped(model: nn.Module, rules: Mapping[str, Rule]) -> Iterator[nn.Module]:
    """Put `rules`, by the names of the layers, on a model; on leaving, it is as it was, weights that learned aside.

    Which parameters learn is not touched here (see `plan.applied`): a rule is asked for the gradients of those that
    `requires_grad`.
    Errors: BadInput for a name that the model does not have, or a layer of a kind that no rule can serve.
    """
    layers = dict(model.named_modules())
    for name in rules:
        if name not in layers:
            raise BadInput(f"the model has no layer '{name}'")
        if not isinstance(layers[name], LAYERS):
            raise BadInput(
                f"layer '{name}' is a {type(layers[name]).__name__}; only convolutions, linear layers, batch norms and "
                "plain activations can be given another backward"
            )
        if has_rule(layers[name]):
            raise BadInput(f"layer '{name}' already has another backward; leave that block first")
    before = [(layers[name], type(layers[name])) for name in rules]
    try:
        for name, rule in rules.items():
            layer = layers[name]
            object.__setattr__(layer, "_backward_rule", rule.bound(layer))
            layer.__class__ = _with_rule(type(layer))
        yield model
    finally:
        for layer, kind in before:
            layer.__class__ = kind
            layer.__dict__.pop("_backward_rule", None)


def kind_of(layer: nn.Module) -> Kind:
    """The kind of operator that a layer of `LAYERS` is there for."""
    if isinstance(layer, nn.Linear):
        return "linear"
    return "conv" if isinstance(layer, CONVS) else "norm" if isinstance(layer, NORMS) else "activation"


def has_rule(layer: nn.Module) -> bool:
    return "_backward_rule" in layer.__dict__


@functools.cache
def _with_rule(kind: type[nn.Module]) -> type[nn.Module]:
    """The subclass of a layer's class that runs under a rule; its name stays, so that the model prints as before."""

    def forward(self: Any, *arguments: Any, **named: Any) -> Any:
        mode = self.training
        self.training = mode and not self._backward_rule.evaluating
        try:
            with _TakeOver(self):
                return kind.forward(self, *arguments, **named)
        finally:
            self.training = mode

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
