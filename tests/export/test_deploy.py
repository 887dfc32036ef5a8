"""An exported file held against its network and the budget, and costed."""

import pytest
import torch
from torch import nn

from edgewright.core.cost import Budget
from edgewright.core.errors import GateFailed
from edgewright.device.here.cpu import Cpu
from edgewright.device.measure import Latency
from edgewright.export import deploy as module
from edgewright.export.deploy import count, deploy
from edgewright.export.onnx import export_onnx
from edgewright.ir.graph import Graph, GraphBuilder
from edgewright.task.load import load_task

MACS = 7 * 4 * 4 * 9 + 7 * 10  # a convolution of 3 x 3 with stride 2 over 8 x 8, and a linear layer
PARAMS = 7 * 9 + 7 + 7 * 10 + 10


@pytest.fixture(autouse=True)
def a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cpu, "measure", lambda self, files, runs: [Latency.by_law(1.25) for _ in files])


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Conv2d(1, 7, 3, 2, 1), nn.BatchNorm2d(7), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(7, 10)).eval()


def graph() -> Graph:
    builder = GraphBuilder((1, 8, 8))
    builder.linear(builder.flatten(builder.global_pool(builder.relu(builder.conv(0, 7, 3, 2)))), 10)
    return builder.graph()


def deployed(path, budget: Budget, **options):
    return deploy(network(), graph(), load_task("digits"), Cpu(), budget, path, {"note": "a test"}, **options)


def test_the_file_is_there_and_its_costs_are_its_own(tmp_path) -> None:
    found = deployed(tmp_path / "a.onnx", Budget(latency_ms=2.0, macs=MACS, params=PARAMS))
    costs = {name: cost.value for name, cost in found.costs.items()}
    assert (costs["macs"], costs["params"], costs["latency"]) == (MACS, PARAMS, 1.25)
    assert costs["size"] == found.path.stat().st_size
    assert found.broken == [] and found.parity.samples == 256 and found.parity.same == 100.0
    assert count(network(), torch.zeros(1, 1, 8, 8)) == (MACS, PARAMS)


def test_each_ceiling_that_it_breaks_is_named(tmp_path) -> None:
    found = deployed(tmp_path / "a.onnx", Budget(latency_ms=1.0, macs=MACS - 1, params=PARAMS, size_mb=1.0))
    assert [sentence.split(" is ")[0] for sentence in found.broken] == ["latency", "macs"]


def test_a_compressed_network_is_costed_by_what_was_counted(tmp_path) -> None:
    found = deployed(tmp_path / "a.onnx", Budget(macs=400), counted=(500, 60))
    assert (found.costs["macs"].value, found.costs["params"].value) == (500, 60)
    assert len(found.broken) == 1 and found.costs["size"].value == found.path.stat().st_size


def test_a_file_that_computes_something_else_is_no_deployment(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "export_onnx", lambda model, *given: export_onnx(network(seed=1), *given))
    with pytest.raises(GateFailed, match="differs from the trained network"):
        deployed(tmp_path / "a.onnx", Budget(macs=1e6))
