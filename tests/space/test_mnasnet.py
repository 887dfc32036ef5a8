"""The MnasNet space of Accel-NASBench: parameters as published, multiply-adds within the published convention."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from edgewright.core.errors import BadInput
from edgewright.ir.graph import Graph, count_macs
from edgewright.space.spaces.mnasnet import MnasNetSpace
from edgewright.space.table import read_table

SPACE = MnasNetSpace.for_images(3, 1000, 224)


def by_table(graph: Graph) -> int:
    """Multiply-adds as the table counts them: two more a value that a norm, an activation or a sum over the image
    writes, one a value that squeeze-excite takes the mean of and that an activation inside it writes; and a rest that
    is the same for all networks, a norm's and an activation's worth of the stem and the classifier's biases."""
    total = count_macs(graph) + 2 * 32 * 112 * 112 + 1000
    last = max(op.output for op in graph.ops if op.kind == "global_pool")
    for op in graph.ops:
        size, whole = int(np.prod(graph.shapes[op.output])), len(graph.shapes[op.output]) == 3
        image = whole and graph.shapes[op.output][1] > 1
        if op.kind in ("conv", "swish", "add") and image:
            total += 2 * size
        elif op.kind in ("swish", "sigmoid") and whole:
            total += size
        elif op.kind == "global_pool" and op.output != last:
            total += int(np.prod(graph.shapes[op.inputs[0]]))
    return total


def test_costs_are_the_published_ones(shared_data):
    path = shared_data / "nas" / "accel_nasbench" / "accel_nasbench.npz"
    with np.load(path) as file:
        arch, params, macs = file["arch"], file["params"], file["macs"]
    plain = []
    for place in range(0, len(arch), 11):
        architecture = SPACE.from_row(arch[place].tolist())
        assert SPACE.params(architecture) / 1e6 == pytest.approx(params[place], rel=1e-6)
        graph = SPACE.graph(architecture)
        assert by_table(graph) / 1e6 == pytest.approx(macs[place], rel=1e-5)
        plain.append((count_macs(graph) / 1e6, macs[place]))
    ours, theirs = np.array(plain).T
    assert (ours / theirs).min() > 0.855 and (ours / theirs).max() < 0.965
    assert spearmanr(ours, theirs).statistic > 0.997  # pyright: ignore[reportAttributeAccessIssue]
    table = read_table(f"{path}:val_top1", SPACE)
    assert len(table) == len(np.unique(arch, axis=0)) == 5125
    row = int(table.indices[7])
    same = (arch == np.array(_row(SPACE.at(row)))).all(axis=1)
    with np.load(path) as file:
        assert table.values[7] == pytest.approx(file["val_top1"][same].mean())


def _row(architecture) -> list[int]:
    return [v for s in architecture.stages for v in (s.expansion, s.kernel, s.layers, int(s.squeeze))]


def test_faults_are_named():
    row = _row(SPACE.smallest())
    for place, value, word in (
        (0, 5, "expansion of stage 1 is 5"),
        (10, 4, "layers of stage 3 is 4, not one of 1, 2, 3"),
    ):
        wrong = [*row[:place], value, *row[place + 1 :]]
        with pytest.raises(BadInput, match=word):
            SPACE.from_row(wrong)
    with pytest.raises(BadInput, match="28 integers, not 27"):
        SPACE.from_row(row[:-1])
    data = json.loads(SPACE.smallest().to_json())
    data["stages"][0]["layers"] = 4
    with pytest.raises(BadInput, match="layers of stage 1 is 4"):
        SPACE.read(data)
