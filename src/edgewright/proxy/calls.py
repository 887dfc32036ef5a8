"""What a model is made of and how it runs: its layers, the calls of its modules, and everything a pass would change."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgewright.core.errors import BadInput
from edgewright.ir import torch_calls
from edgewright.ir.network import uncounted

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
Weighted = Convolution | nn.Linear  # layers that multiply what they read by one weight
WEIGHTED = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear,
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One call of a module without children, in running order; shapes are per sample (no batch axis).

    live: whether the output depends on the input and reaches the logits; None where no proxy asked (`live`).
    """

    name: str
    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    live: bool | None = None


@dataclass(frozen=True)
class Product:
    """One call of an operator that multiplies.   name: of the innermost module that ran it, or its own.
    macs: multiply-adds for one sample, None where nobody has said how to count them.   live: as of `Call`."""

    name: str
    operator: str
    macs: int | None
    live: bool | None = None


@dataclass(frozen=True)
class Ran:
    """What running one sample showed, in running order."""

    calls: tuple[Call, ...] = ()
    products: tuple[Product, ...] = ()

    def macs(self, *, live: bool = False) -> int:
        """Multiply-adds of one sample.   live: of the live products alone.
        Errors: BadInput that names what cannot be counted."""
        total = 0
        for product in self.products:
            if product.macs is None:
                raise uncounted("the network", product.name, product.operator)
            total += product.macs if product.live or not live else 0
        return total


def weighted_layers(model: nn.Module) -> dict[str, Weighted]:
    """Every convolution and linear layer by module name: the layers whose weight gradients proxies speak of."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Weighted)}


def fan_in(layer: Weighted) -> int:
    """How many products are summed into each number that a layer makes (of a transposed one, at stride 1)."""
    return layer.weight.numel() // (layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def refuse_other_weights(model: nn.Module, inputs: Tensor) -> None:
    """Proxies that speak of weights would pass over those that are not one of `weighted_layers`.

    A table that is added or looked up (positions, words) multiplies nothing and may be there. Seen by running one
    sample, where there is a parameter of two axes at all that is in doubt.
    Errors: BadInput that names the layer.
    """
    layers = weighted_layers(model)
    made = [name for name, layer in layers.items() if "weight" not in dict(layer.named_parameters(recurse=False))]
    own = {_storage(layer.weight) for layer in layers.values()}
    doubtful = {
        _storage(parameter): name
        for name, module in model.named_modules()
        if name not in layers
        for parameter in module.parameters(recurse=False)
        if parameter.dim() > 1 and _storage(parameter) not in own
    }
    if doubtful:
        watch = _Watch(set(doubtful))
        with torch.no_grad(), watch.watching(model):
            model(inputs[:1])
        made += [doubtful[storage] for storage in watch.read]
    if made:
        raise BadInput(
            f"the layer '{made[0]}' ({type(model.get_submodule(made[0])).__name__}) multiplies by weights that this "
            "score cannot speak of; choose one of structure (params, macs), or convolutions and linear layers"
        )


def refuse_unseen(model: nn.Module) -> None:
    """Errors: BadInput for a scripted module, of which nobody sees from outside what it runs."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise BadInput(f"the layer '{name}' is a scripted module and hides what it runs; give what it was made of")


def _storage(tensor: Tensor) -> int:
    """What tells apart the memory that tensors lie in; a view lies in another's."""
    return tensor.untyped_storage().data_ptr()


def next_name(name: str, taken: dict[str, Any]) -> str:
    """`name` for a module's first call, `name#2` for its second, ..."""
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


class _Watch(TorchFunctionMode):
    """Notes every operator that multiplies, with its result, and which storages of `wanted` these read.
    fetched: autograd follows what is looked up in a table, which is as near as it comes to an input of whole numbers.
    running: the modules that run, the innermost last; of those with parts only what has weights of its own."""

    def __init__(self, wanted: Collection[int] = (), *, fetched: bool = False) -> None:
        super().__init__()
        self.wanted, self.fetched = wanted, fetched
        self.read: list[int] = []
        self.found: list[tuple[Product, Tensor]] = []
        self.running: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        operator = torch_calls.name_of(func)
        if self.fetched and operator == "embedding":
            result.requires_grad_()
        work = torch_calls.work(operator, args, kwargs or {}, result)
        if work is None or work.macs:
            macs, name = None if work is None else work.macs, (self.running or [""])[-1] or operator
            self.found.append((Product(name, operator, macs), next(_tensors(result))))
            self.read += [s for s in map(_storage, _tensors((args, kwargs))) if s in self.wanted] if self.wanted else []
        return result

    @contextlib.contextmanager
    def watching(
        self, model: nn.Module, note: Callable[[str, nn.Module, Any, Any], None] | None = None
    ) -> Iterator[None]:
        """While it lasts; note: is told each call of a module, with its name, what it is given and gives."""
        names = {
            module: name
            for name, module in model.named_modules()
            if not any(module.children()) or next(module.parameters(recurse=False), None) is not None
        }

        def enter(module: nn.Module, _: Any) -> None:
            self.running.append(names[module])

        def leave(module: nn.Module, arguments: Any, output: Any) -> None:
            self.running.pop()
            if note is not None:
                note(names[module], module, arguments, output)

        handles = [module.register_forward_pre_hook(enter) for module in names]
        handles += [module.register_forward_hook(leave) for module in names]
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def run_calls(model: nn.Module, inputs: Tensor, *, live: bool) -> Ran:
    """Every call of a module without children, and of an operator that multiplies wherever it is called, seen by
    running one sample in evaluation mode: `ir.from_torch` says the same of the latter and takes far longer.

    With every parameter frozen (as `left_as_it_was` leaves them), the output of a call depends on the input exactly
    where autograd follows it, and reaches the logits exactly where they have a gradient for it. So an operator that
    makes its own zeros is dead, and so is all that reads only those; one that multiplies its input by 0 is live.
    """
    seen: dict[str, tuple[nn.Module, tuple[int, ...], Tensor]] = {}
    measures = inputs.is_floating_point()
    watch = _Watch(fetched=live and not measures)
    leaves = {module for module in model.modules() if not any(module.children())}

    def note(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        if module in leaves and arguments and isinstance(arguments[0], Tensor) and isinstance(output, Tensor):
            seen[next_name(name, seen)] = (module, tuple(arguments[0].shape[1:]), output if live else output[:0])

    model.eval()
    with torch.set_grad_enabled(live), watch.watching(model, note):
        logits = model(inputs[:1].detach().requires_grad_(live and measures))
    outputs = [*(output for _, _, output in seen.values()), *(output for _, output in watch.found)]
    alive = iter(_reached(logits, outputs) if live else [None] * len(outputs))
    calls = tuple(
        Call(name, module, shape, tuple(output.shape[1:]), next(alive))
        for name, (module, shape, output) in seen.items()
    )
    return Ran(calls, tuple(replace(product, live=next(alive)) for product, _ in watch.found))


def _reached(logits: Tensor, outputs: Sequence[Tensor]) -> list[bool]:
    """Which outputs depend on the input (autograd follows them) and have a way to the logits (a gradient)."""
    followed = [output for output in outputs if output.requires_grad]
    if not logits.requires_grad or not followed:
        return [False] * len(outputs)
    found = iter(torch.autograd.grad(logits.sum(), followed, allow_unused=True))
    return [output.requires_grad and next(found) is not None for output in outputs]


@contextlib.contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Freeze the parameters; afterwards undo all that passes do to a model, to random state and to autograd's flags."""
    modes = [(module, module.training) for module in model.modules()]
    inplace = [
        (module, module.inplace) for module in model.modules() if isinstance(getattr(module, "inplace", None), bool)
    ]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    cuda = sorted(
        {p.device.index for p in model.parameters() if p.device.type == "cuda" and p.device.index is not None}
    )
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for module, flag in inplace:
            module.inplace = flag
        for module, training in modes:
            module.training = training
