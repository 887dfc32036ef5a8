"""A part of a network as a graph without weights: what latency tables, memory and multiply-adds are told from.

It follows the part's own nodes, at the widths that are asked for and for any size of the map it is given. What has no
operator of its own kind is drawn as a near one, for costs alone: smooth activations as x sigmoid(x), norms over
channels as batch norms. The file that ships comes from the modules, and its latency is measured.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx, nn

from edgewright.core.errors import BadInput
from edgewright.ir import torch_calls
from edgewright.ir.counts import depthwise
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.ir.sizes import Size, plain
from edgewright.model.settle import NORMS

Draw = Callable[["Drawing", fx.Node, nn.Module | None], int]
SAME = {"dropout", "dropout1d", "dropout2d", "identity", "contiguous", "clone", "detach", "float", "to", "droppath"}
RELU = {"relu", "relu6", "hardtanh", "leakyrelu", "leaky_relu", "clamp", "prelu", "elu"}
SMOOTH = {"silu", "swish", "gelu", "geluu", "hardswish", "mish", "gelutanh", "softplus", "tanh"}
ADD, MUL = {"add", "iadd", "sub", "__add__"}, {"mul", "imul", "__mul__", "truediv", "div"}


class Drawing:
    """One part being drawn. module: its fx graph with its modules.   widths: what layers make, where they are to make
    fewer channels than they do."""

    def __init__(self, module: fx.GraphModule, shape: tuple[int, ...], widths: Mapping[str, int]) -> None:
        self.module, self.builder, self.widths = module, GraphBuilder(shape), widths
        self.tensors: dict[fx.Node, int] = {}

    def run(self) -> Graph:
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                self.tensors[node] = 0
            elif node.op == "output":
                (made,) = node.all_input_nodes
                return self.builder.graph(self.tensors[made])
            elif node.op != "get_attr":
                self.tensors[node] = self._drawn(node)
        raise AssertionError("a graph has an output")

    def source(self, node: fx.Node) -> int:
        """The tensor that a node reads first."""
        return self.tensors[node.all_input_nodes[0]]

    def sources(self, node: fx.Node) -> list[int]:
        return [self.tensors[one] for one in node.all_input_nodes if one in self.tensors]

    def shape(self, tensor: int) -> tuple[int, ...]:
        return self.builder.shapes[tensor]

    def _drawn(self, node: fx.Node) -> int:
        layer = self.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if layer is not None:
            for kind, draw in LAYERS:
                if isinstance(layer, kind):
                    return draw(self, node, layer)
        name = type(layer).__name__ if layer is not None else called(node)
        draw = next((draw for names, draw in CALLS if name.lower().rstrip("_") in names), None)
        if draw is None:
            where = f" ({node.target})" if layer is not None else ""
            raise BadInput(f"it runs {name}{where}, which cannot be drawn here")
        return draw(self, node, layer)


def called(node: fx.Node) -> str:
    """What a function or a method is called."""
    return str(node.target) if node.op == "call_method" else torch_calls.name_of(node.target)


def picture(module: fx.GraphModule, shape: tuple[int, ...], widths: Mapping[str, int] | None = None) -> Graph:
    """The graph of a part that is given a map of `shape`.   widths: see `Drawing`.

    Errors: BadInput that names what cannot be drawn."""
    return Drawing(module, shape, widths or {}).run()


def _padding(layer: Any) -> Size | None:
    """None for what keeps the middle: "same", and kinds of convolution that pad by themselves."""
    own = type(layer) is nn.Conv2d or any(layer.padding)
    return plain(tuple(layer.padding)) if own and isinstance(layer.padding, tuple) else None


def _conv(drawing: Drawing, node: fx.Node, layer: Any) -> int:
    source = drawing.source(node)
    width, groups = drawing.widths.get(str(node.target), layer.out_channels), layer.groups
    if depthwise(groups, layer.in_channels):
        groups = drawing.shape(source)[0]
        width = groups * (layer.out_channels // layer.in_channels)
    kernel, stride = (plain(tuple(value)) for value in (layer.kernel_size, layer.stride))
    return drawing.builder.conv(
        source, width, kernel, stride, groups, dilation=plain(tuple(layer.dilation)), padding=_padding(layer)
    )


def _transposed(drawing: Drawing, node: fx.Node, layer: Any) -> int:
    kernel, stride = (plain(tuple(value)) for value in (layer.kernel_size, layer.stride))
    width = drawing.widths.get(str(node.target), layer.out_channels)
    return drawing.builder.conv_transpose(drawing.source(node), width, kernel, stride, layer.groups)


def _linear(drawing: Drawing, node: fx.Node, layer: Any) -> int:
    width = drawing.widths.get(str(node.target), layer.out_features)
    return drawing.builder.linear(drawing.source(node), width, layer.bias is not None)


def _norm(drawing: Drawing, node: fx.Node, layer: Any) -> int:
    """Folded into the convolution before it, which alone it reads; with the activation that some norms hold."""
    source, before = drawing.source(node), node.all_input_nodes[0]
    made = next((op for op in drawing.builder.ops if op.output == source), None)
    folds = made is not None and made.kind == "conv" and len(before.users) == 1
    result = source if folds and isinstance(layer, NORMS) else drawing.builder.norm(source)
    activation = getattr(layer, "act", None)
    return result if activation is None else _activation(drawing, result, type(activation).__name__)


def _activation(drawing: Drawing, tensor: int, name: str) -> int:
    word = name.lower().rstrip("_")
    if word in SAME:
        return tensor
    if word in ("sigmoid", "hardsigmoid"):
        return getattr(drawing.builder, word)(tensor)
    return drawing.builder.relu(tensor) if word in RELU else drawing.builder.swish(tensor)


def _elementwise(drawing: Drawing, node: fx.Node, layer: nn.Module | None) -> int:
    return _activation(drawing, drawing.source(node), type(layer).__name__ if layer is not None else called(node))


def _joined(kind: str) -> Draw:
    def draw(drawing: Drawing, node: fx.Node, layer: nn.Module | None) -> int:
        sources = drawing.sources(node)
        if len(sources) == 1:  # a number, or a parameter, is the other
            return drawing.builder.norm(sources[0])
        return getattr(drawing.builder, kind)(*sources)

    return draw


def _concat(drawing: Drawing, node: fx.Node, layer: nn.Module | None) -> int:
    return drawing.builder.concat(*drawing.sources(node))


def _pool(kind: str) -> Draw:
    def draw(drawing: Drawing, node: fx.Node, layer: Any) -> int:
        given: Callable[[str, int, Any], Any] = lambda name, index, other: (  # noqa: E731
            getattr(layer, name) if layer is not None else node.kwargs.get(name, _at(node.args, index, other))
        )
        kernel = given("kernel_size", 1, 1)
        stride, padding = given("stride", 2, None) or kernel, given("padding", 3, 0)
        sizes = [plain(_pair(value)) for value in (kernel, stride)]
        around = plain(_pair(padding)) if _pair(padding) != (0, 0) else (0, 0)
        return getattr(drawing.builder, kind)(drawing.source(node), *sizes, padding=around)

    return draw


def _pair(value: Any) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _at(values: Sequence[Any], index: int, other: Any) -> Any:
    return values[index] if index < len(values) else other


def _whole_pool(drawing: Drawing, node: fx.Node, layer: nn.Module | None) -> int:
    source = drawing.source(node)
    return source if drawing.shape(source)[1:] == (1, 1) else drawing.builder.global_pool(source)


def _larger(drawing: Drawing, node: fx.Node, layer: Any) -> int:
    factor = layer.scale_factor if layer is not None else node.kwargs.get("scale_factor", _at(node.args, 2, None))
    if not isinstance(factor, int | float):
        raise BadInput("it makes maps larger by no fixed factor, which cannot be drawn here")
    return drawing.builder.upsample(drawing.source(node), int(factor))


def _taken(drawing: Drawing, node: fx.Node, layer: Any) -> int:
    """The first channels of a map: x[:, :k]."""
    index: Any = node.args[1]
    places: list[Any] = list(index) if isinstance(index, tuple) else [index]
    channels = places.pop(1) if len(places) > 1 else None
    plain_start = isinstance(channels, slice) and not channels.start and isinstance(channels.stop, int)
    if not (plain_start and all(one in (slice(None), Ellipsis) for one in places)):
        raise BadInput("it takes a part of a map that is not its first channels, which cannot be drawn here")
    source = drawing.source(node)
    stop = min(channels.stop, drawing.shape(source)[0])  # pyright: ignore[reportOptionalMemberAccess]
    return source if stop == drawing.shape(source)[0] else drawing.builder.take(source, stop)


def _scaled(drawing: Drawing, node: fx.Node, layer: Any) -> int:
    return drawing.builder.norm(drawing.source(node))


def _same(drawing: Drawing, node: fx.Node, layer: nn.Module | None) -> int:
    return drawing.source(node)


LAYERS: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], Draw], ...] = (
    (nn.Conv2d, _conv),
    (nn.ConvTranspose2d, _transposed),
    (nn.Linear, _linear),
    ((*NORMS, nn.LayerNorm, nn.GroupNorm), _norm),
    (nn.AdaptiveAvgPool2d, _whole_pool),
    (nn.AvgPool2d, _pool("avg_pool")),
    (nn.MaxPool2d, _pool("max_pool")),
    (nn.Upsample, _larger),
)
CALLS: tuple[tuple[set[str], Draw], ...] = (
    (SAME, _same),
    (RELU | SMOOTH | {"sigmoid", "hardsigmoid"}, _elementwise),
    (ADD, _joined("add")),
    (MUL, _joined("mul")),
    ({"cat", "concat"}, _concat),
    ({"mean", "adaptive_avg_pool2d", "adaptiveavgpool2d", "fastadaptiveavgpool2d"}, _whole_pool),
    ({"avg_pool2d"}, _pool("avg_pool")),
    ({"max_pool2d"}, _pool("max_pool")),
    ({"interpolate"}, _larger),
    ({"getitem"}, _taken),
    ({"layerscale", "layerscale2d", "scale2d"}, _scaled),
)
