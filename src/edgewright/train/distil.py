r"""Learning from a teacher.

    L = (1 - alpha) L_task + alpha T^2 L_distil(student / T, teacher / T) + w sum_l |f_l - f_l^teacher|^2

L_task and L_distil are the kind's own; f_l are the outputs of named modules, where some are compared.
Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531; features as in
Fu et al., "DepthShrinker", ICML 2022, arXiv:2206.00843.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.core.tensors import ask, leaves, mapped
from edgewright.task.kind import Kind
from edgewright.train.step import Loss


def distillation(
    teacher: nn.Module,
    kind: Kind,
    *,
    alpha: float = 0.7,
    temperature: float = 1.0,
    feature_weight: float = 1e-3,
    features: Sequence[str] = (),
    label_smoothing: float = 0.0,
) -> Loss:
    """The loss of learning from a teacher, for a training loop: the task, and to answer as the teacher does.

    teacher: the network as it was; a copy is kept, in evaluation mode.   alpha: share of the teacher.   features: names
    of modules, in both networks, whose outputs are compared; `linearise` keeps a block's name.
    """
    frozen = copy.deepcopy(teacher).eval().requires_grad_(False)

    def loss(model: nn.Module, x: Any, targets: Any) -> Tensor:
        frozen.to(leaves(x)[0].device)
        with torch.no_grad():
            wanted, theirs = _with_features(frozen, features, x)
        outputs, ours = _with_features(model, features, x)
        task = kind.loss(outputs, targets, label_smoothing)
        soft = kind.distil(outputs, mapped(lambda y: y.float(), wanted), temperature)
        near = sum((functional.mse_loss(mine, own) for mine, own in zip(ours, theirs, strict=True)), task.new_zeros(()))
        return (1 - alpha) * task + alpha * temperature**2 * soft + feature_weight * near

    return loss


def _with_features(model: nn.Module, names: Sequence[str], x: Any) -> tuple[Any, list[Tensor]]:
    seen: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = output.clone()

        return keep

    handles = [model.get_submodule(name).register_forward_hook(keeper(name)) for name in names]
    try:
        output = ask(model, x)
    finally:
        for handle in handles:
            handle.remove()
    return output, [seen[name] for name in names]
