import pytest

from edgewright.ir.graph import (
    GraphBuilder,
    chain,
    count_macs,
    count_params,
    joined,
    needed_ops,
    op_macs,
    op_params,
)


def block(channels: int, width: int, height: int, breadth: int):
    builder = GraphBuilder((channels, height, breadth))
    x = builder.relu(builder.conv(0, width, kernel=3, stride=2))
    gate = builder.hardsigmoid(builder.conv(builder.relu(builder.conv(builder.global_pool(x), 4)), width))
    x = builder.mul(x, gate)
    builder.add(x, builder.conv(x, width, kernel=5, groups=width))
    return builder.graph()


def test_shapes_round_up_like_same_padding():
    assert block(3, 8, 7, 10).output_shape == (8, 4, 5)


def test_counts_by_hand():
    graph = block(3, 8, 7, 10)
    macs = 8 * 3 * 9 * 20 + 8 * 4 + 4 * 8 + 8 * 25 * 20
    params = (8 * 3 * 9 + 8) + (4 * 8 + 4) + (8 * 4 + 8) + (8 * 25 + 8)
    assert (count_macs(graph), count_params(graph)) == (macs, params)


def test_a_chain_costs_the_sum_and_keeps_wiring():
    first, second = block(3, 8, 9, 14), block(8, 16, 5, 7)
    whole = chain([first, second])
    assert whole.output_shape == (16, 3, 4)
    assert count_macs(whole) == count_macs(first) + count_macs(second)
    assert count_params(whole) == count_params(first) + count_params(second)
    for op in whole.ops:
        assert all(i < op.output for i in op.inputs)
    assert sorted(op.output for op in whole.ops) == list(range(1, len(whole.shapes)))


def test_blocks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="cannot follow"):
        chain([block(3, 8, 9, 14), block(9, 16, 5, 7)])


def test_equal_graphs_have_equal_signatures_and_others_not():
    assert block(3, 8, 9, 14).signature == block(3, 8, 9, 14).signature
    assert (
        len({block(*sizes).signature for sizes in [(3, 8, 9, 14), (3, 8, 14, 9), (3, 16, 9, 14), (4, 8, 9, 14)]}) == 4
    )


def test_a_text_says_what_is_not_usual_and_nothing_else():
    """Keys of latency tables on disk, from before there were more options."""
    assert block(3, 8, 7, 10).signature == (
        "3x7x10|conv0>1:8x4x5k3s2g1|relu1>2:8x4x5|global_pool2>3:8x1x1|conv3>4:4x1x1k1s1g1|relu4>5:4x1x1"
        "|conv5>6:8x1x1k1s1g1|hardsigmoid6>7:8x1x1|mul2,7>8:8x4x5|conv8>9:8x4x5k5s1g8|add8,9>10:8x4x5"
    )
    builder = GraphBuilder((4, 9, 7))
    x = builder.conv(0, 6, (3, 5), (2, 1), 2, bias=False, dilation=(1, 2), padding=(1, 3))
    builder.max_pool(x, (2, 2), 2, padding=0)
    assert builder.graph().signature == "4x9x7|conv0>1:6x5x5k3x5s2x1g2d1x2p1x3n|max_pool1>2:6x2x2k2s2g1p0"


def test_equal_operators_are_written_alike():
    def one(**options) -> str:
        builder = GraphBuilder((4, 9, 7))
        builder.conv(0, 6, **options)
        return builder.graph().signature

    assert (
        one(kernel=3) == one(kernel=(3, 3)) == one(kernel=3, padding=1) == one(kernel=3, padding=(1, 1), stride=(1, 1))
    )
    assert one(kernel=3, dilation=2) == one(kernel=3, dilation=2, padding=2) != one(kernel=3, dilation=2, padding=1)


def test_counts_of_every_layer_by_hand():
    builder = GraphBuilder((6, 11))
    x = builder.conv(0, 9, 5, 2, 3, dilation=2)  # (9, 6), each number a sum of 2 x 5
    x = builder.conv_transpose(x, 4, 3, 2, bias=False)  # (4, 12), each of 9 x 6 numbers into 4 x 3
    x = builder.transpose(x)
    x = builder.linear(x, 7)  # (12, 7)
    x = builder.lstm(builder.layer_norm(x), 5)
    x = builder.gru(x, 2)
    builder.matmul(x, builder.transpose(x))  # (12, 2) times (2, 12)
    graph = builder.graph()
    assert [graph.shapes[op.output] for op in graph.ops[:3]] == [(9, 6), (4, 12), (12, 4)]
    lstm, gru = (4 * 5 * (7 + 5), 2 * 4 * 5), (3 * 2 * (5 + 2), 2 * 3 * 2)
    macs = [9 * 6 * 10, 9 * 6 * 12, 12 * 4 * 7, 12 * lstm[0], 12 * gru[0], 12 * 12 * 2]
    assert [op_macs(graph, op) for op in graph.ops if op_macs(graph, op)] == macs
    params = [9 * 10 + 9, 9 * 12, 4 * 7 + 7, 14, sum(lstm), sum(gru)]
    assert [op_params(graph, op) for op in graph.ops if op_params(graph, op)] == params
    assert (count_macs(graph), count_params(graph)) == (sum(macs), sum(params))


def test_a_head_reads_the_levels_it_is_given():
    first, second = block(3, 8, 9, 14), block(8, 16, 5, 7)
    builder = GraphBuilder((16, 3, 4), (3, 9, 14), (8, 5, 7))
    x = builder.upsample(builder.conv(0, 8), like=2)
    y = builder.add(x, 2)
    builder.conv(1, 4)  # read by nobody
    head = builder.graph(y, 1)
    whole = joined([first, second], head, (1, -1, 0))
    assert whole.inputs == (0,) and [whole.shapes[name] for name in whole.outputs] == [(8, 5, 7), (3, 9, 14)]
    assert whole.outputs[1] == 0 and whole.ops[-2].inputs[1] == first.output
    assert count_macs(whole) == count_macs(first) + count_macs(second) + count_macs(head)
    assert len(needed_ops(whole)) == len(whole.ops) - 1
    with pytest.raises(ValueError, match=r"takes .*16, 3, 4.* cannot follow one that gives .*8, 5, 7"):
        joined([first, second], head, (0, -1, 0))
    for only in ("output", "output_shape"):
        with pytest.raises(ValueError, match="2 outputs"):
            getattr(whole, only)


def test_several_inputs_and_outputs_chain():
    builder = GraphBuilder((3, 8, 6), (1, 8, 6))
    first = builder.graph(builder.conv(0, 4, 3), builder.conv(1, 5, 3))
    builder = GraphBuilder((4, 8, 6), (5, 8, 6))
    second = builder.graph(builder.concat(0, 1))
    whole = chain([first, second])
    assert whole.inputs == (0, 1) and whole.output_shape == (9, 8, 6)
    assert whole.signature != first.signature and whole == chain([chain([first]), second])
    with pytest.raises(ValueError, match="2 inputs"):
        _ = whole.input_shape


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda b: b.conv(0, 8, 3, groups=3), "3 groups do not divide 4 channels"),
        (lambda b: b.conv(0, 8, (3, 3, 5)), "3 sizes where there are 2 axes"),
        (lambda b: b.conv(0, 8, 9, padding=0), "no place in 5x7"),
        (lambda b: b.add(0, b.conv(0, 4, 3, 2)), "cannot be added"),
        (lambda b: b.concat(0, b.conv(0, 4, 3, 2)), "different sides"),
        (lambda b: b.matmul(0, 0), "multiplied as matrices"),
        (lambda b: b.reshape(0, (4, 5, 6)), "not as many numbers"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong(GraphBuilder((4, 5, 7)))
