"""One pass over an untrained network that serves every proxy asked for.

The law: a proxy says what it *needs*; `score` makes each batch's forward pass once, and its backward pass once if some
proxy needs gradients, and shows every proxy that batch. Proxies stream: what is kept is what a proxy's own state keeps.
The model, its gradients, buffers, mode and hooks and every random number generator are afterwards exactly what they
were before, and the value of a proxy depends neither on which others are asked for nor on their order.

What proxies call layers, whose weights they speak of, is convolutions and linear layers (`calls.weighted_layers`). A
network that multiplies by other weights is refused where gradients or `weights` are needed.

A proxy is pure functions over an explicit state:

    state = init(subject)              what can be read off the structure: parameters, MACs need nothing else; and off
                                       the `features`: transfer scores need nothing else
    state = watch(state, seen)         optional: one gradient or activation while the pass runs, gone afterwards
    state = update(state, evidence)    once per batch
    value = finish(state)              the score

A proxy that needs gradients or activations and has `watch` is shown them one by one, and none is kept for it; without
`watch` it finds all of a batch's in `evidence`. So the memory of scoring is that of a training step as long as nobody
asks for more.

Published scores as compositions: parameters, MACs: `init` only. ZiCo, grad-norm, SNIP: `watch` gradients. Fisher:
`watch` activation gradients. NASWOT: `watch` activations. Jacobian covariance: `input_gradients`. Scores that need a
pass of their own (SynFlow's all-ones input, GraSP's second derivative, Zen's noise, the NTK's per-sample gradients)
make it on `evidence.model` by `probe.run`, which changes nothing in place, and draw noise from `evidence.generator`.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from edgewright.core.errors import BadInput
from edgewright.core.seed import derive
from edgewright.proxy.calls import (
    Ran,
    left_as_it_was,
    next_name,
    refuse_other_weights,
    refuse_unseen,
    run_calls,
    weighted_layers,
)
from edgewright.proxy.features import Features, read_features
from edgewright.task.kind import Examples, one_a_sample

Kind = Literal["activations", "gradients", "activation_gradients"]
Need = Literal["shapes", "live", "features", "inputs", "targets", "weights", "forward", "input_gradients"] | Kind
Batch = tuple[Any, Any]  # inputs (N, ...), targets as the loss takes them, None where the task has none
Loss = Callable[[Any, Any], Tensor]

_STRUCTURE: frozenset[Need] = frozenset({"shapes", "live"})
_BEFORE: frozenset[Need] = frozenset({"features", *_STRUCTURE})  # what a subject holds, before the shared pass
_OF_LOSS: frozenset[Need] = frozenset({"gradients", "activation_gradients"})
_OF_OUTPUTS: frozenset[Need] = frozenset({"activations", "activation_gradients"})
_OF_WEIGHTS: frozenset[Need] = frozenset({"weights", *_OF_LOSS})
_GRAPH: frozenset[Need] = frozenset({"input_gradients", *_OF_LOSS})
_FORWARD: frozenset[Need] = frozenset({"forward", *_GRAPH, *_OF_OUTPUTS})
_AIMED: frozenset[Need] = frozenset({"targets", "features", *_OF_LOSS})


@dataclass(frozen=True)
class Subject:
    """What is known before the shared pass. `ran` is empty unless a proxy needs `shapes`, `live` or `features`.

    features: what the last layer is given, where a proxy needs it and there is something finite.
    """

    model: nn.Module
    num_batches: int
    ran: Ran = field(default_factory=Ran)
    features: Features | None = None


@dataclass(frozen=True)
class Seen:
    """One tensor while the pass runs; detached, must not be written to, and is freed when its watchers have returned.

    Attributes:
        kind: `gradients`: `value` is the weight of a convolution or linear layer, `gradient` d loss / d weight, zeros
            for a dead one. `activations`: `value` is the output of a module without children, `gradient` None.
            `activation_gradients`: with d loss / d output as well; outputs that the loss does not reach are not shown.
        name: of the layer, or of the module's call (`name#2` is its second).
        index: of the batch.
    """

    kind: Kind
    name: str
    module: nn.Module
    value: Tensor
    gradient: Tensor | None
    index: int

    @property
    def slope(self) -> Tensor:
        """The gradient, where the kind has one."""
        assert self.gradient is not None
        return self.gradient


@dataclass(frozen=True)
class Evidence:
    """What one batch shows. Whatever no proxy needs is empty; tensors are detached and must not be written to.

    Attributes:
        weights, gradients: by module name, of every convolution and linear layer; d loss / d weight, zeros for
            a dead one.
        activations: by module name, the output of every module without children; the second call of one module is
            named `name#2`.
        activation_gradients: d loss / d activation, the same names.
        input_gradients: d (sum of all logits) / d inputs, of the inputs' shape.
        memo: what a pass of their own has shown to proxies that share it; belongs to this batch alone.
        generator: random numbers that belong to this batch alone, the same whichever proxies are asked for.
    """

    model: nn.Module
    index: int
    inputs: Tensor
    targets: Any
    logits: Tensor
    loss: Tensor | None
    weights: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    activations: dict[str, Tensor] = field(default_factory=dict)
    activation_gradients: dict[str, Tensor] = field(default_factory=dict)
    input_gradients: Tensor | None = None
    loss_function: Loss = F.cross_entropy
    seed: int = 0
    memo: dict[str, Any] = field(default_factory=dict)

    def generator(self, proxy: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive(self.seed, "proxy", proxy, self.index))


def of_features(judge: Callable[[Features], float]) -> Callable[[Subject], float]:
    """The `init` of a score that reads nothing but the features; without them it is not a number."""
    return lambda subject: math.nan if subject.features is None else judge(subject.features)


def _unchanged(state: Any, evidence: Evidence) -> Any:
    return state


def _defined(model: nn.Module) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A training-free score as a value.

    Args:
        needs: what `score` must compute for it; empty (or only `shapes`, `live`) costs no pass over the data. `inputs`
            and `targets` hand it the batch without a pass: it makes its own, or uses the inputs' shape only. `weights`:
            there, it draws or reads the layers' weights. `features`: in evaluation mode, before the shared pass.
        watch: is shown the gradients and activations that it needs one by one; they are not kept for it.
        modules: the kinds of modules whose activations it watches.
        higher_is_better: whether a larger value promises a better network.
        undefined: says in words why the proxy has no value for a model, "" where it has; such a score is missing.
    """

    name: str
    source: str
    summary: str
    init: Callable[[Subject], Any]
    finish: Callable[[Any], float]
    update: Callable[[Any, Evidence], Any] = _unchanged
    watch: Callable[[Any, Seen], Any] | None = None
    modules: tuple[type[nn.Module], ...] = (nn.Module,)
    needs: frozenset[Need] = frozenset()
    higher_is_better: bool = True
    undefined: Callable[[nn.Module], str] = _defined

    @property
    def of_structure(self) -> bool:
        """Whether no batch is run for it."""
        return self.needs <= _STRUCTURE

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
    examples: Examples = one_a_sample,
    settled: bool = True,
) -> dict[str, float]:
    """Score an untrained `model` with all `proxies` in one pass over `batches`.

    Args:
        batches: inputs as the model takes them, targets (int64 classes, or what `loss` takes).
        seed: of whatever is random in a forward pass (dropout) or in a proxy (noise).
        loss: (logits, targets) to a scalar.
        examples, settled: how features pair with targets, and whether the running statistics of batch norms belong to
            these weights, for proxies that need `features`; see `Kind.examples` and `features.read_features`.

    Returns: the value of each proxy by name. What is not finite, and gradients of a loss that is not, become the worst
    value; undefined for this model is missing.
    Cost: one forward pass per batch if any proxy needs data, one backward pass per batch if any needs gradients, one
    more if any needs the inputs' gradients; and the passes that proxies make themselves.
    The parameters' `.grad` are never touched, so gradients a caller has accumulated stay.
    """
    chosen = [proxy for proxy in proxies if not proxy.undefined(model)]
    needs = frozenset[Need]().union(*(proxy.needs for proxy in chosen))
    _check(batches, chosen, needs)
    if needs:
        refuse_unseen(model)
    with left_as_it_was(model), torch.enable_grad():
        looks = needs & {"live", "features"}
        ran = run_calls(model, batches[0][0], live=bool(looks)) if needs & _BEFORE else Ran()
        if needs & _OF_WEIGHTS:
            refuse_other_weights(model, batches[0][0])
        reads = "features" in needs
        features = read_features(model, ran, batches, examples, seed=seed, settled=settled) if reads else None
        subject = Subject(model, len(batches), ran, features)
        states = {proxy.name: proxy.init(subject) for proxy in chosen}
        broken = False
        if needs - _BEFORE:
            model.train()
            streaming = [proxy for proxy in chosen if proxy.needs - _BEFORE]
            for index in range(len(batches)):
                evidence = _Pass(model, index, streaming, states).evidence(batches[index], needs, seed, loss)
                broken |= evidence.loss is not None and not math.isfinite(evidence.loss.item())
                for proxy in streaming:
                    states[proxy.name] = proxy.update(states[proxy.name], evidence)
                del evidence  # before the next batch makes its own
        values = {proxy.name: float(proxy.finish(states[proxy.name])) for proxy in chosen}

    def ranks(proxy: Proxy) -> bool:
        return math.isfinite(values[proxy.name]) and not (broken and proxy.needs & _OF_LOSS)

    return {proxy.name: values[proxy.name] if ranks(proxy) else proxy.worst for proxy in chosen}


def _check(batches: Sequence[Batch], proxies: Sequence[Proxy], needs: frozenset[Need]) -> None:
    if needs and not batches:
        names = ", ".join(proxy.name for proxy in proxies if proxy.needs)
        raise BadInput(f"scoring by {names} needs at least one batch of inputs; got none")
    if needs & _AIMED and any(targets is None for _, targets in batches):
        names = ", ".join(proxy.name for proxy in proxies if proxy.needs & _AIMED)
        raise BadInput(f"scoring by {names} needs targets, and this task has none; choose proxies without gradients")


class _Pass:
    """One batch through the model: shows watchers what passes by and keeps what others need."""

    def __init__(self, model: nn.Module, index: int, proxies: list[Proxy], states: dict[str, Any]) -> None:
        self._model, self._index, self._proxies, self._states = model, index, proxies, states
        self._kept: dict[Kind, dict[str, Tensor]] = {"activations": {}, "gradients": {}, "activation_gradients": {}}
        self._of_loss = False  # whether the gradients that pass by now are the loss's

    def evidence(self, batch: Batch, needs: frozenset[Need], seed: int, loss_function: Loss) -> Evidence:
        inputs, targets = batch
        layers = weighted_layers(self._model)
        # Stand-ins for the parameters: gradients gather there, and only those of weights that proxies read.
        aliases = {id(p): p.detach() for p in self._model.parameters()}
        if needs & _OF_LOSS:
            for layer in layers.values():
                aliases[id(layer.weight)].requires_grad_()
        weights = {name: aliases[id(layer.weight)] for name, layer in layers.items()}
        logits, loss, slopes = inputs.new_empty(0), None, None
        if needs & _FORWARD:
            torch.manual_seed(derive(seed, "forward", self._index))
            x = inputs.detach().requires_grad_("input_gradients" in needs)
            named = {name: aliases[id(p)] for name, p in self._model.named_parameters(remove_duplicate=False)}
            with torch.set_grad_enabled(bool(needs & _GRAPH)), self._recording(bool(needs & _OF_OUTPUTS)):
                logits = functional_call(self._model, named, (x,))
                loss = loss_function(logits, targets) if targets is not None else None
            if "input_gradients" in needs:
                slopes = _input_gradients(logits, x, keep=bool(needs & _OF_LOSS))
            if needs & _OF_LOSS and loss is not None:
                self._backward(loss, weights, "gradients" in needs)
        return Evidence(
            model=self._model,
            index=self._index,
            inputs=inputs,
            targets=targets,
            logits=logits.detach(),
            loss=None if loss is None else loss.detach(),
            weights={name: weight.detach() for name, weight in weights.items()},
            gradients={name: self._kept["gradients"][name] for name in weights if name in self._kept["gradients"]},
            activations=self._kept["activations"],
            activation_gradients=self._kept["activation_gradients"],
            input_gradients=slopes,
            loss_function=loss_function,
            seed=seed,
        )

    def _backward(self, loss: Tensor, weights: dict[str, Tensor], wanted: bool) -> None:
        """Gradients of the loss, each shown as it comes; zeros for the weights and outputs it does not depend on."""
        names: dict[int, list[str]] = {}
        for name, weight in weights.items():
            names.setdefault(id(weight), []).append(name)  # a weight that layers share is shown for each
        missing = {id(weight): weight for weight in weights.values()} if wanted else {}

        def show(weight: Tensor, gradient: Tensor) -> None:
            for name in names[id(weight)]:
                self._show("gradients", name, self._model.get_submodule(name), weight.detach(), gradient)

        def arrived(weight: Tensor) -> None:
            gradient, weight.grad = weight.grad, None
            if gradient is not None and missing.pop(id(weight), None) is not None:
                show(weight, gradient)

        for weight in missing.values():
            weight.register_post_accumulate_grad_hook(arrived)
        if loss.requires_grad and weights:
            self._of_loss = True
            torch.autograd.backward(loss, inputs=list({id(weight): weight for weight in weights.values()}.values()))
            self._of_loss = False
        for weight in list(missing.values()):
            show(weight, torch.zeros_like(weight))
        if self._keeps("activation_gradients"):
            for name, output in self._kept["activations"].items():
                self._kept["activation_gradients"].setdefault(name, torch.zeros_like(output))

    def _show(self, kind: Kind, name: str, module: nn.Module, value: Tensor, gradient: Tensor | None) -> None:
        if self._keeps(kind):
            self._kept[kind][name] = value if gradient is None else gradient
        seen = Seen(kind, name, module, value, gradient, self._index)
        with torch.no_grad():
            for proxy in self._proxies:
                if proxy.watch is not None and kind in proxy.needs and _watches(proxy, kind, module):
                    self._states[proxy.name] = proxy.watch(self._states[proxy.name], seen)

    def _keeps(self, kind: Kind) -> bool:
        return any(proxy.watch is None and kind in proxy.needs for proxy in self._proxies)

    def _wants(self, kind: Kind, module: nn.Module) -> bool:
        return any(kind in proxy.needs and _watches(proxy, kind, module) for proxy in self._proxies)

    @contextlib.contextmanager
    def _recording(self, wanted: bool) -> Iterator[None]:
        """Look at the output of every module without children, if `wanted`; hooks are removed on the way out."""
        calls: dict[str, None] = {}

        def look(name: str, module: nn.Module, output: Tensor) -> None:
            calls[called := next_name(name, calls)] = None
            value = output.detach()
            if self._wants("activations", module):
                self._show("activations", called, module, value, None)
            if output.requires_grad and self._wants("activation_gradients", module):
                held = [value]

                def back(gradient: Tensor) -> None:
                    if self._of_loss:
                        self._show("activation_gradients", called, module, held.pop(), gradient)

                output.register_hook(back)

        def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, arguments: Any, output: Any) -> None:
                if isinstance(output, Tensor):
                    look(name, module, output)

            return hook

        handles = []
        for name, module in self._model.named_modules() if wanted else ():
            if isinstance(getattr(module, "inplace", None), bool):
                # It would overwrite the output of the module before it.
                module.inplace = False  # pyright: ignore[reportArgumentType]
            if not any(module.children()):
                handles.append(module.register_forward_hook(hook_of(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _watches(proxy: Proxy, kind: Kind, module: nn.Module) -> bool:
    return kind == "gradients" or proxy.watch is None or isinstance(module, proxy.modules)


def _input_gradients(logits: Tensor, inputs: Tensor, *, keep: bool) -> Tensor:
    """d (sum of logits) / d inputs; zeros where they do not depend on them. keep: the loss's pass comes after."""
    if not logits.requires_grad:
        return torch.zeros_like(inputs)
    (found,) = torch.autograd.grad(logits.sum(), inputs, retain_graph=keep, allow_unused=True, materialize_grads=True)
    return found
