"""NAS-Bench-Macro: 6,561 networks of eight layers, each an identity or one of two inverted residuals.

Rows count in base 3, the last layer fastest: row 0 is 00000000 (identities), row 6560 is 22222222. The best published
network, 22212202, is row 6,473. Source: Su et al., CVPR 2021, arXiv:2103.11922. Trainable parameters and multiply-adds
at 32 px equal those of the published table for all rows; isomorphic networks there are none.
Checked against: that table (tests/space/test_nasbench_macro.py).
"""

import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from edgewright.core.tensors import size_text
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.model.nasbench_macro import HEAD_WIDTH, LAYERS, MOBILE, STEM_WIDTH, frame, macro_parts
from edgewright.space.base import Framed, TabularSpace

NUM_LAYERS = 8
LayerName = Literal["identity", "mb3_k3", "mb6_k5"]


class MacroArchitecture(Framed):
    """A network of NAS-Bench-Macro. `layers`: in running order."""

    space: Literal["nbmacro"] = "nbmacro"
    layers: Annotated[tuple[LayerName, ...], Field(min_length=NUM_LAYERS, max_length=NUM_LAYERS)]


class NASBenchMacro(TabularSpace):
    """`nbmacro` for one task; see the top of this file."""

    name = "nbmacro"
    source = "NAS-Bench-Macro (arXiv:2103.11922)"
    summary = "the 6,561 networks of NAS-Bench-Macro: identity or one of two inverted residuals in each of 8 layers"

    def choices(self) -> tuple[int, ...]:
        return (len(LAYERS),) * NUM_LAYERS

    def encode(self, architecture: MacroArchitecture) -> tuple[int, ...]:
        return tuple(LAYERS.index(layer) for layer in architecture.layers)

    def decode(self, vector: Sequence[int]) -> MacroArchitecture:
        layers = tuple(LAYERS[digit] for digit in self.checked_vector(vector))
        return MacroArchitecture.parse({**self.frame(), "layers": layers}, "architecture")

    def at(self, index: int) -> MacroArchitecture:
        return self.decode(self.digits(index))

    def stem(self, architecture: MacroArchitecture) -> tuple[tuple[str, Graph], ...]:
        named = [("stem", _stem_graph((self.channels, *self.size)))]
        for number, (layer, (_, width, stride)) in enumerate(zip(architecture.layers, frame(), strict=True), 1):
            named.append((f"layer{number}", layer_graph(named[-1][1].output_shape, layer, width, stride)))
        return tuple(named)

    def parts(self, architecture: MacroArchitecture) -> dict[str, nn.Module]:
        return macro_parts(self.channels, architecture.layers)

    def head_width(self, architecture: MacroArchitecture) -> int:
        return HEAD_WIDTH

    def read(self, data: dict[str, Any]) -> MacroArchitecture:
        architecture = MacroArchitecture.parse(data, "architecture")
        self.check_task(architecture)
        return architecture

    def smallest(self) -> MacroArchitecture:
        return self.decode((0,) * NUM_LAYERS)

    def describe(self, architecture: MacroArchitecture) -> str:
        return f"{size_text(self.size)}, {' '.join(architecture.layers)}"


@functools.lru_cache(maxsize=4096)
def layer_graph(shape: tuple[int, ...], layer: str, width: int, stride: int) -> Graph:
    """What one layer computes, operator by operator, batch norms folded."""
    builder, source = GraphBuilder(shape), shape[0]
    same = source == width and stride == 1
    if layer == "identity":
        return builder.graph(0 if same else builder.conv(0, width, 1, stride))
    expansion, kernel = MOBILE[layer]
    inner = source * expansion
    x = builder.relu(builder.conv(0, inner))
    x = builder.conv(builder.relu(builder.conv(x, inner, kernel, stride, groups=inner)), width)
    return builder.graph(builder.add(0, x) if same else x)


@functools.lru_cache(maxsize=64)
def _stem_graph(shape: tuple[int, ...]) -> Graph:
    builder = GraphBuilder(shape)
    builder.relu(builder.conv(0, STEM_WIDTH, 3))
    return builder.graph()
