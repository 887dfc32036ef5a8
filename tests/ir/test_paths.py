"""Facts of the paths, against every path written out."""

import math

import numpy as np
import pytest

from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.ir.paths import NAMES, path_facts


def cell() -> Graph:
    """Five paths: pool, conv3-conv1, conv3-pool, and a plain one; a branch that leads nowhere."""
    builder = GraphBuilder((4, 6, 5))
    wide = builder.conv(builder.relu(0), 4, 3)
    middle = builder.add(wide, 0)
    builder.conv(middle, 4, 5)
    ends = [builder.conv(middle, 4), builder.avg_pool(middle, 3), 0]
    total = builder.add(builder.add(ends[0], ends[1]), ends[2])
    return builder.graph(total)


# Of each path: convolutions, those over one pixel, poolings.
PATHS = np.array([(2, 1, 0), (1, 0, 0), (1, 1, 1), (0, 0, 1), (0, 0, 0)])


def test_facts_are_those_of_every_path_written_out():
    found = dict(zip(NAMES, path_facts([cell()]), strict=True))
    for column, name in enumerate(("convs", "wide_convs", "poolings")):
        counts = PATHS[:, column]
        expected = (counts.mean(), counts.min(), counts.max())
        assert (found[f"mean_{name}"], found[f"shortest_{name}"], found[f"longest_{name}"]) == pytest.approx(expected)
    assert (found["live_convs"], found["live_wide_convs"], found["live_poolings"]) == (2, 1, 1)
    clean = PATHS[PATHS[:, 2] == 0]
    assert found["log_paths"] == pytest.approx(math.log(5))
    assert found["log_clean_share"] == pytest.approx(math.log(3 / 5))
    assert found["clean_convs"] == pytest.approx(clean[:, 0].sum() / 5)


def test_blocks_add_up_and_a_broken_one_is_zeros():
    assert path_facts([cell(), cell()]) == pytest.approx(2 * path_facts([cell()]))
    builder = GraphBuilder((4, 6, 5))
    builder.zero(0)
    assert not path_facts([builder.graph()]).any()
