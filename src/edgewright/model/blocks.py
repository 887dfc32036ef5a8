"""The blocks that small convolutional networks are made of, and stems that are stages of them.

One block, four kinds. k is the kernel, e the expansion; every convolution has a batch norm; the residual is added
where the block keeps its shape; squeeze-excite, where used, gates what goes into the last convolution.

    inverted    1x1 to e * width, ReLU; k x k depthwise, ReLU; 1x1; + x          MobileNetV2, MnasNet, MobileNetV3
    fused       k x k to e * width, ReLU; 1x1; + x      (e > 1)                  Fused-MBConv of EfficientNetV2
                k x k; + x; ReLU                        (e = 1)
    separable   k x k depthwise, ReLU; 1x1; + x; ReLU                            MobileNetV1, with a residual
    basic       k x k, ReLU; k x k; + x; ReLU                                    ResNet

ReLU everywhere, added after the residual where there is one: runtimes fuse convolution, add and ReLU into one pass.

First weights: convolutions before a batch norm normal with variance 2 / fan_out, gates as torch draws them.
Batch norms start at 1, the last of a residual too: at 0 the branch would pass no gradient to its convolutions, and a
score taken before training would not see them.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from edgewright.core.data import Frozen

Kind = Literal["inverted", "fused", "separable", "basic"]


class Stage(Frozen):
    """`depth` blocks of one kind; the first one changes width and resolution."""

    kind: Kind
    depth: int
    width: int
    kernel: int
    expansion: int
    squeeze: bool
    stride: int


def squeezed(width: int) -> int:
    """Channels inside a squeeze-excite gate of `width` channels: a quarter, a multiple of 8."""
    return max(8, width // 4 // 8 * 8)


class ConvNorm(nn.Sequential):
    """Convolution with same padding (output side = ceil(side / stride)), batch norm, and ReLU unless told not to."""

    def __init__(
        self, source: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1, activate: bool = True
    ) -> None:
        convolution = nn.Conv2d(source, width, kernel, stride, kernel // 2, groups=groups, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        super().__init__(convolution, nn.BatchNorm2d(width), *([nn.ReLU(inplace=True)] if activate else []))


class SqueezeExcite(nn.Module):
    """x times a gate in [0, 1] per channel, computed from the channels' means.

    Source: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507; hard sigmoid from MobileNetV3.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, squeezed(width), 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed(width), width, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Block(nn.Module):
    """One block of a stage, from the table at the top of this file.

    (B, source, H, W) to (B, width, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self, source: int, width: int, *, kind: Kind, kernel: int, expansion: int, squeeze: bool, stride: int
    ) -> None:
        super().__init__()
        self.residual = source == width and stride == 1
        self.body = nn.Sequential(*_layers(source, width, kind, kernel, expansion, squeeze, stride))
        self.activation = nn.ReLU(inplace=True) if ends_in_relu(kind, expansion) else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return self.activation(x + y if self.residual else y)


def ends_in_relu(kind: Kind, expansion: int) -> bool:
    """Whether a block's output passes a ReLU; wide-inside blocks end linearly, as in MobileNetV2."""
    return kind in ("separable", "basic") or (kind == "fused" and expansion == 1)


def _layers(
    source: int, width: int, kind: Kind, kernel: int, expansion: int, squeeze: bool, stride: int
) -> list[nn.Module]:
    inner = source * expansion
    if kind == "inverted":
        first = [
            *([ConvNorm(source, inner)] if expansion > 1 else []),
            ConvNorm(inner, inner, kernel, stride, groups=inner),
        ]
        last = ConvNorm(inner, width, activate=False)
    elif kind == "fused" and expansion > 1:
        first, last = [ConvNorm(source, inner, kernel, stride)], ConvNorm(inner, width, activate=False)
    elif kind == "fused":
        first, last = [], ConvNorm(source, width, kernel, stride, activate=False)
    elif kind == "separable":
        first = [ConvNorm(source, source, kernel, stride, groups=source)]
        last = ConvNorm(source, width, activate=False)
    else:
        inner = width
        first, last = [ConvNorm(source, width, kernel, stride)], ConvNorm(width, width, kernel, activate=False)
    return [*first, *([SqueezeExcite(inner)] if squeeze else []), last]


def mobile_parts(channels: int, stem_width: int, stem_stride: int, stages: Sequence[Stage]) -> dict[str, nn.Module]:
    """A stem (3x3 convolution) and stages of blocks, by name: stem, stage1, stage2, ...

    channels: of the input.   stem_width, stem_stride: of the stem.   stages: in order.
    Input: (B, channels, H, W) normalised.   Output: (B, width of the last stage, h, w).
    """
    parts: dict[str, nn.Module] = {"stem": ConvNorm(channels, stem_width, 3, stem_stride)}
    source = stem_width
    for number, stage in enumerate(stages, 1):
        parts[f"stage{number}"] = _stage(source, stage)
        source = stage.width
    return parts


def _stage(source: int, stage: Stage) -> nn.Sequential:
    shape = stage.model_dump(include={"kind", "kernel", "expansion", "squeeze"})
    first = Block(source, stage.width, stride=stage.stride, **shape)
    return nn.Sequential(first, *(Block(stage.width, stage.width, stride=1, **shape) for _ in range(stage.depth - 1)))
