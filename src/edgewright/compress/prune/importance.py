"""The contract of importances, and what several of them need: passes over batches.

An importance is a function

    (model, groups, batches, loss) -> for each group a float64 vector: one number a unit, larger is more important

where `batches` gives pairs of inputs and targets and `loss` is (model, inputs, targets) -> a number. It leaves model
and global random state as they were. Infinity: this unit must stay.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.compress.prune.groups import Group
from edgewright.core.errors import BadInput

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Batches = Iterable[tuple[Tensor, Tensor]]
Importance = Callable[[nn.Module, Sequence[Group], Batches, Loss], list[Tensor]]


def cross_entropy(model: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(model(x), targets)


def gradients(model: nn.Module, batches: Batches, loss: Loss) -> Iterator[Mapping[str, Tensor]]:
    """For each batch the parameters' gradients by name; norms use their running statistics. The caller's gradients,
    modes and the random state come to no harm.
    Errors: BadInput where there is no batch, or a loss is no number."""
    modes = {module: module.training for module in model.modules()}
    parameters = dict(model.named_parameters())
    before = {name: parameter.grad for name, parameter in parameters.items()}
    learns = {name: parameter.requires_grad for name, parameter in parameters.items()}
    count = 0
    try:
        model.eval().requires_grad_(True)
        for count, (x, targets) in enumerate(batches, 1):
            model.zero_grad(set_to_none=True)
            with torch.enable_grad(), torch.random.fork_rng(devices=[]):
                value = loss(model, x, targets)
                if not torch.isfinite(value):
                    raise BadInput(f"the loss of batch {count} is {value.item()}; importances need finite ones")
                value.backward()
            yield {
                name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                for name, parameter in parameters.items()
            }
    finally:
        for name, parameter in parameters.items():
            parameter.grad = before[name]
            parameter.requires_grad_(learns[name])
        for module, mode in modes.items():
            module.training = mode
    if not count:
        raise BadInput("this importance needs batches of data to take gradients on, and got none")


def by_first_order(
    model: nn.Module, groups: Sequence[Group], batches: Batches, loss: Loss, judge: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """The mean over batches of what `judge` makes of w dL/dw of all parameters of each unit: (units, numbers) to
    (units,), float64."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    scores = [torch.zeros(group.units, dtype=torch.float64) for group in groups]
    count = 0
    for gradient in gradients(model, batches, loss):
        products = {name: weights[name] * gradient[name] for name in weights}
        for score, group in zip(scores, groups, strict=True):
            rows = [member.rows(products[member.tensor]) for member in group.members if member.tensor in products]
            score += judge(torch.cat(rows, 1).double().cpu())
        count += 1
    return [score / count for score in scores]
