"""A new head for a network that has learned other classes, and its first lesson."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.backward.survey import on_meta, survey
from edgewright.core.errors import BadInput
from edgewright.core.progress import progress
from edgewright.core.seed import derive
from edgewright.task.base import Split, TaskSpec, batches

IMAGES = 2048  # that the first lesson is taken on
ROUNDS = 300
RATE, DECAY = 1e-2, 1e-3


def find_head(model: nn.Module, example: Tensor) -> str:
    """Name of the linear layer that the model ends in: the last that runs, as many outputs as the model's own.

    Errors: BadInput for a model that ends in something else.
    """
    linear = [site.name for site in survey(model, example) if site.calls[0].kind == "linear"]
    output, _ = on_meta(model, example)
    layer = model.get_submodule(linear[-1]) if linear else None
    if not isinstance(layer, nn.Linear) or tuple(output.shape) != (len(example), layer.out_features):
        raise BadInput("the network does not end in a linear layer, so no new head can be made for other classes")
    return linear[-1]


def replace_head(model: nn.Module, name: str, classes: int) -> nn.Linear:
    """Put a linear layer of `classes` outputs, all zeros, in the place of the head; the old one is given back."""
    old = model.get_submodule(name)
    assert isinstance(old, nn.Linear)
    new = nn.Linear(old.in_features, classes, bias=True, dtype=old.weight.dtype, device=old.weight.device)
    nn.init.zeros_(new.weight)
    nn.init.zeros_(new.bias)
    put_head(model, name, new)
    return old


def put_head(model: nn.Module, name: str, head: nn.Linear) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, head)


def first_lesson(model: nn.Module, name: str, split: Split, spec: TaskSpec, resolution: int, seed: int) -> None:
    """Train the head alone, on what the network makes of up to 2,048 images: softmax regression by AdamW, full batches.

    It costs one forward pass of these images, on the device that the model is on; gradients of the rest of the network
    mean something only afterwards.   Errors: BadInput where what the network makes of them is not numbers.
    """
    generator = torch.Generator().manual_seed(derive(seed, "lesson"))
    part = split.take(torch.randperm(len(split), generator=generator)[:IMAGES])
    head = model.get_submodule(name)
    assert isinstance(head, nn.Linear)
    features, labels = _features(model, head, part, spec, resolution)
    if not features.isfinite().all():
        raise BadInput("what the network makes of the images is not numbers; look at its weights, and at the images")
    scale = features.std().clamp_min(1e-12)
    features /= scale
    weight = head.weight.detach().float().clone().requires_grad_()
    bias = None if head.bias is None else head.bias.detach().float().clone().requires_grad_()
    learned = [weight] if bias is None else [weight, bias]
    optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=DECAY)
    for _ in range(ROUNDS):
        optimizer.zero_grad()
        functional.cross_entropy(functional.linear(features, weight, bias), labels).backward()
        optimizer.step()
    with torch.no_grad():
        head.weight.copy_(weight / scale)
        if bias is not None:
            head.bias.copy_(bias)


def _features(model: nn.Module, head: nn.Linear, part: Split, spec: TaskSpec, resolution: int) -> tuple[Tensor, Tensor]:
    """What the head is given, (images, features) float32, and the labels."""
    caught: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, given: caught.append(given[0].detach().flatten(1).float()))
    modes = [(module, module.training) for module in model.modules()]
    labels = []
    try:
        model.eval()
        with torch.no_grad(), progress("Teaching the head", total=len(part)) as bar:
            for x, y in batches(part, spec, batch_size=64, resolution=resolution):
                model(x.to(head.weight.device, head.weight.dtype))
                labels.append(y)
                bar.advance(len(y))
    finally:
        hook.remove()
        for module, mode in modes:
            module.training = mode
    return torch.cat(caught), torch.cat(labels).to(head.weight.device)
