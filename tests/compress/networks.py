"""Small networks with lived-in statistics, for the tests of this room."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.model.blocks import Stage
from edgewright.model.network import Network
from made_network import mobile_net


def lived_in(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, biases and batch statistics, none of them 0 or 1; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0.3, 1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.normal_(1, 0.3, generator=generator)
            module.bias.data.normal_(0.5, 1, generator=generator)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            fan = module.weight[0].numel()
            module.weight.data.normal_(0, fan**-0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0.5, 1, generator=generator)
    return model.eval()


def images(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 0.7


class Inverted(nn.Module):
    """An inverted residual block whose inner activations are gone; a residual where the shape allows one."""

    def __init__(self, source: int, inner: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.residual = source == width and stride == 1
        self.body = nn.Sequential(
            nn.Conv2d(source, inner, 1, bias=False), nn.BatchNorm2d(inner),
            nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=inner, bias=False), nn.BatchNorm2d(inner),
            nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class Branches(nn.Module):
    """RepVGG: 3x3, 1x1 and identity, each with a norm, and an activation on the sum."""

    def __init__(self, width: int, groups: int = 1) -> None:
        super().__init__()
        self.wide = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(width)
        )
        self.point = nn.Sequential(nn.Conv2d(width, width, 1, groups=groups, bias=False), nn.BatchNorm2d(width))
        self.same = nn.BatchNorm2d(width)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.wide(x) + self.point(x) + self.same(x))


class Collapsible(nn.Module):
    """SESR: k x k to many channels, 1x1 back, and a residual."""

    def __init__(self, width: int, inner: int, kernel: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, inner, kernel, padding=kernel // 2)
        self.squeeze = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.squeeze(self.expand(x)) + x


class ReadTwice(nn.Module):
    """A convolution whose output a norm and the sum after it read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.then = nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.Conv2d(5, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.then(torch.relu(self.norm(y))) + y


class NormAct(nn.BatchNorm2d):
    """A norm with its activation inside, as timm writes them."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.drop, self.act = nn.Identity(), nn.ReLU6()

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


class TimmInverted(nn.Module):
    """An inverted residual block out of such norms."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv_pw, self.bn1 = nn.Conv2d(width, inner, 1, bias=False), NormAct(inner)
        self.conv_dw, self.bn2 = nn.Conv2d(inner, inner, 3, 1, 1, groups=inner, bias=False), NormAct(inner)
        self.conv_pwl, self.bn3 = nn.Conv2d(inner, width, 1, bias=False), NormAct(width)
        self.bn3.act = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.bn3(self.conv_pwl(self.bn2(self.conv_dw(self.bn1(self.conv_pw(x)))))) + x


class SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow does: as much as needed, the odd zero below and to the right."""

    def forward(self, input: Tensor) -> Tensor:
        need = [
            max(0, (-(-size // step) - 1) * step + kernel - size)
            for size, step, kernel in zip(input.shape[2:], self.stride, self.kernel_size, strict=True)
        ]
        pads = (need[1] // 2, need[1] - need[1] // 2, need[0] // 2, need[0] - need[0] // 2)
        return functional.conv2d(
            functional.pad(input, pads), self.weight, self.bias, self.stride, (0, 0), self.dilation, self.groups
        )


class UnevenBlock(nn.Sequential):
    """An inverted block of stride 2 with such padding."""

    def __init__(self, source: int, inner: int, width: int, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(source, inner, 1, bias=False), nn.BatchNorm2d(inner),
            SameConv(inner, inner, kernel, 2, groups=inner, bias=False), nn.BatchNorm2d(inner),
            nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip


class Shared(nn.Module):
    """One convolution and its norm, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.norm(self.conv(torch.relu(self.norm(self.conv(x)))))))


def mobile(kernel: int = 3) -> Network:
    """Two widths, a stride, residuals; MobileNetV2 in small."""

    def stage(depth: int, width: int, expansion: int, stride: int) -> Stage:
        return Stage(
            kind="inverted", depth=depth, width=width, kernel=kernel, expansion=expansion, squeeze=False, stride=stride
        )

    return mobile_net(3, 10, 8, 2, [stage(1, 8, 1, 1), stage(2, 8, 6, 1), stage(1, 12, 6, 2)], 32)


def mobilenet_v2(width: float) -> Network:
    """MobileNetV2 for ImageNet (ReLU instead of ReLU6, which counts the same), widths rounded to multiples of 8."""

    def rounded(channels: int) -> int:
        near = max(8, int(channels * width + 4) // 8 * 8)
        return near if near >= 0.9 * channels * width else near + 8

    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    stages = [
        Stage(kind="inverted", depth=n, width=rounded(c), kernel=3, expansion=e, squeeze=False, stride=s)
        for e, c, n, s in table
    ]
    return mobile_net(3, 1000, rounded(32), 2, stages, max(1280, rounded(1280)))
