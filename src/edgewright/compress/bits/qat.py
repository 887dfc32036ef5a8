r"""Quantisation-aware fine-tuning: the network learns as what it will be, rounded everywhere an int8 file rounds.

Weights, one step s_c an output channel, symmetric, in b bits (2 to 8); activations, one range a tensor, 8 bits:

    w^ = s_c round(clip(w / s_c, -Q, Q)),   Q = 2^(b-1) - 1
    x^ = s (clip(round(x / s) + z, 0, 255) - z),   s = (high - low) / 255,   z = round(-low / s),   low <= 0 <= high
    bias^ = s s_c round(bias / (s s_c))

round passes its gradient straight through. Steps and ranges learn with the weights by the gradient that the formulas
then have, scaled by 1 / sqrt(N Q) (N: numbers a step serves), or ranges follow what they see ("running": high <- 0.99
high + 0.01 max x). Every tensor between layers is rounded once, after the ReLU or ReLU6 that alone reads it; what only
moves numbers (pooling maxima, flattening) is not rounded again. That is how `export/int8` quantises the file, so the
file computes what was trained: `export.int8.learned.quantise_learned` takes steps and ranges over as they are.

Batch norms must be folded before (`fold_batch_norm`): a file has none, and one that went on moving would undo it.

Differs from the sources: steps of weights a channel instead of a layer; LSQ starts a step at 2 mean|w| / sqrt(Q), here
it is where the squared error is least, or at max|w| / Q in 8 bits; a range also has a lower end where there is no ReLU.
Source: Jacob et al., CVPR 2018, arXiv:1712.05877 (folded norms, running ranges); Esser et al., "Learned Step Size
Quantization", ICLR 2020, arXiv:1902.08153 (gradients of steps). Checked against: the formulas on single numbers, the
gradients of LSQ in closed form, and int8 files in ONNX Runtime step for step (tests/compress/test_qat.py,
tests/export/test_learned.py).
"""

import contextlib
import copy
import inspect
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from edgewright.core.errors import BadInput

Ranges = Literal["learned", "running"]
LEVELS = 255
MOMENTUM = 0.99  # of running ranges
SMALLEST = 1e-12
SHRINKS = torch.linspace(0.3, 1, 36)
LAYERS = frozenset({"conv2d", "linear"})
PASSING = frozenset({"flatten", "view", "reshape", "max_pool2d", "pad", "constant_pad_nd", "slice", "dropout"})
ACTIVATIONS = frozenset({"relu", "relu6", "hardtanh"})  # one rounding with the layer before
GATES = frozenset({"hardsigmoid", "hardswish", "sigmoid", "mul"})
OTHERS = frozenset({"add", "cat", "adaptive_avg_pool2d", "mean"}) | GATES


def rounded(x: Tensor) -> Tensor:
    """To the nearest whole number, of two the even one; the gradient passes."""
    return x.detach().round() + (x - x.detach())


def slowed(x: Tensor, share: float) -> Tensor:
    """x, to the last bit, with `share` of its gradient."""
    return x.detach() + share * (x - x.detach())


class Weight(nn.Module):
    """Rounds weights (C_out, ...). step: of each output channel."""

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.most = 2 ** (bits - 1) - 1
        self.step = nn.Parameter(first_steps(weight.detach(), self.most))

    def steps(self) -> Tensor:
        return self.step.abs().clamp_min(SMALLEST)

    def forward(self, weight: Tensor) -> Tensor:
        steps = slowed(self.steps(), 1 / math.sqrt(weight[0].numel() * self.most))
        steps = steps.reshape(-1, *(1,) * (weight.dim() - 1))
        return rounded((weight / steps).clamp(-self.most, self.most)) * steps


def first_steps(weight: Tensor, most: int) -> Tensor:
    """max|w| / Q in 8 bits; in fewer, the share of it with the least squared error, channel by channel."""
    flat = weight.flatten(1).double()
    largest = flat.abs().amax(1).clamp_min(SMALLEST) / most
    if most >= 127:
        return largest.to(weight.dtype)
    tried = largest * SHRINKS[:, None].to(flat)
    errors = [
        ((flat / step[:, None]).round().clamp(-most, most) * step[:, None] - flat).square().sum(1) for step in tried
    ]
    return tried[torch.stack(errors).argmin(0), torch.arange(len(flat))].to(weight.dtype)


class Activation(nn.Module):
    """Rounds a tensor. low, high: its range.   lowest, highest: what the activation before it lets through, beyond
    which a range must not go, because the file leaves the clipping to the range."""

    def __init__(self, ranges: Ranges, lowest: float, highest: float) -> None:
        super().__init__()
        self.low, self.high = (nn.Parameter(torch.zeros(()), requires_grad=ranges == "learned") for _ in (0, 1))
        self.lowest, self.highest, self.running = lowest, highest, ranges == "running"
        self.rounds = True

    def ends(self) -> tuple[Tensor, Tensor]:
        """The range as it is used: within the limits, with zero in it."""
        return self.low.clamp(min(self.lowest, 0.0), 0.0), self.high.clamp(0.0, self.highest)

    def step(self) -> tuple[Tensor, Tensor]:
        """s in float32 and z, from the ends in float64 as the exporter has them."""
        return _step(*self.ends())

    def forward(self, x: Tensor) -> Tensor:
        if self.running and self.training:
            self._follow(x.detach())
        if not self.rounds:
            return x
        # LSQ scales the gradient of a step; that of a range of 255 steps moves it as far when scaled by 255 ** 2.
        share = LEVELS**2 / math.sqrt(LEVELS * x[0].numel())
        step, zero = _step(*(slowed(end, share) for end in self.ends()))
        return ((rounded(x / step) + zero).clamp(0, LEVELS) - zero) * step

    def _follow(self, x: Tensor) -> None:
        with torch.no_grad():
            self.low.mul_(MOMENTUM).add_((1 - MOMENTUM) * x.min())
            self.high.mul_(MOMENTUM).add_((1 - MOMENTUM) * x.max())


def _step(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    span = high.double() - low.double()
    step = torch.where(span > 0, span / LEVELS, 1.0)  # of nothing but zeros, any step will do
    return step.float(), rounded(-low.double() / step).float()


class Bias(nn.Module):
    """Rounds a bias to whole products of the steps of its layer's weights and input."""

    def __init__(self, source: Activation, weight: Weight) -> None:
        super().__init__()
        self._peers = (source, weight)  # in a tuple: their parameters are not this module's

    def forward(self, bias: Tensor) -> Tensor:
        source, weight = self._peers
        if not source.rounds:
            return bias
        step = (source.step()[0] * weight.steps()).detach()
        return rounded(bias / step) * step


class Rounded(nn.Module):
    """A network that computes as its int8 file will; learns like any other.

    Children: network, a graph with rounding in it; parameters have the names they had, under "network.".
    """

    def __init__(self, model: nn.Module, graph: fx.GraphModule) -> None:
        super().__init__()
        self.network = graph
        self._source = (copy.deepcopy(model).requires_grad_(False),)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def activations(self) -> dict[str, Activation]:
        """What rounds tensors, in running order."""
        return {name: part for name, part in self.network.named_modules() if isinstance(part, Activation)}

    @torch.no_grad()
    def tensors(self, x: Tensor) -> list[tuple[Tensor, tuple[float, float]]]:
        """Each tensor that is rounded, as it is before any was, for inputs x; with its range."""
        found: list[tuple[Tensor, tuple[float, float]]] = []

        def note(part: Activation, inputs: tuple[Tensor, ...]) -> None:
            low, high = (end.item() for end in part.ends())
            found.append((inputs[0].clone(), (low, high)))

        handles = [part.register_forward_pre_hook(note) for part in self.activations().values()]
        with _exact(self):
            self(x)
        for handle in handles:
            handle.remove()
        return found

    @torch.no_grad()
    def weights(self) -> dict[str, tuple[Tensor, Tensor]]:
        """By name, each rounded weight and the steps of its channels."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for node in self.network.graph.nodes:
            part = self.network.get_submodule(node.target) if node.op == "call_module" else None
            if isinstance(part, Weight):
                (source,) = node.args
                found[source.target] = part(_attribute(self.network, source.target)), part.steps().clone()
        return found

    def float_network(self) -> nn.Module:
        """The network as it was given, with the weights that were learned, on their grids: what is exported."""
        result = copy.deepcopy(self._source[0])
        learned, state = self.network.state_dict(), result.state_dict()
        state |= {name: learned[name] for name in state if name in learned}
        result.load_state_dict(state | {name: weight for name, (weight, _) in self.weights().items()})
        return result.cpu().eval()


def prepared(
    model: nn.Module,
    calibration: Tensor,
    *,
    bits: int = 8,
    ranges: Ranges = "learned",
    kept: float = 1.0,
) -> Rounded:
    """A copy of a trained network with rounding in it, ready to learn; the model stays as it was.

    Args:
        model: its batch norms folded; convolutions, linear layers, ReLU, ReLU6, sigmoid, SiLU and their hard forms,
            additions, products (squeeze and excite), concatenations, poolings.
        calibration: real inputs that the first ranges are taken from, two at least.
        bits: of the weights, 2 to 8; activations have 8.
        kept: share of each tensor's values that its first range holds (those of largest size are cut).
    Errors: BadInput for other bits, and for a network with a batch norm or an operator that is not known here, by name.
    """
    if not 2 <= bits <= 8:
        raise BadInput(f"weights can have 2 to 8 bits, not {bits}")
    if len(calibration) < 2:
        raise BadInput("the first ranges need at least two inputs")
    given = copy.deepcopy(model).eval()
    graph = _Rounding(_traced(given, calibration[:2]), bits, ranges).graph
    made = Rounded(given, graph).eval()
    _calibrate(made, calibration, kept)
    return made


def _traced(model: nn.Module, example: Tensor) -> fx.GraphModule:
    try:
        shapes = torch.export.ShapesCollection()  # by the tensor, whatever the names of what forward takes
        shapes[example] = {0: torch.export.Dim.DYNAMIC}
        program = torch.export.export(model, (example,), dynamic_shapes=shapes)  # pyright: ignore[reportArgumentType]
        unguarded = "check_guards" in inspect.signature(program.module).parameters  # since torch 2.9
        module = program.module(**({"check_guards": False} if unguarded else {}))
    except Exception as error:  # the exporter raises its own kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(f"the network cannot be traced by torch.export for any batch ({reason})") from None
    graph = fx.Graph()  # one tensor in, one out; the exporter's takes and gives trees
    result = graph.graph_copy(module.graph, {})
    graph.output(result[0] if isinstance(result, (tuple, list)) else result)
    return fx.GraphModule(module, graph)  # whose train() works, unlike that of what came


class _Rounding:
    """Puts rounding into a graph."""

    def __init__(self, graph: fx.GraphModule, bits: int, ranges: Ranges) -> None:
        self.graph, self.bits = graph, bits
        self.ranges: Ranges = ranges
        self.sources: dict[fx.Node, str] = {}  # by node, the name of what rounded its numbers
        _spell_out(graph.graph)
        for node in list(graph.graph.nodes):
            if node.op == "placeholder":
                self.round(node, -math.inf, math.inf)
            elif node.op == "call_function" and isinstance(node.meta.get("val"), Tensor):  # not the size of a batch
                self.visit(node, _operator(node))
        graph.graph.lint()
        graph.recompile()

    def visit(self, node: fx.Node, operator: str) -> None:
        if operator in LAYERS:
            self.layer(node)
        if operator in PASSING:
            self.sources[node] = self.source(node, node.all_input_nodes[0])
        elif operator in ACTIVATIONS:
            self.round(node, 0.0, math.inf if operator == "relu" else _ceiling(node))
        elif operator in LAYERS | OTHERS:
            readers = list(node.users)
            if operator == "mean" and all(reader.op == "output" for reader in readers):
                return  # no layer reads it, and the file leaves it as it comes
            if not (len(readers) == 1 and _operator(readers[0]) in ACTIVATIONS):
                self.round(node, -math.inf, math.inf)
        else:
            hint = "; fold it into the layer before it first (fold_batch_norm)" if operator == "batch_norm" else ""
            raise BadInput(f"the network has an operator '{operator}', which cannot be quantised here{hint}")

    def layer(self, node: fx.Node) -> None:
        source, weight, *rest = node.args
        assert isinstance(source, fx.Node)
        if not isinstance(weight, fx.Node) or weight.op != "get_attr" or len(weight.users) > 1:
            raise BadInput(f"the weights of '{node.name}' are computed, or used more than once; they cannot be rounded")
        number = len(list(self.graph.children()))
        rounding = Weight(_attribute(self.graph, str(weight.target)), self.bits)
        self.put(f"round_weight{number}", rounding, weight, node)
        if rest and isinstance(rest[0], fx.Node):
            reads = self.graph.get_submodule(self.source(node, source))
            assert isinstance(reads, Activation)
            self.put(f"round_bias{number}", Bias(reads, rounding), rest[0], node)

    def source(self, node: fx.Node, read: fx.Node) -> str:
        """What rounded the numbers that a node reads."""
        if read not in self.sources:
            raise BadInput(f"'{node.name}' works on a parameter, which cannot be quantised here")
        return self.sources[read]

    def put(self, name: str, module: nn.Module, value: fx.Node, reader: fx.Node) -> None:
        self.graph.add_submodule(name, module)
        with self.graph.graph.inserting_before(reader):
            reader.replace_input_with(value, self.graph.graph.call_module(name, (value,)))

    def round(self, node: fx.Node, lowest: float, highest: float) -> None:
        name = f"round{len(list(self.graph.children()))}"
        self.graph.add_submodule(name, Activation(self.ranges, lowest, highest))
        with self.graph.graph.inserting_after(node):
            made = self.graph.graph.call_module(name, (node,))
        node.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)
        self.sources[made] = name


def _spell_out(graph: fx.Graph) -> None:
    """silu(x) as x sigmoid(x): the file has both steps, and rounds after each."""
    for node in list(graph.nodes):
        if node.op == "call_function" and _operator(node) == "silu":
            (x,) = node.all_input_nodes
            with graph.inserting_before(node):
                gate = graph.call_function(torch.ops.aten.sigmoid.default, (x,))
                made = graph.call_function(torch.ops.aten.mul.Tensor, (x, gate))
            gate.meta["val"] = made.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(made)
            graph.erase_node(node)


def _operator(node: fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target)).split(".")[0].rstrip("_")


def _ceiling(node: fx.Node) -> float:
    """Of a ReLU6, or a clipping from 0 on.   Errors: BadInput for another clipping."""
    limits: list[Any] = [*node.args[1:], *(-1.0, 1.0)[len(node.args) - 1 :]]
    if _operator(node).startswith("relu6"):
        return 6.0
    if limits[0] != 0:
        raise BadInput(f"'{node.name}' clips from {limits[0]} on; only clippings from 0 on can be quantised here")
    return float(limits[1])


def _attribute(module: nn.Module, name: str) -> Tensor:
    owner, _, last = name.rpartition(".")
    return getattr(module.get_submodule(owner), last)


@contextlib.contextmanager
def _exact(net: Rounded) -> Iterator[None]:
    """Tensors are not rounded meanwhile; weights are."""
    parts = list(net.activations().values())
    for part in parts:
        part.rounds = False
    try:
        yield
    finally:
        for part in parts:
            part.rounds = True


@torch.no_grad()
def _calibrate(net: Rounded, calibration: Tensor, kept: float) -> None:
    """Ranges that hold `kept` of what each tensor shows for these inputs."""
    seen: dict[Activation, list[Tensor]] = {}
    parts = net.activations().values()

    def note(part: Activation, inputs: tuple[Tensor, ...]) -> None:
        flat = inputs[0].flatten()
        seen.setdefault(part, []).append(torch.stack(_ends(flat, kept)))

    handles = [part.register_forward_pre_hook(note) for part in parts]
    with _exact(net):
        for batch in calibration.split(64):
            net(batch)
    for handle in handles:
        handle.remove()
    for part in parts:
        ends = torch.stack(seen[part])
        part.low.copy_(ends[:, 0].min() if kept == 1 else ends[:, 0].mean())
        part.high.copy_(ends[:, 1].max() if kept == 1 else ends[:, 1].mean())


def _ends(flat: Tensor, kept: float) -> tuple[Tensor, Tensor]:
    if kept == 1:
        return flat.min(), flat.max()
    cut = max(1, round((1 - kept) * len(flat)))
    return flat.kthvalue(cut)[0], flat.kthvalue(len(flat) + 1 - cut)[0]
