"""Small networks whose channels hang together in different ways, for the tests of pruning."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from compress.networks import TimmInverted, lived_in, mobile


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut, added in place as torchvision does."""

    def __init__(self, source: int, inner: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(source, inner, 3, stride, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(inner), nn.ReLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(inner, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        same = source == width and stride == 1
        self.down = None if same else nn.Sequential(nn.Conv2d(source, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.down is None else self.down(x)
        return self.relu(y)


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU(),
        Residual(16, 24, 16), Residual(16, 8, 16), Residual(16, 32, 32, 2), Residual(32, 16, 32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip


class Joined(nn.Module):
    """Paths put beside each other, a norm over both, and a shortcut over one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 1)
        self.norm, self.act, self.then = nn.BatchNorm2d(24), nn.PReLU(24), nn.Conv2d(24, 8, 3, 2)
        self.last = nn.Linear(8 * 2 * 3, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        both = self.act(self.norm(torch.cat([self.left(y), y], 1)))
        return self.last(torch.flatten(functional.max_pool2d(self.then(both), 2), 1))


class Squeezed(nn.Module):
    """A depthwise block with squeeze-excite, of uneven sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm = nn.Conv2d(3, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depth = nn.Conv2d(24, 24, 5, 2, 2, groups=24)
        self.reduce, self.widen = nn.Conv2d(24, 8, 1), nn.Conv2d(8, 24, 1)
        self.project, self.head = nn.Conv2d(24, 16, 1), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.depth(functional.hardswish(self.norm(self.expand(x)))))
        gate = self.widen(torch.relu(self.reduce(y.mean((2, 3), keepdim=True))))
        return self.head(self.project(y * torch.sigmoid(gate))).mean((2, 3))


class Gated(nn.Module):
    """A grouped convolution, and a gate made of one half of the channels for the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = nn.Conv2d(4, 16, 1), nn.Conv2d(16, 32, 3, 1, 1, groups=2)
        self.last = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.grouped(torch.tanh(self.first(x))).chunk(2, 1)
        return self.last(a * torch.sigmoid(b))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.num_heads, self.attn_dim, self.size = heads, heads * size, size
        self.qkv, self.proj = nn.Linear(width, 3 * heads * size), nn.Linear(heads * size, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, self.attn_dim))


class Encoder(nn.Module):
    def __init__(self, width: int, heads: int, size: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads, size)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class Vit(nn.Module):
    """A vision transformer: patches, positions, two encoders of 3 and 5 heads."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 12, 4, 4), nn.Parameter(torch.randn(1, 1, 12))
        self.positions = nn.Parameter(torch.randn(1, 7, 12))
        self.blocks = nn.Sequential(Encoder(12, 3, 4, 24), Encoder(12, 5, 6, 16))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """By name: a network with lived-in statistics, and the shape it reads."""
    found: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "residual": (resnet(), (2, 3, 9, 12)),
        "depthwise": (mobile(), (2, 3, 21, 26)),
        "joined": (Joined(), (2, 3, 11, 13)),
        "squeeze-excite": (Squeezed(), (2, 3, 10, 7)),
        "grouped, gated": (Gated(), (1, 4, 6, 5)),
        "transformer": (Vit(), (2, 3, 8, 12)),
        "norms with activations": (
            nn.Sequential(nn.Conv2d(3, 8, 3), TimmInverted(8, 24), nn.Conv2d(8, 2, 1)), (1, 3, 6, 9),
        ),
    }  # fmt: skip
    return {name: (lived_in(model), shape) for name, (model, shape) in found.items()}
