"""An ONNX network's inputs, outputs and nodes: told, and kept valid when the network is changed.

What is changed here stays standard ONNX: shapes that nobody knows any more are inferred anew, nodes stand in running
order, and no name is given twice.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from edgewright.core.errors import EdgewrightError, one_line
from edgewright.core.tensors import TensorSpec

MOST_BYTES = 2**31 - 1  # of a model in one piece


def inputs_of(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """What a network takes, in order; shapes as the file has them, with the batch."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return tuple(_spec(value) for value in model.graph.input if value.name not in constants)


def outputs_of(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """What it gives, in order; shapes with the batch, () where the rank is not known."""
    return tuple(_spec(value) for value in model.graph.output)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    dims = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)
    return TensorSpec(name=value.name, shape=dims, dtype=dtype_of(kind.elem_type))


def dtype_of(elem_type: int) -> str:
    """NumPy's name of an ONNX type of numbers; "object" for texts."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)).name


def with_shapes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """A copy whose inputs have these shapes, by name, with all other shapes inferred anew.

    Where the inference cannot tell an output's shape, what the file says of it stays: an output without one is no valid
    ONNX.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for value in made.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    told = [value.type.tensor_type for value in model.graph.output]
    del made.graph.value_info[:]
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
    made = inferred(made)
    for value, before in zip(made.graph.output, told, strict=True):
        if before.HasField("shape") and not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.CopyFrom(_of_that_rank(before.shape))
    return made


def _of_that_rank(shape: onnx.TensorShapeProto) -> onnx.TensorShapeProto:
    """As many dimensions as were told; sizes may have come from the inputs' old ones, so none is told."""
    return onnx.TensorShapeProto(dim=[onnx.TensorShapeProto.Dimension() for _ in shape.dim])


def inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """With the shapes between the nodes, as far as the inference knows them."""
    return onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)


def checked(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The model, which was changed here, if it is valid ONNX.   Errors: EdgewrightError that says it is our fault."""
    if model.ByteSize() > MOST_BYTES:
        raise EdgewrightError(f"{where} would be larger than 2 GB, which an ONNX file in one piece cannot be")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise EdgewrightError(f"{where} is no valid ONNX model ({one_line(error)}): a fault of edgewright's") from None
    return model


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those inside loops and branches too."""
    for node in graph.node:
        yield node
        for inner in _graphs(node):
            yield from all_nodes(inner)


def _graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    found = []
    for attribute in node.attribute:
        found += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
    return found


def reads(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node needs, those that its loops and branches take from outside too."""
    inside = {name for graph in _graphs(node) for inner in all_nodes(graph) for name in inner.input}
    inside |= {value.name for graph in _graphs(node) for value in graph.output}
    return (set(node.input) | inside) - {""}


def in_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose nodes stand in running order, otherwise as they stood; ONNX asks for that, its writers forget it."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes = list(model.graph.node)
    to_come = {name for node in nodes for name in node.output if name}
    waits = [reads(node) & to_come - set(node.output) for node in nodes]
    readers: dict[str, list[int]] = {}
    for index, names in enumerate(waits):
        for name in names:
            readers.setdefault(name, []).append(index)
    ready = [index for index, names in enumerate(waits) if not names][::-1]
    order: list[int] = []
    while ready:
        index = ready.pop()
        order.append(index)
        freed = []
        for name in nodes[index].output:
            for reader in readers.get(name, ()):
                waits[reader].discard(name)
                if not waits[reader]:
                    freed.append(reader)
        ready += sorted(set(freed), reverse=True)
    if len(order) < len(nodes):
        raise EdgewrightError("the network's nodes wait for each other in a circle")
    del made.graph.node[:]
    made.graph.node.extend(nodes[index] for index in order)
    return made


def free_name(wanted: str, taken: Iterable[str]) -> str:
    """`wanted`, or the first of `wanted.2`, `wanted.3`, ... that is not taken."""
    names, count, found = set(taken), 1, wanted
    while found in names:
        count += 1
        found = f"{wanted}.{count}"
    return found


def tensor_names(model: onnx.ModelProto) -> set[str]:
    """Every tensor's name, those inside loops and branches too."""
    graph = model.graph
    found = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    return found | {name for node in all_nodes(graph) for name in (*node.input, *node.output)} - {""}
