"""Networks of one input and one output, without a space, for tests of what is done with networks."""

from collections.abc import Sequence

from edgewright.model.blocks import Stage, mobile_parts
from edgewright.model.heads.pool import PoolHead
from edgewright.model.linked import Cell, Family, linked_parts
from edgewright.model.nasbench201 import WIDTHS, cell_parts
from edgewright.model.network import Network, with_head


def mobile_net(
    channels: int, outputs: int, stem_width: int, stem_stride: int, stages: Sequence[Stage], head_width: int,
    dropout: float = 0.0,
) -> Network:  # fmt: skip
    parts = mobile_parts(channels, stem_width, stem_stride, stages)
    return with_head(parts, PoolHead(outputs, dropout), stages[-1].width, head_width)


def linked_net(channels: int, outputs: int, cells: Sequence[Cell], family: Family) -> Network:
    network = with_head(linked_parts(channels, 8, 1, cells, family), PoolHead(outputs), cells[-1].width)
    setattr(network, "cells", tuple(cells))  # noqa: B010 (as the space leaves it for the scores that read it)
    return network


def cell_net(channels: int, outputs: int, ops: Sequence[str]) -> Network:
    return with_head(cell_parts(channels, ops), PoolHead(outputs), WIDTHS[-1])
