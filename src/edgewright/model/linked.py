"""Cells of equal layers with long links: the networks whose accuracy NN-Mass and NN-Degree speak of.

A cell is (w, d, t): d layers of w channels, each reading the one before it (the lattice); layer i = 2 .. d-1 also
receives min(w (i - 1), t) channels of the layers before that (the links), the nearest first. Three families:

    dense       3x3 convolutions; links are concatenated to the input                        DenseNet
    residual    3x3 convolutions; links are added before the activation, whole layers only   ResNet, Wide ResNet
    mobile      3x3 depthwise and 1x1; links are concatenated to the input                   MobileNetV1

Differs from the papers: they draw the linked channels at random, here they are the nearest, so that a link is a slice
of memory and not a gather; the degrees, which are all that the scores read, are the same.
Source: Bhardwaj et al., "How Does Topology of Neural Architectures Impact Gradient Propagation and Model Performance?"
(NN-Mass), CVPR 2021, arXiv:1910.00780; Li et al., "FLASH", ACM TECS 2021, arXiv:2108.00568.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from edgewright.core.data import Frozen
from edgewright.model.blocks import ConvNorm

Family = Literal["dense", "residual", "mobile"]


class Cell(Frozen):
    """`depth` layers of `width` channels; a layer receives at most `links` channels over long links."""

    width: int
    depth: int
    links: int


def linked_channels(cell: Cell, layer: int) -> int:
    """Channels that layer `layer` (0-based) of the cell receives over long links."""
    return min(cell.width * (layer - 1), cell.links) if layer >= 2 else 0


class LinkedCell(nn.Module):
    """One cell. (B, source, H, W) to (B, width, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, source: int, cell: Cell, family: Family, stride: int) -> None:
        super().__init__()
        self.links = [linked_channels(cell, layer) for layer in range(cell.depth)]
        self.adds = family == "residual"
        self.layers = nn.ModuleList()
        for layer, links in enumerate(self.links):
            inner = source if layer == 0 else cell.width + (0 if self.adds else links)
            self.layers.append(_layer(inner, cell.width, family, stride if layer == 0 else 1))
        self.activation = nn.ReLU(inplace=True) if self.adds else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        done: list[Tensor] = []
        for layer, links in zip(self.layers, self.links, strict=True):
            linked = _nearest(done[:-1], links)
            if self.adds:
                x = self.activation(sum(linked, layer(x)))
            else:
                x = layer(torch.cat([x, *linked], dim=1) if linked else x)
            done.append(x)
        return x


def _layer(source: int, width: int, family: Family, stride: int) -> nn.Module:
    if family == "mobile":
        return nn.Sequential(ConvNorm(source, source, 3, stride, groups=source), ConvNorm(source, width))
    return ConvNorm(source, width, 3, stride, activate=family == "dense")


def _nearest(earlier: Sequence[Tensor], channels: int) -> list[Tensor]:
    """The last `channels` channels of what is done, nearest layer first; only the farthest one is cut."""
    taken: list[Tensor] = []
    for tensor in reversed(earlier):
        if channels <= 0:
            break
        taken.append(tensor if tensor.shape[1] <= channels else tensor[:, :channels])
        channels -= tensor.shape[1]
    return taken


def linked_parts(
    channels: int, stem_width: int, stem_stride: int, cells: Sequence[Cell], family: Family
) -> dict[str, nn.Module]:
    """A stem (3x3 convolution) and cells, by name: stem, cell1, cell2, ..."""
    parts: dict[str, nn.Module] = {"stem": ConvNorm(channels, stem_width, 3, stem_stride)}
    source = stem_width
    for number, cell in enumerate(cells, 1):
        parts[f"cell{number}"] = LinkedCell(source, cell, family, 1 if number == 1 else 2)
        source = cell.width
    return parts
