"""Statistics of batch norms taken anew, from samples as they are."""

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from edgewright.core.tensors import ask

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@torch.no_grad()
def settle(model: nn.Module, inputs: Iterable[Any], count: int) -> None:
    """The mean of what `count` batches of inputs show, each batch the same weight; the model evaluates afterwards."""
    norms = {layer: layer.momentum for layer in model.modules() if isinstance(layer, NORMS)}
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean of all batches
    model.train()
    try:
        for x in itertools.islice(inputs, count if norms else 0):
            ask(model, x)
    finally:
        for layer, momentum in norms.items():
            layer.momentum = momentum
    model.eval()
