"""One network counted from a graph, a torch module and its ONNX file: the same, operator by operator."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from edgewright.core.errors import BadInput
from edgewright.ir import counts, from_onnx, from_torch
from edgewright.ir.graph import Graph, GraphBuilder, count_macs, count_params
from edgewright.ir.liveness import onnx_peak_bytes
from edgewright.ir.network import Network, from_graph
from edgewright.ir.to_onnx import to_onnx


class Images(nn.Module):
    """Grouped, depthwise with a multiplier, dilated and uneven convolutions, one channel alone, a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.mono = nn.Conv2d(1, 4, 3, 1, 1)
        self.stem = nn.Conv2d(5, 8, (3, 5), (2, 1), (1, 2))
        self.alone = nn.Conv2d(8, 16, 3, 1, 2, 2, groups=8)
        self.grouped, self.mixed = nn.Conv2d(16, 12, 7, 2, 3, groups=4), nn.Conv2d(12, 8, 1, groups=2, bias=False)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2, groups=2)
        self.each = nn.ConvTranspose2d(6, 6, (3, 2), (3, 2), groups=6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.mono(x[:, :1]), x[:, :1]], 1)
        x = torch.relu(self.alone(torch.relu(self.stem(x))))
        x = functional.max_pool2d(torch.relu(self.mixed(torch.relu(self.grouped(x)))), 3, 1, 1)
        x = functional.interpolate(self.each(self.up(x)), scale_factor=2, mode="nearest")
        return self.head(x.mean((2, 3)))


def images() -> Graph:
    builder = GraphBuilder((3, 13, 10))
    one = builder.take(0, 1)
    x = builder.concat(builder.conv(one, 4, 3), one)
    x = builder.relu(builder.conv(x, 8, (3, 5), (2, 1)))
    x = builder.relu(builder.conv(x, 16, 3, 1, 8, dilation=2))
    x = builder.relu(builder.conv(builder.relu(builder.conv(x, 12, 7, 2, 4)), 8, 1, 1, 2, bias=False))
    x = builder.conv_transpose(builder.max_pool(x, 3), 6, 2, 2, 2)
    x = builder.upsample(builder.conv_transpose(x, 6, (3, 2), (3, 2), 6))
    builder.linear(builder.flatten(builder.global_pool(x)), 3)
    return builder.graph()


class Series(nn.Module):
    """1-d convolutions, then tokens: linear layers, attention by hand, an LSTM and a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv1d(5, 12, 5, 2, 2), nn.Conv1d(12, 12, 3, 1, 2, 2, groups=12)
        self.up = nn.ConvTranspose1d(12, 8, 2, 2, groups=4)
        self.query, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 8)
        self.lstm, self.gru = nn.LSTM(8, 6, batch_first=True), nn.GRU(6, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(torch.relu(self.deep(torch.relu(self.stem(x))))).transpose(1, 2)
        seen = (self.query(x) @ self.key(x).transpose(1, 2)).softmax(-1) @ self.value(x)
        x = self.gru(self.lstm(x + seen)[0])[0]
        return self.head(x.transpose(1, 2).mean(2))


def series() -> Graph:
    builder = GraphBuilder((5, 22))
    x = builder.relu(builder.conv(builder.relu(builder.conv(0, 12, 5, 2)), 12, 3, 1, 12, dilation=2))
    x = builder.transpose(builder.conv_transpose(x, 8, 2, 2, 4))
    scores = builder.matmul(builder.linear(x, 8), builder.transpose(builder.linear(x, 8, bias=False)))
    seen = builder.matmul(builder.softmax(scores, -1), builder.linear(x, 8))
    x = builder.gru(builder.lstm(builder.add(x, seen), 6), 5)
    builder.linear(builder.flatten(builder.global_pool(builder.transpose(x))), 3)
    return builder.graph()


class Both(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.images, self.series = Images(), Series()

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.images(x), self.series(y)


def both() -> Graph:
    first, second = images(), series()
    builder = GraphBuilder(first.input_shape, second.input_shape)
    return builder.graph(*builder.block(first, 0), *builder.block(second, 1))


def works(network: Network) -> list[tuple[str, int, tuple[int, ...]]]:
    """What multiplies: kind of layer, multiply-adds, shape of the weight; in an order of their own."""
    found = [node.work for node in network.nodes if node.work is not None and node.work.macs]
    return sorted((work.layer, work.macs, work.weight) for work in found)


def test_the_readers_agree(tmp_path: Path) -> None:
    network, built = Both().eval(), both()
    shapes = [built.shapes[name] for name in built.inputs]
    examples = [torch.zeros(1, *shape) for shape in shapes]
    expected = works(from_graph(built))
    assert {layer for layer, _, _ in expected} == {"depthwise", "dense", "pointwise", "linear"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(network, tuple(examples), dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    program.save(tmp_path / "network.onnx")
    found = [from_torch.read(network, *examples), *map(from_onnx.read, (to_onnx(built), tmp_path / "network.onnx"))]
    for one in found:
        assert works(one) == expected
        assert one.macs == count_macs(built) == from_graph(built).macs
        assert [[1, *shape] for shape in shapes] == [list(one.shapes[name]) for name in one.inputs]
        assert [one.shapes[name] for name in one.outputs] == [(1, 3), (1, 3)]


def test_twice_as_many_inputs_are_twice_as_much_work_and_pytorch_counts_as_much() -> None:
    network, built = Both().to("meta"), both()
    twice = [torch.zeros(2, *built.shapes[name], device="meta") for name in built.inputs]
    assert from_torch.read(network, *twice).macs == 2 * count_macs(built)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.to_empty(device="cpu")(*(torch.zeros(one.shape) for one in twice))
    lstm = 22 * 4 * 6 * (8 + 6)  # which PyTorch's own counter may not see
    assert counter.get_total_flops() // 2 in (2 * count_macs(built), 2 * (count_macs(built) - lstm))


@st.composite
def layers(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """A convolution of any kind, and the shape of what it reads."""
    axes, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3]))
    sides = tuple(draw(st.integers(5, 9)) for _ in range(axes))
    kernel, stride = (tuple(draw(st.integers(1, 3)) for _ in range(axes)) for _ in range(2))
    source, width = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    options = {"groups": groups, "padding": draw(st.integers(0, 1)), "dilation": draw(st.integers(1, 2))}
    made = draw(st.sampled_from([getattr(nn, f"Conv{axes}d"), getattr(nn, f"ConvTranspose{axes}d")]))
    return made(source, width, kernel, stride, **options), (draw(st.integers(1, 3)), source, *sides)


@given(layers())
@settings(max_examples=15, deadline=None)
def test_every_convolution_is_counted_as_pytorch_does(case: tuple[nn.Module, tuple[int, ...]]) -> None:
    layer, shape = case
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(torch.zeros(shape))
    assert from_torch.read(layer, torch.zeros(shape)).macs == counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Linear(7, 5), (2, 4, 7), 8 * 35),
        (nn.MultiheadAttention(6, 2, batch_first=True), (2, 9, 6), 2 * (9 * 4 * 36 + 2 * 81 * 6)),
        (nn.TransformerEncoderLayer(6, 3, 10, batch_first=True), (2, 9, 6), 2 * (9 * (144 + 120) + 2 * 81 * 6)),
        (nn.LSTM(6, 5, 2, bidirectional=True), (9, 2, 6), 18 * 2 * (4 * 5 * (6 + 5) + 4 * 5 * (10 + 5))),
        (nn.LSTM(6, 5, proj_size=3), (9, 2, 6), 18 * (4 * 5 * (6 + 3) + 3 * 5)),
        (nn.RNN(6, 5), (9, 2, 6), 18 * 5 * (6 + 5)),
        (nn.GRUCell(6, 5), (2, 6), 2 * 15 * (6 + 5)),
        (nn.Embedding(50, 6), (2, 9), 0),
    ],
)
def test_layers_by_hand(layer: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            attends = isinstance(self.layer, nn.MultiheadAttention)
            made = self.layer(x, x, x, need_weights=False) if attends else self.layer(x)
            return made[0] if isinstance(made, tuple) else made

    dtype = torch.int64 if isinstance(layer, nn.Embedding) else torch.float32
    assert from_torch.read(Net(), torch.zeros(shape, dtype=dtype)).macs == macs


@pytest.mark.parametrize(
    ("made", "macs"),
    [
        (lambda a, b: torch.einsum("bmk,bkn->bmn", a, b), 2 * 3 * 4 * 5),
        (lambda a, b: torch.einsum("...mk,...kn->...mn", a, b), 2 * 3 * 4 * 5),
        (lambda a, b: torch.tensordot(a, b, ([0, 2], [0, 1])), 3 * 2 * 4 * 5),
        (lambda a, b: torch.baddbmm(torch.ones(1), a, b), 2 * 3 * 4 * 5),
        (lambda a, b: torch.addbmm(torch.ones(1), a, b), 2 * 3 * 4 * 5),
        (lambda a, b: a[0] @ b[0, :, 0], 3 * 4),
        (lambda a, b: torch.dot(a[0, 0], b[0, :, 0]), 4),
        (lambda a, b: functional.scaled_dot_product_attention(a, a, a), 2 * 2 * 3 * 3 * 4),
        (lambda a, b: a.sum() * b, 0),
    ],
)
def test_products_by_hand(made: Callable[[Tensor, Tensor], Tensor], macs: int) -> None:
    class Net(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return made(a, b)

    assert from_torch.read(Net(), torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)).macs == macs


@torch.library.custom_op("edgewright_test::mix", mutates_args=())
def mix(x: Tensor) -> Tensor:
    return x @ x.T


@mix.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(len(x), len(x))


class Refused(nn.Module):
    def __init__(self, made: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU(), _Calls(made))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class _Calls(nn.Module):
    def __init__(self, made: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.made = made

    def forward(self, x: Tensor) -> Tensor:
        return self.made(x)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (mix, "edgewright_test.mix"),
        (lambda x: torch.cdist(x, x), "cdist"),
        (lambda x: torch.linalg.multi_dot([x, x.T, x]), "linalg_multi_dot"),
        (lambda x: torch.einsum("ij,jk,kl->il", x, x.T, x), "einsum"),
        (lambda x: torch.cond(x.sum() > 0, lambda a: a @ a.T, lambda a: a @ a.T, (x,)), "higher_order.cond"),
    ],
)
def test_what_nobody_can_count_is_named(made: Callable[[Tensor], Tensor], kind: str) -> None:
    network = from_torch.read(Refused(made), torch.zeros(3, 4))
    with pytest.raises(BadInput, match=rf"'inner.1' is a {kind}, whose multiply-adds cannot be counted"):
        _ = network.macs


def onnx_model(nodes: list[onnx.NodeProto], shapes: dict[str, tuple[int, ...]], **constants: np.ndarray) -> bytes:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    body = helper.make_graph(nodes, "test", inputs, [output], initializer=weights)
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(body, opset_imports=domains, ir_version=10).SerializeToString()


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_products_of_onnx_files_by_hand() -> None:
    shapes = {"a": (2, 3, 4), "b": (2, 4, 5)}
    cases = [
        ([helper.make_node("Einsum", ["a", "b"], ["y"], equation="bmk,bkn->bmn")], "linear", 120, ()),
        ([helper.make_node("MatMul", ["a", "b"], ["y"])], "linear", 120, ()),
        ([helper.make_node("MatMul", ["a", "w"], ["y"])], "linear", 2 * 3 * 4 * 6, (6, 4)),
        ([helper.make_node("Transpose", ["v"], ["t"]), helper.make_node("MatMul", ["a", "t"], ["y"])], "linear",
         2 * 3 * 4 * 6, (6, 4)),
    ]  # fmt: skip
    for nodes, layer, macs, weight in cases:
        (work,) = works(from_onnx.read(onnx_model(nodes, shapes, w=floats(4, 6), v=floats(6, 4))))
        assert work == (layer, macs, weight)


def test_integer_operators_are_counted_as_their_float_ones() -> None:
    scale, zero = np.float32(0.1), np.uint8(3)
    weight, signed = np.ones((6, 2, 3, 3), np.int8), np.int8(0)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearConv", ["q", "s", "z", "w", "s", "zw", "s", "z"], ["c"], group=2, pads=[1] * 4),
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["y"]),
    ]
    constants = {"s": np.asarray(scale), "z": np.asarray(zero), "zw": np.asarray(signed), "w": weight}
    model = onnx_model(nodes, {"x": (1, 4, 5, 7)}, **constants)
    assert works(from_onnx.read(model)) == [("dense", 35 * 6 * 2 * 9, (6, 2, 3, 3))]


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        (helper.make_node("MultiHeadAttention", ["a", "a", "a"], ["y"], "mha", domain="com.microsoft", num_heads=2),
         "MultiHeadAttention"),
        (helper.make_node("Einsum", ["a", "a", "a"], ["y"], "mha", equation="bij,bik,bil->bjkl"), "Einsum"),
    ],
)  # fmt: skip
def test_what_nobody_can_count_of_a_file_is_named(node: onnx.NodeProto, kind: str) -> None:
    model = onnx.load_model_from_string(onnx_model([node], {"a": (2, 3, 4)}))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 3, 4)))
    with pytest.raises(BadInput, match=f"'mha' is a {kind}, whose multiply-adds cannot be counted"):
        from_onnx.read_work(model)


def test_it_does_not_matter_where_a_file_keeps_its_weights() -> None:
    data = to_onnx(both())
    model = onnx.load_model_from_string(data)
    for weight in model.graph.initializer:
        model.graph.node.append(helper.make_node("Constant", [], [weight.name], value=weight))
    del model.graph.initializer[:]
    assert works(from_onnx.read(model)) == works(from_onnx.read(data))
    assert onnx_peak_bytes(model) == onnx_peak_bytes(data)
    whole = onnx.load_model_from_string(data)
    assert from_onnx.weight_bytes(model, 1, 4) == from_onnx.weight_bytes(whole, 1, 4)
    params = count_params(both())
    ints = from_onnx.weight_bytes(whole, 0, 0)
    assert from_onnx.weight_bytes(whole, 4, 4) == 4 * params + ints


def test_local_functions_are_opened() -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[1] * 4)
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    function = helper.make_function("mine", "Block", ["x", "w"], ["y"], [conv], domains[:1])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, c, 5, 7)) for name, c in (("x", 3), ("y", 4)))
    body = helper.make_graph([helper.make_node("Block", ["x", "w"], ["y"], domain="mine")], "test", [x], [y])
    body.initializer.append(onnx.numpy_helper.from_array(floats(4, 3, 3, 3), "w"))
    model = helper.make_model(body, opset_imports=domains, functions=[function], ir_version=10)
    assert from_onnx.read_work(model) == [("dense", 35 * 4 * 27)]
    assert onnx_peak_bytes(model) == 4 * 35 * 7


def test_depthwise_means_one_thing() -> None:
    assert counts.depthwise(8, 8) and not counts.depthwise(1, 1) and not counts.depthwise(4, 8)
    assert counts.convolution((16, 1, 3, 3), (16, 5, 5), 8).layer == "depthwise"  # a depth multiplier
    assert counts.convolution((4, 1, 3, 3), (4, 5, 5), 1).layer == "dense"  # one channel, which is all there is
    assert counts.convolution((12, 4, 7, 7), (12, 5, 5), 4).layer == "dense"
    assert counts.convolution((12, 4, 1), (12, 5), 4).layer == "pointwise"
    assert counts.transposed((8, 2, 3), (8, 5), 8).layer == "depthwise"
