"""Any convolutional network as a chain of parts: cut wherever one map alone is alive.

    x -> [part] -> map -> [part] -> map -> ... -> (what is left is the head's, and goes)

Between two cuts lies what belongs together: a residual block, a stem, a stage of plain convolutions. A chain can lose
its end, or a residual part in the middle, and is a network still; a head reads the maps at its joints. The parts are
`torch.fx` graphs over the network's own modules, so that weights, training mode and names stay what they were.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from edgewright.core.errors import BadInput
from edgewright.core.quiet import silent
from edgewright.model.settle import NORMS

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.ConvTranspose2d)
WHOLE = (*WEIGHTED, *NORMS, nn.LayerNorm, nn.GroupNorm)
LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
ADDING = ("add", "iadd")


@dataclass(frozen=True)
class Part:
    """One part of a chain. name: of the module it was, as a name of one's own.   nodes: of the traced graph, in running
    order.   shape: of the map it gives, without the batch.   residual: whether it adds its input to what it computes,
    in equal shape, so that it can go."""

    name: str
    nodes: tuple[fx.Node, ...]
    shape: tuple[int, ...]
    residual: bool


@dataclass(frozen=True)
class Chain:
    """parts: in running order.   network: whose modules they run.   source: the node that is the input."""

    parts: tuple[Part, ...]
    network: nn.Module
    source: fx.Node

    def module(self, index: int) -> fx.GraphModule:
        """A part as a module over the network's own modules (none is copied)."""
        part = self.parts[index]
        graph, made = fx.Graph(), dict[fx.Node, fx.Node]()
        before = self.parts[index - 1].nodes[-1] if index else self.source
        made[before] = graph.placeholder("x")
        for node in part.nodes:
            made[node] = graph.node_copy(node, lambda one: made[one])
        graph.output(made[part.nodes[-1]])
        return fx.GraphModule(self.network, graph, class_name="Part")


class _Only(nn.Module):
    """A network that is given one input, whatever else it might take."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.only = network

    def forward(self, x: Tensor) -> Any:
        return self.only(x)


class _Tracer(fx.Tracer):
    """Layers stay whole: what has no parts of its own, and what is a layer with more in it."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = super().is_leaf_module(m, module_qualified_name)
        return own or isinstance(m, WHOLE) or next(m.children(), None) is None


def chain(network: nn.Module, shape: Sequence[int]) -> Chain:
    """The parts of `network` for an input of that shape (C, H, W). Nothing is computed if it is on the meta device.

    Errors: BadInput for a network that cannot be followed, or has no map that is alone alive: transformers of tokens.
    """
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        with silent(), torch.no_grad():
            graph = _Tracer().trace(_Only(network))
            for node in graph.nodes:  # called as in the network itself
                node.target = node.target.removeprefix("only.") if isinstance(node.target, str) else node.target
            device = next((p.device for p in network.parameters()), torch.device("cpu"))
            ShapeProp(fx.GraphModule(network, graph)).propagate(torch.zeros(1, *shape, device=device))
    except Exception as error:  # what a network does while it is traced can raise anything
        told = error.__cause__ or error  # that of the operator, not of who ran it
        reason = (str(told).strip().splitlines() or [type(told).__name__])[0]
        raise BadInput(f"the network cannot be followed operator by operator ({reason[:200]})") from None
    finally:
        for module, mode in modes:
            module.training = mode
    nodes = [node for node in graph.nodes if node.op not in ("output", "get_attr")]
    source = nodes[0]
    parts = tuple(_named(_parts(network, nodes)))
    if not parts:
        raise BadInput("the network has no place where one map alone is alive, so it cannot be cut into parts")
    return Chain(parts, network, source)


def _parts(network: nn.Module, nodes: Sequence[fx.Node]) -> list[Part]:
    """Cut, then join what is one block, or has no weights of its own."""
    found: list[Part] = []
    waiting: list[fx.Node] = []  # a pooling over the whole map, which belongs to what follows
    for stretch in _stretches(network, nodes):
        before, weighted = (found[-1] if found else None), _weighted(network, stretch)
        if before is not None and not weighted:
            if _map(stretch[-1])[1:] == (1, 1) != before.shape[1:]:
                waiting += stretch
            else:
                found[-1] = Part(before.name, (*before.nodes, *waiting, *stretch), _map(stretch[-1]), before.residual)
                waiting = []
            continue
        stretch, waiting = [*waiting, *stretch], []
        block, whole = _block(network, stretch)
        source = before.nodes[-1] if before else nodes[0]
        residual = _residual(network, stretch, source)
        same = before is not None and not before.residual and not residual and before.name == block
        if before is not None and same and (whole or before.shape[1:] == _map(stretch[-1])[1:]):
            found[-1] = Part(block, (*before.nodes, *stretch), _map(stretch[-1]), False)
        else:
            found.append(Part(block, tuple(stretch), _map(stretch[-1]), residual))
    return found


def _stretches(network: nn.Module, nodes: Sequence[fx.Node]) -> Iterator[list[fx.Node]]:
    """The nodes between two places where one map alone is alive; what ends in no map is left out, and so is a pooling
    behind the last weights, which leads to the outputs."""
    place = {node: index for index, node in enumerate(nodes)}
    last = {node: max((place.get(user, len(nodes)) for user in node.users), default=-1) for node in nodes}
    alive, stretch, kept = {nodes[0]}, list[fx.Node](), list[list[fx.Node]]()
    for index, node in enumerate(nodes[1:], 1):
        alive = {one for one in (*alive, node) if last[one] > index}
        stretch.append(node)
        if alive == {node} and len(_shape(node)) == 4:
            kept.append(stretch)
            stretch = []
    learning = [any(_learns(network, node) for node in stretch) for stretch in kept]
    end = next((index + 1 for index in reversed(range(len(kept))) if learning[index]), 0)
    while 0 < end < len(kept) and _map(kept[end][-1]) == _map(kept[end - 1][-1]):
        end += 1  # an activation
    yield from kept[:end]


def _learns(network: nn.Module, node: fx.Node) -> bool:
    return node.op == "call_module" and any(True for _ in network.get_submodule(str(node.target)).parameters())


def _weighted(network: nn.Module, nodes: Sequence[fx.Node]) -> bool:
    called = (network.get_submodule(str(node.target)) for node in nodes if node.op == "call_module")
    return any(isinstance(module, WEIGHTED) for module in called)


def _residual(network: nn.Module, nodes: Sequence[fx.Node], source: fx.Node) -> bool:
    """Whether what a stretch adds last is its own input, in equal shape."""
    adding = [node for node in nodes if getattr(node.target, "__name__", "").strip("_") in ADDING]
    added = [_behind_identities(network, node) for node in adding[-1].all_input_nodes] if adding else []
    return source in added and _shape(nodes[-1]) == _shape(source)


def _behind_identities(network: nn.Module, node: fx.Node) -> fx.Node:
    while node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), nn.Identity):
        (node,) = node.all_input_nodes
    return node


def _block(network: nn.Module, nodes: Sequence[fx.Node]) -> tuple[str, bool]:
    """The path that the layers of a stretch have in common, up to the first module on it that is more than a list of
    others; and whether there is one: a block, which stays together although the map gets smaller inside it."""
    paths = [str(node.target).split(".") for node in nodes if node.op == "call_module"]
    shared = list(paths[0][:-1]) if paths else []
    for path in paths[1:]:
        shared = shared[: next((i for i, (a, b) in enumerate(zip(shared, path, strict=False)) if a != b), len(shared))]
    for length in range(1, len(shared) + 1):
        path = ".".join(shared[:length])
        if not isinstance(network.get_submodule(path), LISTS):
            return path, True
    return ".".join(shared), False


def _named(parts: Sequence[Part]) -> Iterator[Part]:
    """With names that are told apart, and that a module may have."""
    taken = set[str]()
    for part in parts:
        base = (part.name or str(part.nodes[0].name).removeprefix("only_")).replace(".", "_")
        name, number = base, 1
        while name in taken or not name.isidentifier():
            number += 1
            name = f"{base}_{number}" if base.isidentifier() else f"part_{base}"
            base = base if base.isidentifier() else f"part_{base}"
        taken.add(name)
        yield Part(name, part.nodes, part.shape, part.residual)


def _shape(node: fx.Node) -> tuple[int, ...]:
    found = node.meta.get("tensor_meta")
    return tuple(getattr(found, "shape", ()))


def _map(node: fx.Node) -> tuple[int, ...]:
    return _shape(node)[1:]
