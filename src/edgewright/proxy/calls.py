"""What a model is made of and how it runs: its layers, the calls of its modules, and everything a pass would change."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


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


def weighted_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Every Conv2d and Linear by module name: the layers whose weight gradients proxies speak of."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}


def next_name(name: str, taken: dict[str, Any]) -> str:
    """`name` for a module's first call, `name#2` for its second, ..."""
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


def run_calls(model: nn.Module, inputs: Tensor, *, live: bool) -> tuple[Call, ...]:
    """Every call of a module without children, seen by running one sample in evaluation mode.

    With every parameter frozen (as `left_as_it_was` leaves them), the output of a call depends on the input exactly
    where autograd follows it, and reaches the logits exactly where they have a gradient for it. So an operator that
    makes its own zeros is dead, and so is all that reads only those; one that multiplies its input by 0 is live.
    """
    seen: dict[str, tuple[nn.Module, tuple[int, ...], Tensor]] = {}

    def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if arguments and isinstance(arguments[0], Tensor) and isinstance(output, Tensor):
                seen[next_name(name, seen)] = (module, tuple(arguments[0].shape[1:]), output if live else output[:0])

        return hook

    handles = [m.register_forward_hook(record(name)) for name, m in model.named_modules() if not any(m.children())]
    model.eval()
    try:
        with torch.set_grad_enabled(live):
            logits = model(inputs[:1].detach().requires_grad_(live))
    finally:
        for handle in handles:
            handle.remove()
    reached = _reached(logits, {name: output for name, (_, _, output) in seen.items()}) if live else {}
    return tuple(
        Call(name, module, shape, tuple(output.shape[1:]), reached.get(name))
        for name, (module, shape, output) in seen.items()
    )


def _reached(logits: Tensor, outputs: dict[str, Tensor]) -> dict[str, bool]:
    """Which outputs depend on the input (autograd follows them) and have a way to the logits (a gradient)."""
    followed = {name: output for name, output in outputs.items() if output.requires_grad}
    if not logits.requires_grad or not followed:
        return dict.fromkeys(outputs, False)
    found = torch.autograd.grad(logits.sum(), list(followed.values()), allow_unused=True)
    alive = {name for name, gradient in zip(followed, found, strict=True) if gradient is not None}
    return {name: name in alive for name in outputs}


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
