"""One pass over an untrained network that serves every proxy asked for.

The law: a proxy says what it *needs*; `score` makes each batch's forward pass once, and its backward pass once if some
proxy needs gradients, and hands every proxy the evidence of that batch. Proxies stream: the evidence of one batch is
gone before the next one is made, so what is kept is what a proxy's own state keeps. The model, its gradients, buffers,
mode and hooks and every random number generator are afterwards exactly what they were before.

A proxy is three pure functions over an explicit state:

    state = init(subject)              what can be read off the structure: parameters, MACs need nothing else
    state = update(state, evidence)    once per batch
    value = finish(state)              the score

Published scores as compositions: parameters, MACs: `init` only. ZiCo, grad-norm, SNIP: `gradients`. Fisher:
`activations` + `activation_gradients`. NASWOT, SWAP, MeCo: `activations`. Scores that need a pass of their own
(SynFlow's all-ones input, Zen's noise, the NTK's per-sample gradients) make it on `evidence.model` by torch.func, which
changes nothing in place, and draw noise from `evidence.generator`.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgewright.core.errors import BadInput
from edgewright.core.seed import derive

Need = Literal["shapes", "inputs", "labels", "forward", "activations", "gradients", "activation_gradients"]
Batch = tuple[Tensor, Tensor | None]  # inputs (N, C, H, W), labels (N,) or None where the task has none
Loss = Callable[[Tensor, Tensor], Tensor]

_BACKWARD: frozenset[Need] = frozenset({"gradients", "activation_gradients"})
_RECORDED: frozenset[Need] = frozenset({"activations", "activation_gradients"})
_FORWARD: frozenset[Need] = _BACKWARD | _RECORDED | {"forward"}


@dataclass(frozen=True)
class Call:
    """One call of a module without children, in running order; shapes are per sample (no batch axis)."""

    name: str
    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


@dataclass(frozen=True)
class Subject:
    """What is known before any batch is run. `calls` is empty unless a proxy needs `shapes`."""

    model: nn.Module
    num_batches: int
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What one batch shows. Whatever no proxy needs is empty; tensors are detached and must not be written to.

    Attributes:
        weights, gradients: by module name, of every Conv2d and Linear; d loss / d weight, zeros for a dead layer.
        activations: by module name, the output of every module without children; the second call of one module is
            named `name#2`.
        activation_gradients: d loss / d activation, the same names.
        memo: what a pass of their own has shown to proxies that share it; belongs to this batch alone.
        generator: random numbers that belong to this batch alone, the same whichever proxies are asked for.
    """

    model: nn.Module
    index: int
    inputs: Tensor
    labels: Tensor | None
    logits: Tensor
    loss: Tensor | None
    weights: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    activations: dict[str, Tensor] = field(default_factory=dict)
    activation_gradients: dict[str, Tensor] = field(default_factory=dict)
    seed: int = 0
    memo: dict[str, Any] = field(default_factory=dict)

    def generator(self, proxy: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive(self.seed, "proxy", proxy, self.index))


def _unchanged(state: Any, evidence: Evidence) -> Any:
    return state


def _defined(model: nn.Module) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A training-free score as a value.

    Args:
        needs: what `score` must compute for it; empty (or only `shapes`) costs no pass over the data. `inputs` and
            `labels` hand it the batch without a pass: it makes its own, or uses the inputs' shape only.
        higher_is_better: whether a larger value promises a better network.
        undefined: says in words why the proxy has no value for a model, "" where it has; such a score is missing.
    """

    name: str
    source: str
    summary: str
    init: Callable[[Subject], Any]
    finish: Callable[[Any], float]
    update: Callable[[Any, Evidence], Any] = _unchanged
    needs: frozenset[Need] = frozenset()
    higher_is_better: bool = True
    undefined: Callable[[nn.Module], str] = _defined

    @property
    def worst(self) -> float:
        """What a score that is not a finite number becomes, so that it ranks last."""
        return -math.inf if self.higher_is_better else math.inf


def score(
    model: nn.Module,
    batches: Sequence[Batch],
    proxies: Iterable[Proxy],
    *,
    seed: int = 0,
    loss: Loss = F.cross_entropy,
) -> dict[str, float]:
    """Score an untrained `model` with all `proxies` in one pass over `batches`.

    Args:
        batches: inputs as the model takes them, labels (int64 classes, or what `loss` takes).
        seed: of whatever is random in a forward pass (dropout) or in a proxy (noise).
        loss: (logits, labels) to a scalar.

    Returns: the value of each proxy by name. What is not finite, and gradients of a loss that is not, become the worst
    value; undefined for this model is missing.
    Cost: one forward pass per batch if any proxy needs data, one backward pass per batch if any needs gradients.
    The parameters' `.grad` are never touched, so gradients a caller has accumulated stay.
    """
    chosen = [proxy for proxy in proxies if not proxy.undefined(model)]
    needs = frozenset[Need]().union(*(proxy.needs for proxy in chosen))
    _check(batches, chosen, needs)
    with _left_as_it_was(model), torch.enable_grad():
        calls = _calls(model, batches[0][0]) if "shapes" in needs else ()
        subject = Subject(model, len(batches), calls)
        states = {proxy.name: proxy.init(subject) for proxy in chosen}
        broken = False
        if needs - {"shapes"}:
            model.train()
            streaming = [proxy for proxy in chosen if proxy.needs - {"shapes"}]
            for index in range(len(batches)):
                evidence = _evidence(model, batches[index], index, needs, seed, loss)
                broken |= evidence.loss is not None and not math.isfinite(evidence.loss.item())
                for proxy in streaming:
                    states[proxy.name] = proxy.update(states[proxy.name], evidence)
                del evidence  # before the next batch makes its own
        values = {proxy.name: float(proxy.finish(states[proxy.name])) for proxy in chosen}

    def ranks(proxy: Proxy) -> bool:
        return math.isfinite(values[proxy.name]) and not (broken and proxy.needs & _BACKWARD)

    return {proxy.name: values[proxy.name] if ranks(proxy) else proxy.worst for proxy in chosen}


def weighted_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Every Conv2d and Linear by module name: the layers whose weight gradients proxies speak of."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}


def _check(batches: Sequence[Batch], proxies: Sequence[Proxy], needs: frozenset[Need]) -> None:
    if needs and not batches:
        names = ", ".join(proxy.name for proxy in proxies if proxy.needs)
        raise BadInput(f"scoring by {names} needs at least one batch of inputs; got none")
    labelled = _BACKWARD | {"labels"}
    if needs & labelled and any(labels is None for _, labels in batches):
        names = ", ".join(proxy.name for proxy in proxies if proxy.needs & labelled)
        raise BadInput(f"scoring by {names} needs labels, and this task has none; choose proxies without gradients")


@contextlib.contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Undo everything that a pass in training mode does to a model, to global random state, and to autograd's flags."""
    modes = [(module, module.training) for module in model.modules()]
    inplace = [
        (module, module.inplace) for module in model.modules() if isinstance(getattr(module, "inplace", None), bool)
    ]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    wanted = {id(layer.weight) for layer in weighted_layers(model).values()}
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    cuda = sorted(
        {p.device.index for p in model.parameters() if p.device.type == "cuda" and p.device.index is not None}
    )
    try:
        # Only the gradients that proxies read are computed; batch norm's own would cost a reduction per layer.
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in wanted)
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


def _evidence(
    model: nn.Module, batch: Batch, index: int, needs: frozenset[Need], seed: int, loss_function: Loss
) -> Evidence:
    inputs, labels = batch
    layers = weighted_layers(model)
    outputs: dict[str, Tensor] = {}
    torch.manual_seed(derive(seed, "forward", index))
    if not needs & _FORWARD:
        weights = {name: layer.weight.detach() for name, layer in layers.items()}
        return Evidence(model, index, inputs, labels, inputs.new_empty(0), None, weights, seed=seed)
    with torch.set_grad_enabled(bool(needs & _BACKWARD)), _recording(model, outputs, bool(needs & _RECORDED)):
        logits = model(inputs)
        loss = loss_function(logits, labels) if labels is not None else None
    gradients: dict[str, Tensor] = {}
    activation_gradients: dict[str, Tensor] = {}
    if needs & _BACKWARD and loss is not None:
        weights = {name: layer.weight for name, layer in layers.items()} if "gradients" in needs else {}
        followed = {n: t for n, t in outputs.items() if t.requires_grad} if "activation_gradients" in needs else {}
        found = _gradients(loss, [*weights.values(), *followed.values()])
        gradients = dict(zip(weights, found, strict=False))
        activation_gradients = dict(zip(followed, found[len(weights) :], strict=True))
    return Evidence(
        model=model,
        index=index,
        inputs=inputs,
        labels=labels,
        logits=logits.detach(),
        loss=None if loss is None else loss.detach(),
        weights={name: layer.weight.detach() for name, layer in layers.items()},
        gradients=gradients,
        activations={name: tensor.detach() for name, tensor in outputs.items()},
        activation_gradients=activation_gradients,
        seed=seed,
    )


def _gradients(loss: Tensor, sources: list[Tensor]) -> tuple[Tensor, ...]:
    """d loss / d source for each source; zeros where the loss does not depend on it."""
    if not sources or not loss.requires_grad:
        return tuple(torch.zeros_like(source) for source in sources)
    return torch.autograd.grad(loss, sources, allow_unused=True, materialize_grads=True)


@contextlib.contextmanager
def _recording(model: nn.Module, outputs: dict[str, Tensor], wanted: bool) -> Iterator[None]:
    """Collect the output of every module without children, if `wanted`; the hooks are removed on the way out."""

    def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                outputs[_next_name(name, outputs)] = output

        return hook

    handles = []
    if wanted:
        for name, module in model.named_modules():
            if isinstance(getattr(module, "inplace", None), bool):
                # It would overwrite the output recorded of the module before it.
                module.inplace = False  # pyright: ignore[reportArgumentType]
            if not any(module.children()):
                handles.append(module.register_forward_hook(record(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _next_name(name: str, taken: dict[str, Any]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


def _calls(model: nn.Module, inputs: Tensor) -> tuple[Call, ...]:
    """Every call of a module without children, seen by running one sample in evaluation mode."""
    calls: dict[str, Call] = {}

    def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            if arguments and isinstance(arguments[0], Tensor) and isinstance(output, Tensor):
                called = _next_name(name, calls)
                calls[called] = Call(called, module, tuple(arguments[0].shape[1:]), tuple(output.shape[1:]))

        return hook

    handles = [m.register_forward_hook(record(name)) for name, m in model.named_modules() if not any(m.children())]
    model.eval()
    try:
        with torch.no_grad():
            model(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    return tuple(calls.values())
