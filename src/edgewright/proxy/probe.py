"""Passes that a proxy makes itself, where the score asks for other weights or other inputs than the shared pass.

The law: a pass runs on copies. Parameters may be replaced, buffers are cloned, dropout is drawn from the batch's own
seed, hooks and in-place flags are taken back; so a score is the same whichever proxies are asked for with it, and what
is watched is reduced while the pass runs and never kept.
"""

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from edgewright.proxy.base import Evidence
from edgewright.proxy.calls import Convolution, Weighted, fan_in

See = Callable[[str, nn.Module, Tensor, Tensor], None]  # name, module, its input, its output


def run(
    evidence: Evidence,
    inputs: Tensor,
    see: See | None = None,
    *,
    watched: Collection[str] | None = None,
    parameters: Mapping[str, Tensor] | None = None,
    buffers: dict[str, Tensor] | None = None,
) -> Tensor:
    """The model's output for `inputs`, in training mode, on replaced `parameters` and on copies of its buffers.

    Gradients flow to `parameters` and `inputs` where these ask for them, not to the model's own. Channels are last.

    Args:
        see: is shown every call of the `watched` modules (all but the model itself, where None), in running order;
            what it needs later it must reduce or keep itself.
        buffers: written to in place of copies made here, for who wants to read running statistics afterwards.
    """
    model = evidence.model
    held = copied_buffers(model) if buffers is None else buffers
    torch.manual_seed(evidence.generator("dropout").initial_seed())  # the generator is forked around all scoring
    given = {**dict(model.named_parameters()), **(parameters or {})}
    used = {
        name: _fast(tensor if parameters and name in parameters else tensor.detach()) for name, tensor in given.items()
    }
    with _watching(model, see, watched):
        return functional_call(model, {**used, **held}, (_fast(inputs),))


def _fast(tensor: Tensor) -> Tensor:
    """Channels last, which convolutions on processors take a third less time for."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def one_value_a_channel(error: ValueError) -> bool:
    """Whether a batch norm in training mode was given a single value a channel, which has no spread; any other error of
    a pass is the network's or the loss's own fault, and no score."""
    return "more than 1 value per channel" in str(error)


def copied_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Every buffer by name, detached from the model's."""
    return {name: buffer.detach().clone() for name, buffer in model.named_buffers()}


def noise(evidence: Evidence, generator: torch.Generator, shape: tuple[int, ...] | None = None) -> Tensor:
    """Standard normal inputs, of the batch's shape unless `shape` says otherwise."""
    return torch.randn(shape or tuple(evidence.inputs.shape), generator=generator).to(evidence.inputs)


def redrawn(model: nn.Module, generator: torch.Generator, *, he: bool = False) -> dict[str, Tensor]:
    """New parameters by name: weights of convolutions and linear layers from N(0, 1), norms 1, everything else 0.

    Args: he: standard deviation sqrt(2 / fan in) in place of 1 (He initialisation).
    """
    drawn: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            if name == "weight" and isinstance(module, Weighted):
                scale = math.sqrt(2 / fan_in(module)) if he else 1.0
                drawn[full] = (torch.randn(parameter.shape, generator=generator) * scale).to(parameter)
            elif name == "weight" and parameter.ndim == 1:
                drawn[full] = torch.ones_like(parameter, requires_grad=False)
            else:
                drawn[full] = torch.zeros_like(parameter, requires_grad=False)
    return drawn


def blocks(model: nn.Module) -> tuple[str, ...]:
    """Names of the blocks that the model is a chain of, in the order in which they are defined.

    A convolution on its own is a block, and so is every module with parts, except: sequences of modules with parts are
    taken apart (a stage into its blocks), and a sequence of layers without a convolution (a norm and its activation)
    is none. A cell that happens to hold no convolution still is a block.
    """
    root, prefix = model, ""
    while len(children := list(root.named_children())) == 1:  # a wrapper
        prefix += f"{children[0][0]}."
        root = children[0][1]
    return tuple(name for part, child in children for name in _blocks(f"{prefix}{part}", child))


def _blocks(name: str, module: nn.Module) -> Iterator[str]:
    children = list(module.named_children())
    sequence = isinstance(module, nn.Sequential)
    if isinstance(module, nn.ModuleList | nn.ModuleDict) or (sequence and any(any(c.children()) for _, c in children)):
        for part, child in children:
            yield from _blocks(f"{name}.{part}", child)
    elif (children and not sequence) or any(isinstance(part, Convolution) for part in module.modules()):
        yield name


@contextlib.contextmanager
def _watching(model: nn.Module, see: See | None, watched: Collection[str] | None) -> Iterator[None]:
    """Show calls to `see`; in-place activations write elsewhere meanwhile, over what `see` may have kept."""

    def hook_of(name: str, shown: See) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            if arguments and isinstance(arguments[0], Tensor) and isinstance(output, Tensor):
                shown(name, module, arguments[0], output)

        return hook

    flags = [(part, part.inplace) for part in model.modules() if isinstance(getattr(part, "inplace", None), bool)]
    handles = []
    try:
        for part, _ in flags if see else ():
            part.inplace = False  # pyright: ignore[reportArgumentType]
        for name, part in model.named_modules() if see else ():
            if name and (watched is None or name in watched):
                handles.append(part.register_forward_hook(hook_of(name, see)))  # pyright: ignore[reportArgumentType]
        yield
    finally:
        for handle in handles:
            handle.remove()
        for part, flag in flags:
            part.inplace = flag
