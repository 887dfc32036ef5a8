"""What a network runs, whatever it was read from: the form in which graphs, ONNX files and torch modules are counted.

Graph           from_graph, here
ONNX file       from_onnx.read
torch module    from_torch.read
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from edgewright.core.errors import BadInput
from edgewright.ir import counts, op
from edgewright.ir.graph import Graph, needed_ops, whole_numbers

FLOAT_BYTES = 4
INDEX_BYTES = 8  # of the classes that an argmax gives, of the words that an embedding reads
ACTIVATIONS = frozenset({"relu", "hardsigmoid"})  # what a convolution takes in
VIEWS = frozenset({"flatten", "reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout"})  # nothing moves


@dataclass(frozen=True, slots=True)
class Node:
    """One operator.

    name: how an error calls it.   kind: one of `op.Kind` where it is one of these, else the word of where it was read.
    inputs, outputs: activations.   work: None where nobody has said how to count it.   groups: of a convolution.
    """

    name: str
    kind: str
    inputs: tuple[Hashable, ...]
    outputs: tuple[Hashable, ...]
    work: counts.Work | None = counts.NOTHING
    groups: int = 1


@dataclass(frozen=True)
class Network:
    """nodes: in running order.   shapes, sizes: of every activation, and its bytes.   inputs, outputs: of the network.
    where: how an error calls it."""

    nodes: tuple[Node, ...]
    shapes: Mapping[Hashable, tuple[int, ...]]
    sizes: Mapping[Hashable, int]
    inputs: tuple[Hashable, ...]
    outputs: tuple[Hashable, ...]
    where: str = "the network"

    @property
    def macs(self) -> int:
        """Multiply-adds of all inputs that its shapes hold. Errors: BadInput that names what cannot be counted."""
        return sum(known(node, self.where).macs for node in self.nodes)


def known(node: Node, where: str) -> counts.Work:
    """What a node computes. Errors: BadInput for one that nobody has said how to count, by its name."""
    if node.work is None:
        raise uncounted(where, node.name, node.kind)
    return node.work


def uncounted(where: str, name: str, kind: str) -> BadInput:
    """The error for an operator that multiplies in a way that is not known."""
    return BadInput(
        f"{where}: '{name}' is a {kind}, whose multiply-adds cannot be counted; convolutions, linear layers, products "
        "of matrices, attention, embeddings and recurrences can"
    )


def from_graph(graph: Graph, number_bytes: int = FLOAT_BYTES) -> Network:
    """What a `Graph` runs, without what no output depends on; numbers of so many bytes, indices of INDEX_BYTES."""
    whole = whole_numbers(graph)
    shapes: dict[Hashable, tuple[int, ...]] = dict(enumerate(graph.shapes))
    sizes: dict[Hashable, int] = {
        name: prod(shape) * (INDEX_BYTES if name in whole else number_bytes) for name, shape in enumerate(graph.shapes)
    }
    nodes = tuple(
        Node(
            f"{one.kind} {one.output}",
            one.kind,
            one.inputs,
            (one.output,),
            op.work(one, graph.shapes[one.inputs[0]], graph.shapes[one.output]),
            one.groups,
        )
        for one in needed_ops(graph)
    )
    return Network(nodes, shapes, sizes, graph.inputs, graph.outputs)


def together(network: Network) -> list[list[Node]]:
    """The nodes that run as one, in running order of the first of each: a convolution with the sum and the activation
    behind it, and what is written as two: a product and its bias, x and sigmoid(x). What the network gives stays."""
    readers: dict[Hashable, int] = dict.fromkeys(network.outputs, 1)
    for node in network.nodes:
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    groups: list[list[Node]] = []
    owner: dict[Hashable, int] = {}
    for node in network.nodes:
        single = [owner[name] for name in node.inputs if name in owner and readers[name] == 1]
        hosts = [host for host in single if _takes(groups[host], node)]
        if not hosts:
            groups.append([])
        host = max(hosts, default=len(groups) - 1)  # of two the later, so that what it adds is there
        groups[host].append(node)
        owner |= dict.fromkeys(node.outputs, host)
    return groups


def moved_bytes(network: Network, number_bytes: int = FLOAT_BYTES) -> int:
    """Bytes between memory and what computes: of all that runs as one (`together`) the activations that it reads and
    writes, each once, and its weights, numbers of so many bytes; biases are left out.

    Errors: BadInput for an operator that cannot be counted.
    """
    groups = together(network)
    made = [{name for node in group for name in node.outputs} for group in groups]
    read = [{name for node in group for name in node.inputs} - own for group, own in zip(groups, made, strict=True)]
    crossing = set(network.outputs).union(*read)
    moved = sum(
        network.sizes[name]
        for group, taken, own in zip(groups, read, made, strict=True)
        if not {node.kind for node in group} <= VIEWS
        for name in taken | (own & crossing)
    )
    weights = sum(counts.numbers(known(node, network.where).weight) for node in network.nodes)
    return moved + number_bytes * weights


def _takes(host: Sequence[Node], node: Node) -> bool:
    first, *rest = (one.kind for one in host)
    if node.kind == "mul":
        return [first, *rest] == ["sigmoid"] and host[0].inputs[0] in node.inputs
    if first == "linear":
        return not rest and node.kind == "add" and len(node.inputs) == 1  # its bias
    if first != "conv" or node.kind not in ("add", *ACTIVATIONS):
        return False
    return not rest or (rest == ["add"] and node.kind != "add")
