"""Heads side by side: several outputs, each by a head of its own, from the levels of one stem.

    y = {name: head(levels that it reads) for each named head}

It reads every level that one of them reads, from the finest to the deepest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from edgewright.core.errors import BadInput
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.model.head import Head, Shape


class SeveralHeads(Head):
    """heads: by the name of the output that each makes."""

    def __init__(self, heads: Mapping[str, Head]) -> None:
        self.heads = dict(heads)
        self.outputs = sum(head.outputs for head in heads.values())

    def reads(self, levels: Sequence[Shape]) -> tuple[int, ...]:
        wanted = {name: head.reads(levels) for name, head in self.heads.items()}
        union = tuple(sorted({level for read in wanted.values() for level in read}))
        for name, chosen in self._chosen([levels[level][0] for level in union]).items():
            if tuple(union[place] for place in chosen) != wanted[name]:  # what `graph` and `build` go by
                raise BadInput(f"the heads {', '.join(self.heads)} read levels that cannot be told apart side by side")
        return union

    def graph(self, features: Sequence[Shape], width: int) -> Graph:
        builder, outputs = GraphBuilder(*features), []
        for name, places in self._chosen([shape[0] for shape in features]).items():
            outputs += builder.block(self.heads[name].graph([features[place] for place in places], width), *places)
        return builder.graph(*outputs)

    def build(self, features: Sequence[int], width: int) -> nn.Module:
        chosen = self._chosen(features)
        parts = {name: head.build([features[place] for place in chosen[name]], width)
                 for name, head in self.heads.items()}  # fmt: skip
        return SideBySide(parts, chosen)

    def find(self, network: nn.Module, example: Any) -> tuple[str, ...]:
        raise BadInput("a network of several targets keeps them: it cannot be given others")

    def fresh(self, old: nn.Module) -> nn.Module:
        raise BadInput("a network of several targets keeps them: it cannot be given others")

    def _chosen(self, channels: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Of each head the places of its levels among those that are read, which it picks by their number."""
        shapes = [(count, 1, 1) for count in channels]
        return {name: head.reads(shapes) for name, head in self.heads.items()}


class SideBySide(nn.Module):
    """Takes a map for each level that is read; gives a dict of outputs.

    parts: the heads by output.   chosen: places of the maps that each takes.
    """

    def __init__(self, parts: Mapping[str, nn.Module], chosen: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts.values())
        self.chosen = {name: tuple(chosen[name]) for name in parts}

    def forward(self, *maps: Tensor) -> dict[str, Tensor]:
        pairs = zip(self.chosen.items(), self.parts, strict=True)
        return {name: part(*(maps[place] for place in places)) for (name, places), part in pairs}
