r"""A feature pyramid for maps of answers: each level is brought to one width and added to what lies above it.

    p_L = conv1x1(f_L),   p_l = conv1x1(f_l) + nearest(p_{l+1}),   y = conv1x1(relu(bn(conv3x3(relu(p_1)))))

f_1 is the finest level that it reads, f_L the deepest; y is as large as f_1. Fine levels say where, deep ones what.
It reads every level that is at most half as large as the map the stem reads, or all where the stem does not halve.

Differs from the paper: lateral sums at the finest level only, one 3x3 convolution (depthwise and 1x1) in place of one
for every level, and no second pyramid, as of small networks the decoder would otherwise cost more than the stem.
Source: Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019, arXiv:1901.02446; Lin et al., "Feature Pyramid
Networks for Object Detection", CVPR 2017, arXiv:1612.03144.
Checked against: the module's graph and a plain evaluation of it (tests/model/test_pyramid.py).
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from edgewright.core.errors import BadInput
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.model.blocks import ConvNorm
from edgewright.model.head import Head, Shape

WIDTH = 32  # where nobody says another
MOST_LEVELS = 4


class PyramidHead(Head):
    """outputs: numbers a place."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs

    def reads(self, levels: Sequence[Shape]) -> tuple[int, ...]:
        return tuple(range(max(0, len(levels) - MOST_LEVELS), len(levels)))

    def graph(self, features: Sequence[Shape], width: int) -> Graph:
        width = width or WIDTH
        builder = GraphBuilder(*features)
        x = -1
        for level in reversed(range(len(features))):
            lateral = builder.conv(level, width)
            x = lateral if x < 0 else builder.add(lateral, builder.upsample(x, like=level))
        x = builder.relu(builder.conv(builder.relu(x), width, 3, groups=width))
        x = builder.relu(builder.conv(x, width))
        builder.conv(x, self.outputs)
        return builder.graph()

    def build(self, features: Sequence[int], width: int) -> nn.Module:
        return Pyramid(features, width or WIDTH, self.outputs)

    def find(self, network: nn.Module, example: Any) -> tuple[str, ...]:
        found = [name for name, module in network.named_modules() if isinstance(module, Pyramid)]
        if not found:
            raise BadInput("the network does not end in a pyramid, so it cannot be given other classes of pixels")
        return (f"{found[-1]}.answer",)

    def fresh(self, old: nn.Module) -> nn.Module:
        assert isinstance(old, nn.Conv2d)
        new = nn.Conv2d(old.in_channels, self.outputs, 1, dtype=old.weight.dtype, device=old.weight.device)
        nn.init.zeros_(new.weight)
        if new.bias is not None:
            nn.init.zeros_(new.bias)
        return new


class Pyramid(nn.Module):
    """Takes one map a level, the finest first; gives (B, outputs, h, w) as large as the first."""

    def __init__(self, features: Sequence[int], width: int, outputs: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(ConvNorm(source, width, activate=False) for source in features)
        self.smooth = nn.Sequential(
            nn.ReLU(inplace=True), ConvNorm(width, width, 3, groups=width), ConvNorm(width, width)
        )
        self.answer = nn.Conv2d(width, outputs, 1)

    def forward(self, *levels: Tensor) -> Tensor:
        maps = [layer(level) for layer, level in zip(self.lateral, levels, strict=True)]
        x = maps[-1]
        for finer in reversed(maps[:-1]):
            x = finer + functional.interpolate(x, size=finer.shape[-2:], mode="nearest")
        return self.answer(self.smooth(x))
