"""The optimizer of a recipe: weights of convolutions and linear layers decay, norms and biases do not."""

from typing import Any

import torch
from torch import nn

from edgewright.train.recipe import Recipe


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: with two axes or more (decayed), and the rest (not decayed)."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or AdamW; fused where the device has the kernel (a third of the step's time)."""
    groups = [group for group in parameter_groups(model, recipe.weight_decay) if group["params"]]
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for g in groups for p in g["params"])
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=fused)
