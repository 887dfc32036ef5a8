import pytest

from edgewright.ir.graph import GraphBuilder, chain, count_macs, count_params


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
