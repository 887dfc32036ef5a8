"""New output layers for a network that has learned another task, and their first lesson."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.core.errors import BadInput
from edgewright.core.progress import progress
from edgewright.core.seed import derive
from edgewright.core.tensors import Size, ask, gathered, mapped, rows
from edgewright.task.base import Split, Task, TaskSpec, batches, kind_of

SAMPLES = 2048  # that the first lesson is taken on
ROUNDS = 300
RATE, DECAY = 1e-2, 1e-3


def replace_outputs(model: nn.Module, spec: TaskSpec, example: Any) -> dict[str, nn.Module]:
    """Put layers for this task's outputs, all zeros, in the place of those the model has; the old ones by name.

    example: a batch of inputs.   Errors: BadInput for a model that ends in something else than the task's kind of head.
    """
    head = kind_of(spec).head
    old = {name: model.get_submodule(name) for name in head.find(model, example)}
    put_layers(model, {name: head.fresh(layer) for name, layer in old.items()})
    return old


def put_layers(model: nn.Module, layers: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Put layers in the places of that name; those that stood there."""
    before = {}
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        before[name] = model.get_submodule(name)
        setattr(model.get_submodule(parent), leaf, layer)
    return before


def awaken(model: nn.Module, task: Task, size: Size, seed: int) -> None:
    """Teach the new outputs of a network that has learned, where they are one linear layer: alone, before the rest goes
    on. Batch norms keep the start's statistics: taken anew from few samples they harm what it knows."""
    spec, train = task.spec, task.train
    example = next(x for x, _ in batches(train.take(slice(2)), spec, batch_size=2, size=size))
    names = kind_of(spec).head.find(model, example)
    if len(names) == 1 and isinstance(model.get_submodule(names[0]), nn.Linear):
        first_lesson(model, names[0], train, spec, size, seed)


def first_lesson(model: nn.Module, name: str, split: Split, spec: TaskSpec, size: Size, seed: int) -> None:
    """Train the output layer alone, on what the network makes of up to 2,048 samples: AdamW on the kind's loss, full
    batches.

    It costs one forward pass of these samples, on the device that the model is on; gradients of the rest of the network
    mean something only afterwards.   Errors: BadInput where what the network makes of them is not numbers.
    """
    generator = torch.Generator().manual_seed(derive(seed, "lesson"))
    part = split.take(torch.randperm(len(split), generator=generator)[:SAMPLES])
    head = model.get_submodule(name)
    assert isinstance(head, nn.Linear)
    features, targets = _features(model, head, part, spec, size)
    if not features.isfinite().all():
        raise BadInput("what the network makes of the samples is not numbers; look at its weights, and at the samples")
    scale = features.std().clamp_min(1e-12)
    features /= scale
    weight = head.weight.detach().float().clone().requires_grad_()
    bias = None if head.bias is None else head.bias.detach().float().clone().requires_grad_()
    learned = [weight] if bias is None else [weight, bias]
    optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=DECAY)
    kind = kind_of(spec)
    for _ in range(ROUNDS):
        optimizer.zero_grad()
        kind.loss(functional.linear(features, weight, bias), targets).backward()
        optimizer.step()
    with torch.no_grad():
        head.weight.copy_(weight / scale)
        if bias is not None:
            head.bias.copy_(bias)


def _features(model: nn.Module, head: nn.Linear, part: Split, spec: TaskSpec, size: Size) -> tuple[Tensor, Any]:
    """What the head is given, (samples, features) float32, and the targets."""
    caught: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, given: caught.append(given[0].detach().flatten(1).float()))
    modes = [(module, module.training) for module in model.modules()]
    place, targets = head.weight, []
    try:
        model.eval()
        with torch.no_grad(), progress("Teaching the head", total=len(part)) as bar:
            for x, y in batches(part, spec, batch_size=64, size=size):
                ask(model, mapped(lambda one: one.to(place.device, place.dtype), x))
                targets.append(y)
                bar.advance(rows(y))
    finally:
        hook.remove()
        for module, mode in modes:
            module.training = mode
    return torch.cat(caught), mapped(lambda one: one.to(place.device), gathered(targets, torch.cat))
