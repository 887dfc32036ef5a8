"""Liveness against a brute-force count, by hand, and against what ONNX Runtime's allocator held."""

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.core.errors import BadInput
from edgewright.device.here.cpu import Cpu
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.ir.liveness import Step, graph_peak_bytes, onnx_peak_bytes, peak_bytes
from edgewright.ir.to_onnx import to_onnx


@st.composite
def dags(draw: st.DrawFn) -> tuple[dict[int, int], list[Step]]:
    count = draw(st.integers(1, 12))
    sizes = {index: draw(st.sampled_from([4, 8, 12, 100])) for index in range(count + 1)}
    steps = []
    for index in range(1, count + 1):
        inputs = tuple(draw(st.lists(st.integers(0, index - 1), min_size=1, max_size=3)))
        over = inputs if draw(st.booleans()) else ()
        steps.append(Step("elementwise" if over else "other", inputs, (index,), over))
    return sizes, steps


def brute_force(sizes: dict[int, int], steps: list[Step], output: int) -> int:
    """Ask of every tensor at every step whether it is needed, from the definition."""
    peak = sizes[0]
    for now, step in enumerate(steps):
        total = 0
        for tensor, size in sizes.items():
            born = tensor == 0 or tensor <= now + 1
            needed = tensor == output or tensor == now + 1 or any(tensor in later.inputs for later in steps[now:])
            if born and needed:
                total += size
        made = step.outputs[0]
        replaced = [
            name
            for name in set(step.over)
            if name != 0
            and name != output
            and sizes[name] == sizes[made]
            and not any(name in later.inputs for later in steps[now + 1 :])
        ]
        peak = max(peak, total - (sizes[made] if replaced else 0))
    return peak


@given(dags())
def test_equals_brute_force(case: tuple[dict[int, int], list[Step]]) -> None:
    sizes, steps = case
    assert peak_bytes(sizes, steps, (0,), (len(steps),)) == brute_force(sizes, steps, len(steps))


def residual(width: int, hidden: int, side: int, blocks: int, kernel: int = 3) -> Graph:
    builder = GraphBuilder((3, side, side))
    x = builder.relu(builder.conv(0, width, 3, 2))
    for _ in range(blocks):
        y = builder.relu(builder.conv(x, hidden))
        y = builder.relu(builder.conv(y, hidden, kernel, 1, hidden))
        x = builder.add(builder.conv(y, width), x)
    builder.linear(builder.flatten(builder.global_pool(x)), 10)
    return builder.graph()


def test_inverted_residual_by_hand() -> None:
    # At the depthwise convolution the block's input and two hidden tensors are alive: (16 + 2 * 64) * 8 * 8 floats.
    assert graph_peak_bytes(residual(16, 64, 16, 1)) == 4 * (16 + 2 * 64) * 8 * 8


def test_fused_add_and_activation_need_no_buffer() -> None:
    builder = GraphBuilder((4, 6, 5))
    x = builder.relu(builder.conv(0, 10))
    builder.relu(builder.add(builder.conv(builder.conv(x, 2), 10), x))
    # At the last convolution: its input of 2 channels and the skipped tensor, which the sum is written over.
    assert graph_peak_bytes(builder.graph()) == 4 * 30 * max(4 + 10, 10 + 2)


def test_a_convolution_never_writes_over_its_own_input() -> None:
    builder = GraphBuilder((4, 6, 5))
    x = builder.relu(builder.conv(0, 10))
    builder.add(builder.conv(x, 10, 3), x)
    assert graph_peak_bytes(builder.graph()) == 4 * 30 * 20


def test_onnx_front_agrees_with_graph_front() -> None:
    for graph in (residual(16, 64, 32, 2), residual(8, 24, 17, 3, 5)):
        data = to_onnx(graph)
        assert onnx_peak_bytes(data) == onnx_peak_bytes(onnx.load_model_from_string(data)) == graph_peak_bytes(graph)


def fork() -> Graph:
    """Two inputs into one sum, which is one output; what it was made of is another."""
    builder = GraphBuilder((4, 6, 5), (2, 6, 5))
    x = builder.conv(0, 10, 3)
    return builder.graph(builder.add(builder.conv(1, 10), x), x)


def test_several_inputs_and_outputs_by_hand() -> None:
    # At the second convolution, which takes the sum in: its input, the first result, which is kept, and the sum.
    assert graph_peak_bytes(fork()) == 4 * 30 * (2 + 10 + 10)
    # Where the first result is not given out, the sum is written over it, and both inputs and it are the most.
    builder = GraphBuilder((4, 6, 5), (2, 6, 5))
    builder.add(builder.conv(1, 10), builder.conv(0, 10, 3))
    assert graph_peak_bytes(builder.graph()) == 4 * 30 * (4 + 2 + 10)


def test_classes_are_whole_numbers_of_eight_bytes() -> None:
    builder = GraphBuilder((3, 6, 5))
    builder.argmax(builder.conv(0, 2))
    assert graph_peak_bytes(builder.graph()) == max(4 * 30 * 5, 4 * 30 * 2 + 8 * 30)
    assert graph_peak_bytes(builder.graph(), number_bytes=1) == 30 * 2 + 8 * 30


def segmenter() -> Graph:
    builder = GraphBuilder((3, 12, 10))
    x = builder.relu(builder.conv(0, 8, 3, 2))
    y = builder.relu(builder.conv(builder.max_pool(x, 3, 2), 16, 3, dilation=2))
    y = builder.add(builder.upsample(builder.conv(y, 8), like=x, linear=True), x)
    logits = builder.conv_transpose(builder.concat(y, x), 5)
    return builder.graph(logits, builder.argmax(logits))


def words() -> Graph:
    builder = GraphBuilder((9,), (9, 6))
    x = builder.add(builder.linear(builder.embedding(0, 20, 12), 6), 1)
    x = builder.matmul(builder.softmax(builder.matmul(x, builder.transpose(x)), -1), x)
    builder.conv(builder.transpose(x), 8, 3, groups=2)
    return builder.graph()


@pytest.mark.parametrize("graph", [fork(), segmenter(), words()], ids=["fork", "segmenter", "words"])
def test_fronts_agree_on_several_inputs_and_outputs(graph: Graph) -> None:
    assert onnx_peak_bytes(to_onnx(graph)) == graph_peak_bytes(graph)


def test_unreadable_model_is_bad_input() -> None:
    with pytest.raises(BadInput, match="not a readable ONNX model"):
        onnx_peak_bytes(b"no model")


def squeezed(width: int, side: int) -> Graph:
    builder = GraphBuilder((3, side, side))
    x = builder.relu(builder.conv(0, width, 3, 1, 1))
    gate = builder.relu(builder.conv(builder.global_pool(x), 8))
    x = builder.mul(x, builder.hardsigmoid(builder.conv(gate, width)))
    builder.conv(x, 16)
    return builder.graph()


def test_the_plan_is_no_more_than_the_runtime_holds_with_squeeze_excite() -> None:
    graph = squeezed(48, 40)
    held = Cpu().profile(to_onnx(graph), seconds=0, runs=1).held_bytes()
    if held is None:
        pytest.skip("this runtime does not report its allocator")
    assert 0.99 * graph_peak_bytes(graph) <= held <= 2.5 * graph_peak_bytes(graph)


@pytest.mark.parametrize(
    "graph",
    [residual(16, 64, 64, 2), residual(32, 96, 96, 3), residual(16, 16, 128, 1), residual(32, 192, 48, 2, 5)],
    ids=["64px", "96px", "128px", "48px"],
)
def test_agrees_with_the_allocator_of_the_runtime(graph: Graph) -> None:
    """Channels in multiples of 16, so that no channels are padded: within 10 per cent of the bytes really held."""
    held = Cpu().profile(to_onnx(graph), seconds=0, runs=1).held_bytes()
    if held is None:
        pytest.skip("this runtime does not report its allocator")
    assert graph_peak_bytes(graph) == pytest.approx(held, rel=0.1)
