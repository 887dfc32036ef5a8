"""What there is in a model: its layers that rules can serve, their calls and shapes, without computing anything."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgewright.backward.base import LAYERS, Rule, kind_of, swapped
from edgewright.backward.calls import Call, Kind, Needs, Tensors
from edgewright.core.errors import BadInput
from edgewright.ir import torch_calls
from edgewright.ir.network import uncounted


@dataclass(frozen=True, slots=True)
class Site:
    """A layer that rules can serve, and its calls in one forward pass: more than one where it is used repeatedly.

    order: of its first call among all sites.   feeds: name of the batch norm that alone reads what this convolution
    gives, or None.   needs: of each call, which of its tensors need a gradient, as the model's flags are now.
    """

    name: str
    order: int
    calls: tuple[Call, ...]
    feeds: str | None = None
    needs: tuple[Needs, ...] = ()


class _Observe(Rule):
    """Notes the calls and lets them be."""

    name = "observe"
    always = True

    def __init__(self, kind: Kind, note: Callable[[Call, Tensors, Tensor], None]) -> None:
        # Its own alone: a norm may have an activation inside, which is another layer.
        self.kinds = frozenset((kind,))  # pyright: ignore[reportAttributeAccessIssue]
        self._note = note

    def trained(self, layer: nn.Module) -> tuple[str, ...]:
        return ()

    def keep(self, call: Call, needs: Needs, *tensors: Tensor | None) -> Tensors:
        raise NotImplementedError

    def gradients(self, call: Call, needs: Needs, gradient: Tensor, kept: Tensors) -> Tensors:
        raise NotImplementedError

    def run(self, call: Call, *tensors: Tensor | None) -> Tensor:
        result = call.compute(*tensors)
        self._note(call, tensors, result)
        return result


class _Readers(TorchFunctionMode):
    """Counts, for every tensor, the operators that read it; and multiply-adds, wherever they are made.
    uncounted: the first operator whose multiply-adds nobody has said how to count, "" for none."""

    def __init__(self) -> None:
        super().__init__()
        self.count: dict[int, int] = {}
        self.macs, self.uncounted = 0, ""
        self.alive: list[Any] = []  # so that no identity is used twice

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, (Tensor, list)):  # others ask for a shape or a flag
            self.note([*args, *(kwargs or {}).values()])
        self.alive.append(result)
        operator = torch_calls.name_of(func)
        work = torch_calls.work(operator, args, kwargs or {}, result)
        if work is None:
            self.uncounted = self.uncounted or operator
        else:
            self.macs += work.macs
        return result

    def note(self, value: Any) -> None:
        """One reader more for every tensor in a value."""
        if isinstance(value, Tensor):
            self.count[id(value)] = self.count.get(id(value), 0) + 1
        elif isinstance(value, (tuple, list, dict)):
            for part in value.values() if isinstance(value, dict) else value:
                self.note(part)


def survey(model: nn.Module, example: Tensor) -> tuple[Site, ...]:
    """The layers that rules can serve, in the order in which they run, from one forward pass on the meta device.

    example: a batch as the model is trained on; only its shape and type are read. Nothing is computed, and the model is
    left as it was.
    Errors: BadInput where the model cannot run without data.
    """
    return _surveyed(model, example)[0]


def other_macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-adds of a forward pass of `example` outside those layers: transposed convolutions, attention, recurrent
    layers, products that are written out. Errors: BadInput that names what cannot be counted."""
    sites, readers = _surveyed(model, example)
    if readers.uncounted:
        raise uncounted("the model", readers.uncounted, readers.uncounted)
    return readers.macs - sum(call.macs() for site in sites for call in site.calls)


def _surveyed(model: nn.Module, example: Tensor) -> tuple[tuple[Site, ...], _Readers]:
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LAYERS)}
    calls: dict[str, list[Call]] = {}
    needs: dict[str, list[Needs]] = {}
    made: dict[int, str] = {}  # tensors that convolutions gave
    read: dict[str, int] = {}  # what batch norms read
    readers = _Readers()

    def noter(name: str) -> Callable[[Call, Tensors, Tensor], None]:
        def note(call: Call, tensors: Tensors, result: Tensor) -> None:
            calls.setdefault(name, []).append(call)
            needs.setdefault(name, []).append(tuple(t is not None and t.requires_grad for t in tensors))
            readers.alive += [tensors[0], result]
            if call.kind == "conv":
                made[id(result)] = name
            if call.kind == "norm":
                read[name] = id(tensors[0])

        return note

    with (
        swapped(model, {name: _Observe(kind_of(layer), noter(name)) for name, layer in layers.items()}),
        readers,
        torch.enable_grad(),
    ):
        result, _ = on_meta(model, example)
        readers.note(result)  # what the model gives out is read by whoever called it
    feeds: dict[str, str] = {}
    for norm, tensor in read.items():
        conv = made.get(tensor)
        if conv and len(calls[conv]) == len(calls[norm]) == 1 and readers.count.get(tensor, 0) == 1:
            feeds[conv] = norm
    sites = tuple(
        Site(name, order, tuple(found), feeds.get(name), tuple(needs[name]))
        for order, (name, found) in enumerate(calls.items())
    )
    return sites, readers


def on_meta(model: nn.Module, example: Tensor) -> tuple[Any, set[int]]:
    """The model's output on the meta device, and the identities of the storages of its parameters and buffers."""
    own: dict[int, Tensor] = {}
    named = {}
    for prefix, layer in model.named_modules():  # a layer that has two names once: torch would not give it all back
        parameters = layer.named_parameters(recurse=False, remove_duplicate=False)
        for name, tensor in (*parameters, *layer.named_buffers(recurse=False, remove_duplicate=False)):
            if id(tensor) not in own:
                own[id(tensor)] = torch.empty_like(tensor, device="meta").requires_grad_(tensor.requires_grad)
            named[f"{prefix}.{name}" if prefix else name] = own[id(tensor)]
    try:
        result = torch.func.functional_call(model, named, (example.to("meta"),), tie_weights=False)
    except (RuntimeError, NotImplementedError) as error:
        raise BadInput(f"the model cannot be run on shapes alone: {str(error).splitlines()[0]}") from None
    return result, {storage(tensor) for tensor in own.values()}


def storage(tensor: Tensor) -> int:
    """Identity of what holds a tensor's numbers; views share it, and nothing else has it while that lives."""
    return id(tensor.untyped_storage())
