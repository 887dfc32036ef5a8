"""Who reads whom: the operators of a network in running order, from torch.export, with the modules they stand in.

Nothing is computed and no weights are needed: a model on the meta device will do. Only what depends on the input is
listed; what is made of parameters alone is a constant of the file that ships.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.core.errors import BadInput
from edgewright.ir import torch_calls
from edgewright.ir.counts import NOTHING, Work
from edgewright.ir.from_torch import depending, exported, given, work
from edgewright.ir.network import uncounted

INPUT = "input"  # what reads the network's input names it so
OUTPUT = "output"  # and so is called who reads what the network gives
PARAMETER, CONSTANT = "=", "?"
POINTWISE = frozenset(
    {"relu", "relu_", "hardtanh", "hardtanh_", "relu6", "relu6_", "hardswish", "hardswish_", "silu", "silu_", "gelu",
     "sigmoid", "hardsigmoid", "hardsigmoid_", "leaky_relu", "leaky_relu_", "elu", "elu_", "tanh", "clamp"}
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One operator.

    operator: its name in ATen: "conv2d", "batch_norm", "add", ...   inputs: the steps (or INPUT) that it reads, once
    for each argument.   readers: the steps (or OUTPUT) that read it.   modules: the paths of the modules it runs in,
    the whole network ("") first.   calls: the same, told apart between the calls of one module.
    owner: the module whose parameters and buffers it reads, None where it reads none.   uses: how often the most used
    of these is read.   arguments: of the operator, tensors of the network as None.   keywords: of named arguments.
    weight: shape of the first parameter it reads.   operands: all tensors it reads in order: steps, INPUT, parameters
    and buffers by their names after PARAMETER, other constants as CONSTANT.   work: what it computes for the whole
    batch, None where nobody has said how to count it.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    readers: tuple[str, ...]
    modules: tuple[str, ...]
    calls: tuple[str, ...]
    owner: str | None
    uses: int
    shape: tuple[int, ...]
    arguments: tuple[Any, ...]
    keywords: tuple[str, ...] = ()
    weight: tuple[int, ...] = ()
    operands: tuple[str, ...] = ()
    work: Work | None = NOTHING
    batch: int = 1

    @property
    def own(self) -> str:
        """The innermost module it runs in."""
        return self.modules[-1] if self.modules else ""

    @property
    def macs(self) -> int:
        """Multiply-adds of one input, whatever the batch. Errors: BadInput for an operator that cannot be counted."""
        if self.work is None:
            raise uncounted("the network", self.own or self.name, self.operator)
        return self.work.macs // self.batch


@dataclass(frozen=True)
class Wiring:
    """The steps by name, in running order.   input_shape: with the batch.   repeated: paths of modules that stand in
    the network under more than one name."""

    steps: dict[str, Step]
    input_shape: tuple[int, ...]
    repeated: frozenset[str]

    @cached_property
    def by_module(self) -> dict[str, list[Step]]:
        """The steps that run in a module, by its path."""
        found: dict[str, list[Step]] = {}
        for step in self.steps.values():
            for path in dict.fromkeys(step.modules):
                found.setdefault(path, []).append(step)
        return found

    @property
    def macs(self) -> int:
        return sum(step.macs for step in self.steps.values())

    def shape(self, name: str) -> tuple[int, ...]:
        return self.input_shape if name == INPUT else self.steps[name].shape

    def once(self, path: str) -> str | None:
        """Why a module cannot be changed on its own: it, or a parameter of it, is used more than once. None: it can."""
        steps = self.by_module.get(path, [])
        calls = {call for step in steps for at, call in zip(step.modules, step.calls, strict=True) if at == path}
        if len(calls) > 1:
            return f"{path} is called {len(calls)} times"
        if path in self.repeated:
            return f"{path} stands in the network under several names"
        shared = [step for step in steps if step.uses > 1]
        if shared:
            return f"parameters of {shared[0].owner} are used {shared[0].uses} times"
        return None

    def edges(self, path: str) -> tuple[set[str], set[str]]:
        """What a module reads from outside, and its steps that are read outside."""
        inside = {step.name for step in self.by_module.get(path, [])}
        steps = [self.steps[name] for name in inside]
        sources = {name for step in steps for name in step.inputs} - inside
        return sources, {step.name for step in steps if set(step.readers) - inside}


def blank(model: nn.Module, shape: tuple[int, ...], device: str = "cpu") -> Tensor:
    """An input of that shape, of zeros, in the type of the model's own numbers."""
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
    return torch.zeros(shape, dtype=own, device=device)


def trace(model: nn.Module, example: Tensor) -> Wiring:
    """The wiring of `model` in evaluation mode for inputs like `example` (only shape and type are read).

    The model is left as it was, its mode included.
    Errors: BadInput where torch.export cannot follow it, or it does not take and give one tensor.
    """
    program = exported(model, example)
    signature = program.graph_signature
    inputs = tuple(signature.user_inputs)
    if len(inputs) != 1 or len(signature.user_outputs) != 1:
        raise BadInput("the network must take one tensor and give one; a part of it can be compressed on its own")
    owners = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names = {node.name: node.name for node in program.graph.nodes} | {str(inputs[0]): INPUT}
    depend, batch = depending(program), example.shape[0]
    steps = {
        node.name: _step(node, owners, names, depend, batch)
        for node in program.graph.nodes
        if node.op == "call_function" and node.name in depend
    }
    return Wiring(steps, tuple(example.shape), frozenset(_repeated(model)))


def _step(node: torch.fx.Node, owners: dict[str, str], names: dict[str, str], depend: set[str], batch: int) -> Step:
    parameters = [source for source in node.all_input_nodes if source.name in owners]
    stack = node.meta.get("nn_module_stack") or {}
    value, operands = node.meta.get("val"), given(node)
    return Step(
        name=node.name,
        operator=torch_calls.name_of(node.target),
        inputs=tuple(names[part.name] for part in operands if part.name in depend),
        readers=tuple(OUTPUT if user.op == "output" else user.name for user in node.users),
        modules=tuple(path for path, _ in stack.values()),
        calls=tuple(stack),
        owner=owners[parameters[0].name].rpartition(".")[0] if parameters else None,
        uses=max((len(source.users) for source in parameters), default=0),
        shape=tuple(value.shape) if isinstance(value, Tensor) else (),
        arguments=tuple(None if isinstance(argument, torch.fx.Node) else argument for argument in node.args),
        keywords=tuple(node.kwargs),
        weight=tuple(parameters[0].meta["val"].shape) if parameters else (),
        operands=tuple(names[part.name] if part.name in depend else _constant(part, owners) for part in operands),
        work=work(node),
        batch=batch,
    )


def _constant(node: torch.fx.Node, owners: dict[str, str]) -> str:
    return PARAMETER + owners[node.name] if node.name in owners else CONSTANT


def _repeated(model: nn.Module) -> Iterator[str]:
    paths: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    for several in paths.values():
        if len(several) > 1:
            yield from several
