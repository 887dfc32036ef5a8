"""What a torch module runs, by torch.export: the one reader of modules. Nothing is computed, and a model on the meta
device will do.

Only what depends on the input runs; what is made of parameters alone is a constant of the file that ships.
"""

from collections.abc import Hashable, Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgewright.core.errors import BadInput
from edgewright.core.quiet import silent
from edgewright.ir import torch_calls
from edgewright.ir.counts import Work
from edgewright.ir.network import Network, Node

KINDS: Mapping[str, str] = {  # of `op.Kind`, by their names in ATen
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), "conv"),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), "conv_transpose"),
    **dict.fromkeys(("mm", "bmm"), "matmul"),
    **dict.fromkeys(("relu_", "relu6", "hardtanh", "hardtanh_", "clamp"), "relu"),
    **dict.fromkeys(("silu", "silu_"), "swish"),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d"), "avg_pool"),
    **dict.fromkeys(("max_pool1d", "max_pool2d"), "max_pool"),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d"), "upsample_nearest"),
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d"), "upsample_linear"),
    **dict.fromkeys(("view", "reshape", "unsqueeze", "squeeze", "unflatten"), "reshape"),
    **dict.fromkeys(("permute", "transpose"), "transpose"),
    "adaptive_avg_pool2d": "global_pool", "batch_norm": "norm", "add_": "add", "mul_": "mul", "cat": "concat",
}  # fmt: skip


def read(model: nn.Module, *examples: Tensor) -> Network:
    """What `model` runs in evaluation mode on inputs like `examples` (only shapes and types are read).

    Nodes are called by the modules they run in. Errors: BadInput where torch.export cannot follow the model.
    """
    program = exported(model, *examples)
    nodes = list(program.graph.nodes)
    made = [node for node in nodes if node.op == "call_function" and node.name in depending(program)]
    names = {node.name: node.name for node in nodes}
    for node in made:
        if _picks(node):
            names[node.name] = f"{node.args[0]}.{node.args[1]}"
    tensors = {name: value for node in nodes for name, value in _tensors(node)}
    found = tuple(_node(node, names, depending(program)) for node in made if not _picks(node))
    inputs, outputs = (
        tuple(names[str(name)] for name in given)
        for given in (program.graph_signature.user_inputs, program.graph_signature.user_outputs)
    )
    held = {*inputs, *outputs, *(name for node in found for name in (*node.inputs, *node.outputs))}
    shapes: dict[Hashable, tuple[int, ...]] = {n: tuple(t.shape) for n, t in tensors.items() if n in held}
    sizes: dict[Hashable, int] = {n: prod(t.shape) * t.element_size() for n, t in tensors.items() if n in held}
    return Network(found, shapes, sizes, inputs, outputs)


def _picks(node: torch.fx.Node) -> bool:
    """Whether it takes one of several results."""
    return torch_calls.name_of(node.target) == "getitem"


def _tensors(node: torch.fx.Node) -> Iterator[tuple[str, Tensor]]:
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        yield node.name, value
    elif isinstance(value, (tuple, list)):
        yield from ((f"{node.name}.{index}", part) for index, part in enumerate(value) if isinstance(part, Tensor))


def _node(node: torch.fx.Node, names: Mapping[str, str], depend: set[str]) -> Node:
    operator = torch_calls.name_of(node.target)
    return Node(
        name=place(node) or operator,
        kind=KINDS.get(operator, operator),
        inputs=tuple(names[part.name] for part in given(node) if part.name in depend),
        outputs=tuple(name for name, _ in _tensors(node)),
        work=work(node),
        groups=node.args[6] if operator.startswith("conv") and len(node.args) > 6 else 1,  # pyright: ignore
    )


def exported(model: nn.Module, *examples: Tensor) -> ExportedProgram:
    """The program that torch.export makes of `model` in evaluation mode; the model is left as it was.
    Errors: BadInput where torch.export cannot follow it."""
    modes = {module: module.training for module in model.modules()}
    device = next(iter([*model.parameters(), *model.buffers()]), examples[0]).device
    try:
        with silent(), torch.no_grad():
            zeros = tuple(torch.zeros_like(example, device=device) for example in examples)
            return torch.export.export(model.eval(), zeros)
    except Exception as error:  # the exporter raises its own kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(f"the network cannot be traced by torch.export ({reason})") from None
    finally:
        for module, mode in modes.items():
            module.training = mode


def depending(program: ExportedProgram) -> set[str]:
    """The names of the inputs and of all that depends on them."""
    found = {str(name) for name in program.graph_signature.user_inputs}
    for node in program.graph.nodes:
        if node.op == "call_function" and any(source.name in found for source in node.all_input_nodes):
            found.add(node.name)
    return found


def given(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The nodes among its arguments, in order, those in lists too."""
    flat = [
        part for argument in node.args for part in (argument if isinstance(argument, (list, tuple)) else [argument])
    ]
    return [part for part in flat if isinstance(part, torch.fx.Node)]


def place(node: torch.fx.Node) -> str:
    """The path of the innermost module that it runs in."""
    stack = node.meta.get("nn_module_stack") or {}
    return next((path for path, _ in reversed(list(stack.values()))), "")


def work(node: torch.fx.Node) -> Work | None:
    """What a node computes, for all inputs of the example; None where that is not known."""
    arguments, named = _values(node.args), {name: _values(part) for name, part in node.kwargs.items()}
    return torch_calls.work(torch_calls.name_of(node.target), arguments, named, node.meta.get("val"))


def _values(argument: Any) -> Any:
    """What stands in for the values of nodes while exporting."""
    if isinstance(argument, (list, tuple)):
        return [_values(part) for part in argument]
    return argument.meta.get("val") if isinstance(argument, torch.fx.Node) else argument
