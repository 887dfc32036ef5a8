"""The MnasNet-like networks of Accel-NASBench: seven stages of inverted residuals with optional squeeze-excite.

    stem     3x3 convolution with stride 2 to 32 channels, batch norm, swish
    stages   `layers` blocks each, to 16, 24, 40, 80, 112, 192, 320 channels; strides 1, 2, 2, 2, 1, 2, 1
    head     1x1 convolution to 1,280 channels, norm, swish, mean over the image, classifier

    block    1x1 convolution to `expansion` times the channels (none for 1), norm, swish; k x k depthwise, norm, swish;
             squeeze-excite; 1x1 convolution, norm; + x where the shape stays

Squeeze-excite has a quarter of the channels that go into the block, swish inside and a sigmoid gate. The code that
trained these networks is not published. Parameters of all 5,138 networks of the table fit this description, and its
multiply-adds fit it with two more per value that a norm, an activation or a residual sum writes.
First weights: convolutions normal with variance 2 / fan_out, the rest as torch draws them.
Source: Ahmad et al., "Accel-NASBench", 2024, arXiv:2404.08005; the space is that of MnasNet, arXiv:1807.11626, with the
frame of EfficientNet-B0, arXiv:1905.11946.
Checked against: the published parameters and multiply-adds (tests/space/test_mnasnet.py).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from edgewright.core.data import Frozen

WIDTHS = (16, 24, 40, 80, 112, 192, 320)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
STEM_WIDTH = 32
HEAD_WIDTH = 1280


class MnasStage(Frozen):
    """`layers` blocks; the first changes width and resolution."""

    expansion: int
    kernel: int
    layers: int
    squeeze: bool


def squeezed(source: int) -> int:
    """Channels inside the squeeze-excite of a block that `source` channels go into."""
    return max(1, source // 4)


def _conv(source: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1, swish: bool = True) -> nn.Module:
    convolution = nn.Conv2d(source, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
    return nn.Sequential(convolution, nn.BatchNorm2d(width), *([nn.SiLU(inplace=True)] if swish else []))


class Gate(nn.Module):
    """Squeeze-excite: x times a gate in (0, 1) per channel, computed from the channels' means."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, inner, 1),
            nn.SiLU(inplace=True),
            nn.Conv2d(inner, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class MnasBlock(nn.Module):
    """One inverted residual. (B, source, H, W) to (B, width, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, source: int, width: int, stage: MnasStage, stride: int) -> None:
        super().__init__()
        inner = source * stage.expansion
        self.residual = source == width and stride == 1
        self.body = nn.Sequential(
            *([_conv(source, inner)] if stage.expansion > 1 else []),
            _conv(inner, inner, stage.kernel, stride, groups=inner),
            *([Gate(inner, squeezed(source))] if stage.squeeze else []),
            _conv(inner, width, swish=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def mnasnet_parts(channels: int, stages: Sequence[MnasStage]) -> dict[str, nn.Module]:
    """Stem, seven stages, and the 1x1 convolution before the mean, by name: stem, stage1 to stage7, last."""
    parts: dict[str, nn.Module] = {"stem": _conv(channels, STEM_WIDTH, 3, 2)}
    source = STEM_WIDTH
    for number, (stage, width, stride) in enumerate(zip(stages, WIDTHS, STRIDES, strict=True), 1):
        first = MnasBlock(source, width, stage, stride)
        rest = (MnasBlock(width, width, stage, 1) for _ in range(stage.layers - 1))
        parts[f"stage{number}"] = nn.Sequential(first, *rest)
        source = width
    return parts | {"last": _conv(source, HEAD_WIDTH)}
