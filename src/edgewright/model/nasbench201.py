"""The networks of NAS-Bench-201: one cell of four nodes and six edges, repeated in three stages.

    stem     3x3 convolution to 16 channels, batch norm
    stages   five cells each at 16, 32, 64 channels; between them a residual block that halves the image
    head     batch norm, ReLU, mean over the image, classifier

    cell     node_j = sum over i < j of op_ij(node_i); node 0 is the input, node 3 the output
    op       none; skip_connect; nor_conv_1x1, nor_conv_3x3: ReLU, convolution, batch norm; avg_pool_3x3: mean over the
             pixels of the window that exist
    reduce   ReLU, 3x3 convolution with stride 2, norm, ReLU, 3x3 convolution, norm
             + 2x2 means, 1x1 convolution without a norm

Differs from the official code: `none` is no operator and not a multiplication by 0, and an edge that leads nowhere is
not run, so that nothing flows where nothing arrives; its weights are there and count. A node without inputs is zeros.
With an odd side the 2x2 means round up like the convolution beside them, where the official sum would fail.
First weights are as torch draws them, as in the official training.
Source: Dong and Yang, "NAS-Bench-201", ICLR 2020, arXiv:2001.00326.
Checked against: the parameters and multiply-adds of the published table, all 15,625 cells; the official cell written
out (tests/space/test_nasbench201.py).
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
WIDTHS = (16, 32, 64)
CELLS = 5


def read_nodes(ops: Sequence[str]) -> frozenset[int]:
    """The nodes from which a cell's output is read, directly or through others; node 3 is one of them."""
    wanted = {3}
    for (start, end), op in reversed(list(zip(EDGES, ops, strict=True))):
        if end in wanted and op != "none":
            wanted.add(start)
    return frozenset(wanted)


class NormalConv(nn.Sequential):
    """ReLU, convolution with same padding, batch norm."""

    def __init__(self, source: int, width: int, kernel: int, stride: int = 1) -> None:
        convolution = nn.Conv2d(source, width, kernel, stride, kernel // 2, bias=False)
        super().__init__(nn.ReLU(), convolution, nn.BatchNorm2d(width))


class Cell(nn.Module):
    """One cell; shapes stay as they are. `ops`: names from `OPS` in the order of `EDGES`."""

    def __init__(self, ops: Sequence[str], width: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict()
        wanted = read_nodes(ops)
        self.plan: list[tuple[int, list[tuple[int, str]]]] = []  # of each node that is read: where from, through what
        for node in (1, 2, 3):
            steps = []
            for (start, end), op in zip(EDGES, ops, strict=True):
                if end == node and op != "none":
                    self.edges[f"{start}>{end}"] = _operator(op, width)
                    steps.append((start, f"{start}>{end}"))
            if node in wanted:
                self.plan.append((node, steps))

    def forward(self, x: Tensor) -> Tensor:
        nodes = {0: x}
        for node, steps in self.plan:
            terms = [self.edges[name](nodes[start]) for start, name in steps]
            nodes[node] = functools.reduce(torch.add, terms) if terms else torch.zeros_like(x)
        return nodes[3]


def _operator(op: str, width: int) -> nn.Module:
    if op == "skip_connect":
        return nn.Identity()
    if op == "avg_pool_3x3":
        return nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return NormalConv(width, width, 3 if op == "nor_conv_3x3" else 1)


class Reduce(nn.Module):
    """The residual block that halves the image. (B, source, H, W) to (B, width, ceil(H / 2), ceil(W / 2))."""

    def __init__(self, source: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(NormalConv(source, width, 3, 2), NormalConv(width, width, 3))
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), nn.Conv2d(source, width, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.body(x)


def cell_parts(channels: int, ops: Sequence[str], *, cells: int = CELLS, stride: int = 1) -> dict[str, nn.Module]:
    """Stem, stages, reductions and the norm before the mean, by name: stem, stage1, reduce1, ..., stage3, last.

    ops: as in `Cell`.   cells: of a stage.   stride: of the stem; the published networks have 5 and 1.
    """
    first = nn.Conv2d(channels, WIDTHS[0], 3, stride, 1, bias=False)
    parts: dict[str, nn.Module] = {"stem": nn.Sequential(first, nn.BatchNorm2d(WIDTHS[0]))}
    for number, width in enumerate(WIDTHS, 1):
        parts[f"stage{number}"] = nn.Sequential(*(Cell(ops, width) for _ in range(cells)))
        if number < len(WIDTHS):
            parts[f"reduce{number}"] = Reduce(width, WIDTHS[number])
    return parts | {"last": nn.Sequential(nn.BatchNorm2d(WIDTHS[-1]), nn.ReLU(inplace=True))}
