"""The mean over the map, then one linear layer: outputs that belong to the whole sample.

    y = W mean_hw(a(x)) + b        a: an optional 1x1 convolution with batch norm and ReLU

It reads the deepest level. Classification, several labels, regression.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.core.errors import BadInput
from edgewright.core.tensors import ask
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.model.blocks import ConvNorm
from edgewright.model.head import Head, Shape


class PoolHead(Head):
    """outputs: numbers a sample.   dropout: share of the linear layer's inputs that are zeroed in training."""

    def __init__(self, outputs: int, dropout: float = 0.0) -> None:
        self.outputs, self.dropout = outputs, dropout

    def reads(self, levels: Sequence[Shape]) -> tuple[int, ...]:
        return (len(levels) - 1,)

    def graph(self, features: Sequence[Shape], width: int) -> Graph:
        (shape,) = features
        builder = GraphBuilder(shape)
        x = builder.relu(builder.conv(0, width)) if width else 0
        builder.linear(builder.flatten(builder.global_pool(x)), self.outputs)
        return builder.graph()

    def build(self, features: Sequence[int], width: int) -> nn.Module:
        (source,) = features
        # Dropout shares a place with the flattening, so that weights have the same names with and without it.
        flatten = nn.Sequential(nn.Flatten(), nn.Dropout(self.dropout)) if self.dropout else nn.Flatten()
        return nn.Sequential(
            *([ConvNorm(source, width)] if width else []),
            nn.AdaptiveAvgPool2d(1),
            flatten,
            nn.Linear(width or source, self.outputs),
        )

    def find(self, network: nn.Module, example: Any) -> tuple[str, ...]:
        """The linear layer whose output is the network's."""
        seen: dict[str, Tensor] = {}

        def keeper(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
            def keep(_layer: nn.Module, _given: Any, output: Tensor) -> None:
                seen[name] = output

            return keep

        layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
        hooks = [layer.register_forward_hook(keeper(name)) for name, layer in layers.items()]
        modes = [(module, module.training) for module in network.modules()]
        try:
            network.eval()
            with torch.no_grad():
                output = ask(network, example)
        finally:
            for hook in hooks:
                hook.remove()
            for module, mode in modes:
                module.training = mode
        found = tuple(name for name, y in seen.items() if y is output)
        if not found:
            raise BadInput("the network does not end in a linear layer, so no new head can be made for other classes")
        return found

    def fresh(self, old: nn.Module) -> nn.Module:
        assert isinstance(old, nn.Linear)
        new = nn.Linear(old.in_features, self.outputs, dtype=old.weight.dtype, device=old.weight.device)
        nn.init.zeros_(new.weight)
        nn.init.zeros_(new.bias)
        return new
