"""The ONNX file of a graph computes what torch computes with the same weights."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn

from edgewright.device.here.runtime import input_for, open_session, run
from edgewright.ir import from_onnx
from edgewright.ir.graph import Graph, GraphBuilder, chain, count_params, joined, whole_numbers
from edgewright.ir.network import from_graph
from edgewright.ir.op import Op, pads
from edgewright.ir.sizes import each
from edgewright.ir.to_onnx import to_onnx


def every_op() -> Graph:
    """What networks that classify images are made of: strides, groups, squeeze-excite and odd, non-square sides."""
    builder = GraphBuilder((3, 13, 10))
    x = builder.relu(builder.conv(0, 12, 3, 2))
    y = builder.relu(builder.conv(x, 24))
    y = builder.relu(builder.conv(y, 24, 5, 1, 24))
    gate = builder.relu(builder.conv(builder.global_pool(y), 8))
    y = builder.mul(y, builder.hardsigmoid(builder.conv(gate, 24)))
    x = builder.add(builder.conv(y, 12), x)
    x = builder.conv(builder.concat(builder.take(x, 7), y, builder.take(y, 1)), 20, 7, 2, 4)
    y = builder.swish(builder.norm(builder.avg_pool(builder.avg_pool(x, 3), 2, 2)))
    x = builder.add(builder.conv(y, 20, 1, bias=False), builder.mul(builder.zero(y), builder.sigmoid(y)))
    builder.linear(builder.flatten(builder.global_pool(x)), 5)
    return builder.graph()


def segmenter() -> Graph:
    """Two levels of a stem, a head that reads both and the image, class maps and their argmax: two outputs."""
    builder = GraphBuilder((3, 11, 14))
    builder.relu(builder.conv(0, 8, (3, 5), (2, 1), dilation=(1, 2)))
    first = builder.graph()
    builder = GraphBuilder(first.output_shape)
    x = builder.max_pool(builder.conv(0, 12, 3, groups=4, dilation=2), 3, 2)
    builder.conv(builder.max_pool(x, (2, 3), (1, 2)), 12, (1, 3), padding=(0, 2))
    second = builder.graph()
    builder = GraphBuilder(second.output_shape, first.output_shape, (3, 11, 14))
    x = builder.add(builder.upsample(builder.conv(0, 8), like=1, linear=True), 1)
    x = builder.conv_transpose(builder.upsample(x, 2), 6, (3, 2), (1, 2), groups=2)
    x = builder.concat(builder.upsample(x, like=2), builder.avg_pool(2, 3, padding=1))
    logits = builder.conv(x, 5)
    head = builder.graph(builder.softmax(logits, 0), builder.argmax(logits))
    return joined([first, second], head, (1, 0, -1))


def reader() -> Graph:
    """Words into tokens; attention of two heads, recurrences, and 1-d convolutions over them."""
    builder = GraphBuilder((9,))
    tokens = builder.layer_norm(builder.embedding(0, 17, 12))
    q, k, v = (builder.transpose(builder.reshape(builder.linear(tokens, 12), (9, 2, 6)), (1, 0, 2)) for _ in range(3))
    weights = builder.softmax(builder.matmul(q, builder.transpose(k, (0, 2, 1))), -1)
    mixed = builder.reshape(builder.transpose(builder.matmul(weights, v), (1, 0, 2)), (9, 12))
    tokens = builder.add(tokens, builder.linear(mixed, 12, bias=False))
    x = builder.transpose(builder.gru(builder.lstm(tokens, 10), 8))
    x = builder.relu(builder.norm(builder.conv(x, 16, 5, 2, groups=4)))
    x = builder.conv_transpose(builder.avg_pool(builder.conv(x, 16, 3, 1, 16), 2, 2), 6, 5, 3)
    x = builder.upsample(builder.max_pool(x, 3, 2), 2, linear=True)
    builder.linear(builder.flatten(builder.global_pool(x)), 4)
    return builder.graph()


def by_torch(graph: Graph, model: onnx.ModelProto, arrays: list[np.ndarray]) -> list[np.ndarray]:
    weights = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in model.graph.initializer}
    tensors = dict(zip(graph.inputs, map(torch.from_numpy, arrays), strict=True))
    for op in graph.ops:
        values = [tensors[name] for name in op.inputs]
        w, b = weights.get(f"w{op.output}"), weights.get(f"b{op.output}")
        tensors[op.output] = TORCH[op.kind](graph, op, values, w, b, weights.get(f"r{op.output}"))
        assert tuple(tensors[op.output].shape[1:]) == graph.shapes[op.output], op
    return [tensors[name].numpy() for name in graph.outputs]


def _padded(graph: Graph, op: Op, x: Tensor, value: float) -> Tensor:
    around = pads(op, graph.shapes[op.inputs[0]])
    return F.pad(x, [side for pair in reversed(around) for side in pair], value=value)


def _conv(graph, op, values, w, b, _):
    x, axes = _padded(graph, op, values[0], 0.0), values[0].dim() - 2
    convolve = {1: F.conv1d, 2: F.conv2d}[axes]
    return convolve(x, w, b, each(op.stride, axes), 0, each(op.dilation, axes), op.groups)


def _transposed(graph, op, values, w, b, _):
    """By the definition of it in torch, cropped by hand to the middle of what it gives."""
    axes = values[0].dim() - 2
    kernel, stride, _ = op.windows(axes)
    convolve = {1: F.conv_transpose1d, 2: F.conv_transpose2d}[axes]
    whole = convolve(values[0], w, None, stride, groups=op.groups)
    wide = F.pad(whole, [side for k, s in reversed(list(zip(kernel, stride, strict=True))) for side in (0, s)])
    for axis, (k, s) in enumerate(zip(kernel, stride, strict=True), 2):
        wide = wide.narrow(axis, max(0, -((s - k) // 2)), values[0].shape[axis] * s)
    return wide + b.reshape(-1, *[1] * axes)


def _average(graph, op, values, *_):
    x, axes = values[0], values[0].dim() - 2
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d}[axes]
    total, count = (pool(_padded(graph, op, t, 0.0), op.kernel, op.stride) for t in (x, torch.ones_like(x)))
    return total / count


def _maximum(graph, op, values, *_):
    pool = {1: F.max_pool1d, 2: F.max_pool2d}[values[0].dim() - 2]
    return pool(_padded(graph, op, values[0], -torch.inf), op.kernel, op.stride)


def _recurrent(kind: type[nn.LSTM] | type[nn.GRU], order: tuple[int, ...]) -> Callable:
    """order: of torch's gates among ONNX's."""

    def run(graph, op, values, w, b, r):
        layer = kind(graph.shapes[op.inputs[0]][1], graph.shapes[op.output][1], batch_first=True)
        gates = [torch.cat([t[0].chunk(len(order))[gate] for gate in order]) for t in (w, r, *b.chunk(2, 1))]
        state = dict(zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), gates, strict=True))
        layer.load_state_dict(state)
        return layer(values[0])[0].detach()

    return run


def _channels(v: Tensor, t: Tensor) -> Tensor:
    return t.reshape(-1, *[1] * (v.dim() - 2))


TORCH: dict[str, Callable] = {
    "conv": _conv,
    "conv_transpose": _transposed,
    "linear": lambda g, op, v, w, b, r: F.linear(v[0], w if v[0].dim() == 2 else w.T, b),
    "matmul": lambda g, op, v, *_: v[0] @ v[1],
    "embedding": lambda g, op, v, w, *_: F.embedding(v[0], w),
    "lstm": _recurrent(nn.LSTM, (0, 2, 3, 1)),
    "gru": _recurrent(nn.GRU, (1, 0, 2)),
    "norm": lambda g, op, v, w, b, r: v[0] * _channels(v[0], w) + _channels(v[0], b),
    "layer_norm": lambda g, op, v, w, b, r: F.layer_norm(v[0], w.shape, w, b),
    "add": lambda g, op, v, *_: v[0] + v[1],
    "mul": lambda g, op, v, *_: v[0] * v[1],
    "relu": lambda g, op, v, *_: F.relu(v[0]),
    "hardsigmoid": lambda g, op, v, *_: F.hardsigmoid(v[0]),
    "sigmoid": lambda g, op, v, *_: v[0].sigmoid(),
    "swish": lambda g, op, v, *_: F.silu(v[0]),
    "softmax": lambda g, op, v, *_: v[0].softmax(op.axes[0] + 1),
    "argmax": lambda g, op, v, *_: v[0].argmax(op.axes[0] + 1),
    "avg_pool": _average,
    "max_pool": _maximum,
    "global_pool": lambda g, op, v, *_: v[0].mean(tuple(range(2, v[0].dim())), keepdim=True),
    "upsample_nearest": lambda g, op, v, *_: F.interpolate(v[0], g.shapes[op.output][1:], mode="nearest"),
    "upsample_linear": lambda g, op, v, *_: F.interpolate(
        v[0], g.shapes[op.output][1:], mode={3: "linear", 4: "bilinear"}[v[0].dim()]
    ),
    "flatten": lambda g, op, v, *_: v[0].flatten(1),
    "reshape": lambda g, op, v, *_: v[0].reshape(-1, *g.shapes[op.output]),
    "transpose": lambda g, op, v, *_: v[0].permute(0, *(axis + 1 for axis in op.axes)),
    "concat": lambda g, op, v, *_: torch.cat(v, dim=1),
    "take": lambda g, op, v, *_: v[0][:, : g.shapes[op.output][0]],
    "zero": lambda g, op, v, *_: torch.zeros_like(v[0]),
}


def compare(graph: Graph, seed: int = 3) -> None:
    data = to_onnx(graph, seed)
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert from_onnx.read(data).macs == from_graph(graph).macs
    session, rng = open_session(data), np.random.default_rng(1)
    whole = whole_numbers(graph)
    arrays = [
        rng.integers(0, 17, (1, *graph.shapes[name]))
        if name in whole
        else rng.standard_normal((1, *graph.shapes[name]), dtype=np.float32)
        for name in graph.inputs
    ]
    given = {value.name: array for value, array in zip(session.get_inputs(), arrays, strict=True)}
    found, expected = session.run(None, given), by_torch(graph, model, arrays)
    assert len(found) == len(expected) == len(graph.outputs)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(one), other, rtol=1e-3, atol=1e-4)
        assert np.abs(other).max() > 0.1


@pytest.mark.parametrize("graph", [every_op(), segmenter(), reader()], ids=["classifier", "segmenter", "reader"])
def test_equals_torch_at_odd_sizes(graph: Graph) -> None:
    compare(graph)


def test_every_kind_of_operator_is_compared() -> None:
    assert {op.kind for graph in (every_op(), segmenter(), reader()) for op in graph.ops} == set(TORCH)


@st.composite
def windowed(draw: st.DrawFn) -> Graph:
    """One operator with a window, or that makes an image larger, of any sizes."""
    axes = draw(st.integers(1, 2))
    sides = tuple(draw(st.integers(5, 9)) for _ in range(axes))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    stride = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    builder = GraphBuilder((4, *sides))
    make: list[Callable[[], int]] = [
        lambda: builder.conv(0, 6, kernel, stride, draw(st.sampled_from([1, 2])), dilation=draw(st.integers(1, 2))),
        lambda: builder.conv(0, 6, kernel, stride, padding=draw(st.integers(0, 2)), bias=False),
        lambda: builder.conv_transpose(0, 6, kernel, tuple(map(max, stride, (k // 2 for k in kernel)))),
        lambda: builder.avg_pool(0, kernel, stride),
        lambda: builder.max_pool(0, kernel, stride),
        lambda: builder.upsample(0, draw(st.integers(1, 3)), linear=draw(st.booleans())),
    ]
    draw(st.sampled_from(make))()
    return builder.graph()


@given(windowed())
@settings(max_examples=60, deadline=None)
def test_every_window_is_where_torch_has_it(graph: Graph) -> None:
    builder = GraphBuilder(graph.output_shape)  # a bias may be left out, a value may be near 0: not the output's
    builder.relu(builder.conv(0, 3))
    compare(chain([graph, builder.graph()]))


def test_file_holds_the_counted_parameters_and_is_repeatable() -> None:
    for graph in (every_op(), segmenter(), reader()):
        model = onnx.load_model_from_string(to_onnx(graph))
        weights = [w for w in model.graph.initializer if w.name[0] in "wbr" and w.data_type == onnx.TensorProto.FLOAT]
        assert sum(int(np.prod(w.dims)) for w in weights) == count_params(graph)
        assert to_onnx(graph, seed=1) == to_onnx(graph, seed=1) != to_onnx(graph, seed=2)


def test_the_output_need_not_be_the_last_operator() -> None:
    builder = GraphBuilder((3, 7, 5))
    wanted = builder.conv(0, 4, 3)
    builder.relu(builder.avg_pool(wanted, 3))
    graph = builder.graph(wanted)
    compare(graph)
    assert [node.op_type for node in onnx.load_model_from_string(to_onnx(graph)).graph.node] == ["Conv"]
    builder = GraphBuilder((3, 7, 5))
    builder.relu(0)
    session = open_session(to_onnx(builder.graph(0)))
    array = input_for(session, seed=1)
    assert np.array_equal(run(session, array), array)


@pytest.mark.parametrize("last", ["conv", "add"])
def test_a_lone_block_has_its_own_output(last: str) -> None:
    builder = GraphBuilder((8, 7, 5))
    x = builder.conv(0, 8, 3)
    if last == "add":
        builder.add(x, 0)
    session = open_session(to_onnx(builder.graph()))
    assert session.get_outputs()[0].name == "logits"
    assert run(session, input_for(session))[0].shape == (1, 8, 7, 5)
