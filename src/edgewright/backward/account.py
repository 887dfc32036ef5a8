"""What a training step keeps, to the byte, and what it computes: predicted from shapes, and measured by running.

Counted is what autograd holds between the forward and the backward pass, each storage once, without parameters and
buffers (which are there anyway). Gradients and the optimizer's state come on top; `plan` adds them. Prediction runs the
very same model, rules included, on tensors that have shapes but no numbers (torch's meta device), so it cannot differ
from the measurement unless an operator keeps other things on another device (`scaled_dot_product_attention` does).
"""

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgewright.backward.base import LAYERS, NORMS, Rule, has_rule, swapped
from edgewright.backward.calls import Call, Needs, Tensors
from edgewright.backward.survey import on_meta, storage
from edgewright.core.data import read_json


@dataclass(frozen=True, slots=True)
class Kept:
    """One storage that the step holds.   layer: name of the innermost module that was running, "" for the model itself.
    bytes: of the whole storage, though a part of it may be meant.   after: the last convolution, linear layer, norm or
    activation that had run or begun, None before the first."""

    layer: str
    bytes: int
    after: str | None = None


def predict_kept(model: nn.Module, example: Tensor) -> tuple[Kept, ...]:
    """What a forward pass of `example` (shape and type are read) would keep for the backward pass."""
    frozen = {
        name: _EvalNorm()
        for name, layer in model.named_modules()
        if isinstance(layer, NORMS) and not layer.training and not has_rule(layer)
    }
    with swapped(model, frozen), _watched(model) as found:
        _, own = on_meta(model, example)
    return tuple(kept for identity, kept in found.items() if identity not in own)


def measure_kept(model: nn.Module, batch: Tensor) -> tuple[Kept, ...]:
    """What a forward pass of `batch` does keep."""
    own = {storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    with _watched(model) as found:
        result = model(batch)  # held until all is counted
    del result
    return tuple(kept for identity, kept in found.items() if identity not in own)


def total(kept: tuple[Kept, ...]) -> int:
    return sum(one.bytes for one in kept)


def measure_peak(step: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Bytes that PyTorch's allocator held at most on `device` during `step()`, above what it held before: what is kept,
    gradients, and what single operators needed while they ran. On the CPU from the profiler's record, which costs
    time.

    device: where the model of `step` is.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = [event for event in read_json(trace)["traceEvents"] if event.get("name") == "[memory]"]
    changes = [event["args"]["Bytes"] for event in sorted(events, key=lambda event: event["ts"])]
    return max(itertools.accumulate(changes), default=0)


class _EvalNorm(Rule):
    """A batch norm in evaluation mode keeps its input, and, on the meta device only, two vectors more: not here."""

    name = "eval"
    kinds = frozenset(("norm",))

    def trained(self, layer: nn.Module) -> tuple[str, ...]:
        return ("weight", "bias")

    def keep(self, call: Call, needs: Needs, *tensors: Tensor | None) -> Tensors:
        return tensors

    def gradients(self, call: Call, needs: Needs, gradient: Tensor, kept: Tensors) -> Tensors:
        raise NotImplementedError("only for counting")


@contextlib.contextmanager
def _watched(model: nn.Module) -> Iterator[dict[int, Kept]]:
    found: dict[int, Kept] = {}
    alive: list[Tensor] = []  # an identity must not be used twice
    running: list[str] = []
    names = {module: name for name, module in model.named_modules()}

    passed: list[str] = []

    def enter(module: nn.Module, _: object) -> None:
        running.append(names[module])
        if isinstance(module, LAYERS):
            passed[:] = [names[module]]

    def leave(*_: object) -> None:
        running.pop()

    def pack(tensor: Tensor) -> Tensor:
        if (identity := storage(tensor)) not in found:
            alive.append(tensor)
            found[identity] = Kept(running[-1], tensor.untyped_storage().nbytes(), *passed)
        return tensor

    hooks = [module.register_forward_pre_hook(enter) for module in names]
    hooks += [module.register_forward_hook(leave, always_call=True) for module in names]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield found
    finally:
        for hook in hooks:
            hook.remove()
