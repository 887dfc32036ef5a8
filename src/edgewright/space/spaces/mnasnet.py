"""The MnasNet space of Accel-NASBench: expansion, kernel, depth and squeeze-excite of seven stages, 10^11 networks.

The published table spells a network out in 28 integers: of each stage expansion (1, 4, 6), kernel (3, 5), layers (1, 2,
3; 4 in stage 6) and squeeze-excite (0, 1). Rows of the space count these choices, the last fastest.

Trainable parameters for 1,000 classes equal the published ones. Multiply-adds at 224 px are 86 to 96 % of the published
`macs` (Spearman 0.998), which also counts norms, activations, the means of squeeze-excite and residual sums.
Strides are the published ones whatever the image's size: an image of 32 px ends as one pixel.
Source: Ahmad et al., "Accel-NASBench: Sustainable Benchmarking for Accelerator-Aware NAS", 2024, arXiv:2404.08005.
Checked against: the published table (tests/space/test_mnasnet.py).
"""

import functools
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput
from edgewright.core.tensors import size_text
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.model.mnasnet import HEAD_WIDTH, STEM_WIDTH, STRIDES, WIDTHS, MnasStage, mnasnet_parts, squeezed
from edgewright.space.base import Framed, TabularSpace

NUM_STAGES = 7
DEEP_STAGE = 5  # the one that may have four layers, counted from 0


class StageChoice(Frozen):
    """The choices of one stage."""

    expansion: Literal[1, 4, 6]
    kernel: Literal[3, 5]
    layers: Literal[1, 2, 3, 4]
    squeeze: bool

    def stage(self) -> MnasStage:
        return MnasStage(expansion=self.expansion, kernel=self.kernel, layers=self.layers, squeeze=self.squeeze)


class MnasArchitecture(Framed):
    """A network of the space. `stages`: in running order."""

    space: Literal["mnasnet"] = "mnasnet"
    stages: Annotated[tuple[StageChoice, ...], Field(min_length=NUM_STAGES, max_length=NUM_STAGES)]


@functools.cache
def values() -> tuple[tuple[int, ...], ...]:
    """What each of the 28 integers may be."""
    shallow, deep = ((1, 4, 6), (3, 5), (1, 2, 3), (0, 1)), ((1, 4, 6), (3, 5), (1, 2, 3, 4), (0, 1))
    return tuple(each for stage in range(NUM_STAGES) for each in (deep if stage == DEEP_STAGE else shallow))


class MnasNetSpace(TabularSpace):
    """`mnasnet` for one task; see the top of this file."""

    name = "mnasnet"
    source = "Accel-NASBench (arXiv:2404.08005), MnasNet (arXiv:1807.11626)"
    summary = "the MnasNet space of Accel-NASBench: expansion, kernel, depth and squeeze-excite of seven stages"
    renamed: ClassVar[dict[str, str]] = {"head.0.": "last.", "head.3.": "head.2."}

    def choices(self) -> tuple[int, ...]:
        return tuple(map(len, values()))

    def encode(self, architecture: MnasArchitecture) -> tuple[int, ...]:
        row = [
            int(value)
            for stage in architecture.stages
            for value in (stage.expansion, stage.kernel, stage.layers, stage.squeeze)
        ]
        return self._encoded(row)

    def decode(self, vector: Sequence[int]) -> MnasArchitecture:
        row = [allowed[digit] for allowed, digit in zip(values(), self.checked_vector(vector), strict=True)]
        stages = [dict(zip(("expansion", "kernel", "layers", "squeeze"), row[i : i + 4], strict=True))
                  for i in range(0, len(row), 4)]  # fmt: skip
        return MnasArchitecture.parse({**self.frame(), "stages": stages}, "architecture")

    def from_row(self, row: Sequence[int]) -> MnasArchitecture:
        return self.decode(self._encoded(row))

    def at(self, index: int) -> MnasArchitecture:
        return self.decode(self.digits(index))

    def _encoded(self, row: Sequence[int]) -> tuple[int, ...]:
        if len(row) != len(values()):
            raise BadInput(f"space {self.name}: an architecture has {len(values())} integers, not {len(row)}")
        for place, (value, allowed) in enumerate(zip(row, values(), strict=True)):
            if value not in allowed:
                named = f"{('expansion', 'kernel', 'layers', 'squeeze')[place % 4]} of stage {place // 4 + 1}"
                raise BadInput(f"space {self.name}: {named} is {value}, not one of {', '.join(map(str, allowed))}")
        return tuple(allowed.index(value) for value, allowed in zip(row, values(), strict=True))

    def stem(self, architecture: MnasArchitecture) -> tuple[tuple[str, Graph], ...]:
        named = [("stem", _stem_graph((self.channels, *self.size)))]
        for number, (choice, width, stride) in enumerate(zip(architecture.stages, WIDTHS, STRIDES, strict=True), 1):
            for index in range(choice.layers):
                shape = named[-1][1].output_shape
                graph = block_graph(
                    shape, width, choice.expansion, choice.kernel, choice.squeeze, 1 if index else stride
                )
                named.append((f"stage{number}.{index}", graph))
        return (*named, ("last", _last_graph(named[-1][1].output_shape)))

    def parts(self, architecture: MnasArchitecture) -> dict[str, nn.Module]:
        return mnasnet_parts(self.channels, [choice.stage() for choice in architecture.stages])

    def read(self, data: dict[str, Any]) -> MnasArchitecture:
        architecture = MnasArchitecture.parse(data, "architecture")
        self.check_task(architecture)
        self.encode(architecture)  # refuses four layers where there are three at most
        return architecture

    def smallest(self) -> MnasArchitecture:
        return self.decode((0,) * len(values()))

    def describe(self, architecture: MnasArchitecture) -> str:
        lines = [
            f"{choice.layers} x e{choice.expansion} k{choice.kernel}{' se' if choice.squeeze else ''}"
            for choice in architecture.stages
        ]
        return "\n".join((size_text(self.size), *lines))


@functools.lru_cache(maxsize=65_536)
def block_graph(shape: tuple[int, ...], width: int, expansion: int, kernel: int, squeeze: bool, stride: int) -> Graph:
    """What `model.mnasnet.MnasBlock` computes, operator by operator, batch norms folded."""
    builder, source = GraphBuilder(shape), shape[0]
    inner = source * expansion
    x = builder.swish(builder.conv(0, inner)) if expansion > 1 else 0
    x = builder.swish(builder.conv(x, inner, kernel, stride, groups=inner))
    if squeeze:
        gate = builder.swish(builder.conv(builder.global_pool(x), squeezed(source)))
        x = builder.mul(x, builder.sigmoid(builder.conv(gate, inner)))
    x = builder.conv(x, width)
    return builder.graph(builder.add(0, x) if source == width and stride == 1 else x)


@functools.lru_cache(maxsize=64)
def _stem_graph(shape: tuple[int, ...]) -> Graph:
    builder = GraphBuilder(shape)
    builder.swish(builder.conv(0, STEM_WIDTH, 3, 2))
    return builder.graph()


@functools.lru_cache(maxsize=256)
def _last_graph(shape: tuple[int, ...]) -> Graph:
    builder = GraphBuilder(shape)
    builder.swish(builder.conv(0, HEAD_WIDTH))
    return builder.graph()
