"""A small network with the corners that real ones have, and exact rules for all its layers."""

import torch
from torch import Tensor, nn

from edgewright.backward.base import Rule
from edgewright.backward.calls import Kind
from edgewright.backward.exact import BitMask, Exact, FrozenNorm
from edgewright.backward.survey import survey

ALL: dict[Kind, Rule] = {"conv": Exact(), "linear": Exact(), "norm": FrozenNorm("all"), "activation": BitMask()}


class Odd(nn.Module):
    """A residual network with unequal sides, a lopsided `same`, reflected borders, one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU6(inplace=True)
        self.twice = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", bias=False)
        self.depthwise = nn.Conv2d(8, 16, (3, 2), groups=8, padding="same")
        self.norm2 = nn.BatchNorm2d(16)
        self.act2 = nn.ReLU()
        self.groups = nn.Conv2d(16, 12, 3, groups=4, dilation=2, stride=(1, 2))
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(x)))
        x = x + self.twice(self.twice(x))
        x = self.act2(self.norm2(self.depthwise(x)))
        return self.head(self.groups(x).mean((2, 3)))


def odd(seed: int = 0) -> tuple[Odd, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Odd()
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean = torch.randn(layer.num_features) * 0.3
                layer.running_var = torch.rand(layer.num_features) + 0.5
        return model.eval(), torch.randn(2, 3, 15, 18)


def exact(model: nn.Module, x: Tensor) -> dict[str, Rule]:
    return {site.name: ALL[site.calls[0].kind] for site in survey(model, x)}
