"""NAS-Bench-Macro is the published one: order, parameters and multiply-adds of all 6,561 networks."""

import numpy as np

from edgewright.ir.graph import count_macs
from edgewright.space.spaces.nasbench_macro import NASBenchMacro
from edgewright.space.table import read_table

SPACE = NASBenchMacro.for_images(3, 10, 32)


def test_every_network_costs_what_is_published(shared_data):
    path = shared_data / "nas" / "nasbench_macro" / "nasbench_macro.npz"
    with np.load(path) as file:
        arch, params, macs = file["arch"], file["params"], file["flops"]
    assert [SPACE.encode(SPACE.at(row)) for row in range(len(SPACE))] == [tuple(row) for row in arch]
    costs: dict[object, int] = {}
    for row in range(len(SPACE)):
        blocks = [graph for _, graph in SPACE.blocks(SPACE.at(row))]
        costs.update((graph, count_macs(graph)) for graph in blocks if graph not in costs)
        assert sum(costs[graph] for graph in blocks) == macs[row]
        assert SPACE.params(SPACE.at(row)) == params[row]
    table = read_table(f"{path}:mean_acc", SPACE)
    best = int(table.indices[table.values.argmax()])
    assert "".join(map(str, SPACE.encode(SPACE.at(best)))) == "22212202" and best == 6473
    assert np.allclose(read_table(f"{path}:test_acc", SPACE).values, table.values, atol=1e-4)
