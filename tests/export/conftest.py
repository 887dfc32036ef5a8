"""A finished run folder, made by hand: a small network with random weights, exported, with every file in its place."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from edgewright.core.cost import Budget, cost
from edgewright.core.environment import versions
from edgewright.core.files import sha256, write_text
from edgewright.core.plan import Plan
from edgewright.core.result import Export, Metrics, Noise, OutputDifference, Result, Search
from edgewright.core.run import RunFolder
from edgewright.core.seed import rng
from edgewright.device.resolve import make_device
from edgewright.export.onnx import export_onnx
from edgewright.space.resolve import make_space
from edgewright.task.load import load_task


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file

    run = RunFolder(tmp_path_factory.mktemp("made") / "run")
    task = load_task("digits")
    space = make_space("mobile", task.spec)
    architecture = space.sample(rng(3, "export tests"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = space.build(architecture)
    write_text(run.plan, "task: digits\nbudget: {latency_ms: 50, size_mb: 20}\n")
    write_text(run.architecture, architecture.to_json())
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, run.model)
    graph = space.graph(architecture)
    export_onnx(model, graph.input_shape, run.onnx, {})
    plan = run.read_plan()
    assert isinstance(plan, Plan)
    device = make_device(plan.device, plan.threads)
    result = Result(
        task=task.spec.model_dump(mode="json"),
        device=device.identity(),
        budget=Budget(latency_ms=50, size_mb=20),
        architecture=architecture.model_dump(mode="json"),
        key=architecture.key(),
        costs={**device.costs(graph), "latency": cost("latency", 0.4, "measured")},
        metrics=Metrics(decides="accuracy", test={"accuracy": 10}, val={"accuracy": 10}),
        export=Export(
            outputs=(OutputDifference(name="logits", max_relative_difference=0, max_abs_difference=0),),
            same=100,
            samples=1,
        ),
        search=Search(evaluated=1, proxy="zico", strategy="evolution", seconds=1, networks_per_second=1),
        finalists=[],
        latency_check=None,
        latency_noise=Noise(runs=200, reference_ms=0.1, reference_drift=0.01, noisy=False),
        blocks=[],
        seconds={"search": 1.0},
        seed=0,
        versions=versions(),
        files={path.name: sha256(path) for path in (run.onnx, run.model, run.architecture)},
    )
    write_text(run.result, result.to_json())
    return run.path


@pytest.fixture(scope="session")
def module() -> nn.Module:
    """A small network of what edge networks are made of; input (1, 3, 12, 20), five classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU(),
            nn.Conv2d(8, 16, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
        )  # fmt: skip
        with torch.no_grad():
            model[-1].weight *= 20  # type: ignore[union-attr] # classes that are told apart
    return model.eval()


@pytest.fixture(scope="session")
def network_path(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "network.onnx"
    export_onnx(module, (3, 12, 20), path)
    return path


@pytest.fixture(scope="session")
def network(network_path: Path) -> onnx.ModelProto:
    """The same as ONNX."""
    return onnx.load(network_path)
