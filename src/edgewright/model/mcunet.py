"""Networks of whole numbers: convolutions of 8-bit weights and inputs, as microcontrollers run them.

With x of 8 bits and zero point z_x, weights w of 8 bits (symmetric, one scale s_w an output channel), bias b at the
scale of the sum, all held as floats:

    y = clamp(round((conv(x - z_x, round(w)) + b) s) + z_y, -128, 127)        s = s_x s_w / s_y
    shortcut:  round((x - z_x) s_x / s_y + (y - z) s / s_y) + z_y, clamped     pooling: the mean, rounded

Padding is the real zero. Rounds are half to even and pass gradients through; the clamp passes them inside its range, so
what the network learns from is the straight-through gradient. There are no norms (they are folded) and no fake
quantisation. The clamp is a plain `nn.Hardtanh` before the round, with ends a hair inside of the last half: the same
numbers, and a layer that `backward` knows.

Differs from the published code: the clamp is closed only up to ties that fall exactly on its outer halves; the shortcut
multiplies by the ratios of the scales, as devices do, instead of dividing the sum by s_y; images are clamped to 8
bits.
Source: Lin et al., "On-Device Training Under 256KB Memory", NeurIPS 2022, arXiv:2206.15472; the networks are MCUNet,
arXiv:2007.10319, ProxylessNAS, arXiv:1812.00332, and MobileNetV2. Checked against: a reference in integers alone, bit
by bit, and the accuracy of the published weights (tests/model/test_mcunet.py).
"""

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.core.errors import BadInput
from edgewright.ir.graph import Graph, GraphBuilder


class _Round(torch.autograd.Function):
    """Half to even; the gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def rounded(x: Tensor) -> Tensor:
    """x rounded half to even, with the gradient of x."""
    return _Round.apply(x)  # pyright: ignore[reportReturnType]


def clip(zero: float) -> nn.Hardtanh:
    """Keeps in range what will be rounded and then moved by `zero` to lie in -128 .. 127."""
    low, high = np.float32(-128.5 - zero), np.float32(127.5 - zero)
    return nn.Hardtanh(float(np.nextafter(low, np.float32(np.inf))), float(np.nextafter(high, np.float32(-np.inf))))


class RoundedConv(nn.Conv2d):
    """The sum of an integer convolution: whole 8-bit inputs less their zero point, weights rounded, plus the bias.

    x_scale, x_zero: of its inputs.   weight_scale: (O,), of its weights; float weights are w s_w, biases b s_w s_x.
    """

    weight_scale: Tensor

    def __init__(self, cfg: Mapping[str, Any], weight: np.ndarray, bias: np.ndarray, scale: np.ndarray) -> None:
        kernel = int(cfg["kernel_size"])
        super().__init__(
            cfg["in_channel"], cfg["out_channel"], kernel, cfg["stride"], (kernel - 1) // 2, groups=cfg["groups"]
        )
        assert self.bias is not None
        with torch.no_grad():
            self.weight.copy_(torch.from_numpy(weight.astype(np.float32)))
            self.bias.copy_(torch.from_numpy(bias.astype(np.float32)))
        self.register_buffer("weight_scale", torch.from_numpy(scale.astype(np.float32)))
        self.x_scale, self.x_zero = float(cfg["x_scale"]), float(cfg["x_zero"])

    def forward(self, input: Tensor) -> Tensor:
        assert self.bias is not None
        weight = rounded(self.weight)
        total = functional.conv2d(
            input - self.x_zero, weight, None, self.stride, self.padding, self.dilation, self.groups
        )
        return total + self.bias.view(-1, 1, 1)


class Int8Conv(nn.Module):
    """A convolution from 8 bits to 8 bits."""

    scale: Tensor

    def __init__(self, cfg: Mapping[str, Any], weight: np.ndarray, bias: np.ndarray, scale: np.ndarray) -> None:
        super().__init__()
        self.conv = RoundedConv(cfg, weight, bias, scale)
        self.y_scale, self.y_zero = float(cfg["y_scale"]), float(cfg["y_zero"])
        effective = cfg["x_scale"] * scale.astype(np.float64) / cfg["y_scale"]
        self.register_buffer("scale", torch.from_numpy(effective.astype(np.float32)))
        self.clip = clip(self.y_zero)

    def forward(self, x: Tensor) -> Tensor:
        return rounded(self.clip(self.conv(x) * self.scale.view(-1, 1, 1))) + self.y_zero


class Int8Block(nn.Module):
    """Convolutions one after another, with a shortcut around them where the network has one."""

    def __init__(self, convs: list[Int8Conv], residual: Mapping[str, float] | None) -> None:
        super().__init__()
        self.convs = nn.Sequential(*convs)
        self.residual = dict(residual) if residual else None
        self.clip = clip(residual["y_zero"]) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.convs(x)
        if self.residual is None or self.clip is None:
            return y
        r = self.residual
        straight, inner = (float(np.float32(r[name] / r["y_scale"])) for name in ("x_scale", "c_scale"))
        total = (x - r["x_zero"]) * straight + (y - r["c_zero"]) * inner
        return rounded(self.clip(total)) + r["y_zero"]


class FloatHead(nn.Linear):
    """A linear classifier on pooled features turned back to real numbers: what is trained in place of the 8-bit one."""

    def __init__(self, features: int, classes: int, x_scale: float, x_zero: float) -> None:
        super().__init__(features, classes)
        self.x_scale, self.x_zero = x_scale, x_zero

    def forward(self, input: Tensor) -> Tensor:
        return super().forward((input.flatten(1) - self.x_zero) * self.x_scale)


class Int8Network(nn.Module):
    """Images as `quantised` gives them (B, 3, H, W) to class scores (B, classes)."""

    def __init__(self, first: Int8Conv, blocks: list[Int8Block], head: nn.Module, resolution: int) -> None:
        super().__init__()
        self.first = first
        self.blocks = nn.Sequential(*blocks)
        self.head = head
        self.resolution = resolution

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.first(x))
        return self.head(rounded(x.mean((2, 3), keepdim=True))).flatten(1)

    def convolutions(self) -> dict[str, RoundedConv]:
        """All by name, in running order, without the classifier."""
        return {n: m for n, m in self.named_modules() if isinstance(m, RoundedConv) and not n.startswith("head")}

    def new_head(self, classes: int, *, seed: int = 0) -> None:
        """Put a float classifier in place of the present one, drawn as `nn.Linear` draws it."""
        old = self.head.conv if isinstance(self.head, Int8Conv) else self.head
        assert isinstance(old, (RoundedConv, FloatHead))
        features = old.in_channels if isinstance(old, RoundedConv) else old.in_features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = FloatHead(features, classes, old.x_scale, old.x_zero)


def quantised(images: Tensor) -> Tensor:
    """Images in 0 .. 255 to the whole numbers -128 .. 127 that the networks read."""
    return (images.float() - 127.5).round().clamp(-128, 127)


def int8_network(cfg: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Int8Network:
    """The network of a plan (`first_conv`, `blocks` of `convs` and a `residual` or null, `classifier`, `input_size`),
    with `ID.weight` (int8), `ID.bias` (int32) and `ID.w_scales` (float32) of every convolution in it."""

    def conv(one: Mapping[str, Any]) -> Int8Conv:
        return Int8Conv(one, *(arrays[f"{one['id']}.{part}"] for part in ("weight", "bias", "w_scales")))

    blocks = [Int8Block([conv(one) for one in block["convs"]], block["residual"]) for block in cfg["blocks"]]
    return Int8Network(conv(cfg["first_conv"]), blocks, conv(cfg["classifier"]), int(cfg["input_size"]))


def int8_graph(cfg: Mapping[str, Any], resolution: int | None = None) -> Graph:
    """The same network as data, to be costed; resolution: side of its images, by default the plan's own."""
    side = resolution or int(cfg["input_size"])
    first = cfg["first_conv"]
    builder = GraphBuilder((first["in_channel"], side, side))

    def conv(x: int, one: Mapping[str, Any]) -> int:
        return builder.conv(x, one["out_channel"], one["kernel_size"], one["stride"], one["groups"])

    x = conv(0, first)
    for block in cfg["blocks"]:
        y = functools.reduce(conv, block["convs"], x)
        x = builder.add(y, x) if block["residual"] else y
    x = conv(builder.global_pool(x), cfg["classifier"])
    builder.flatten(x)
    return builder.graph()


def read_plan(path: Path) -> dict[str, Any]:
    """The plan in a file that `read_int8` reads. Errors: BadInput for a file that is not one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return json.loads(str(arrays["cfg"]))
    except (OSError, KeyError, ValueError) as error:
        raise BadInput(f"{path} is not an integer network: {str(error).splitlines()[0]}") from None


def read_int8(path: Path) -> Int8Network:
    """A network from an .npz file: the arrays of `int8_network`, and its plan as JSON under `cfg`.
    Errors: BadInput for a file that is not one.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return int8_network(json.loads(str(arrays["cfg"])), arrays)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise BadInput(f"{path} is not an integer network: {str(error).splitlines()[0]}") from None


def largest_sum(conv: RoundedConv) -> float:
    """The largest sum that any input can give: below 2^24 a float32 convolution is exact."""
    return float(conv.weight.detach().round().abs().flatten(1).sum(1).max()) * math.ceil(127.5 + abs(conv.x_zero) + 0.5)
