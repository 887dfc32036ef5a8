"""A finished run folder made up by hand, with figures as a real run has them, and a class name that bites."""

import math

import pytest
import torch

from edgewright.core.cost import Budget, Cost, cost
from edgewright.core.environment import environment
from edgewright.core.files import write_text
from edgewright.core.metric import Score
from edgewright.core.result import (
    BlockShare,
    Export,
    Finalist,
    LatencyCheck,
    Metrics,
    Noise,
    OutputDifference,
    Result,
    Search,
)
from edgewright.core.run import RunFolder
from edgewright.core.seed import rng
from edgewright.core.study import Candidate, Study
from edgewright.ir.graph import count_macs, count_params
from edgewright.space.base import Space
from edgewright.space.resolve import make_space
from edgewright.task.base import InputSpec, Split, Task, TaskSpec
from edgewright.task.pictures import Pictures

CLASSES = ("daisy", "<script>alert(1)</script>", "rose & thorn", "sun\"flower'", "tulip", "a rather long class name")
NUM_TEST = 300


@pytest.fixture(scope="session")
def made_task() -> Task:
    generator = torch.Generator().manual_seed(0)
    spec = TaskSpec(
        name="flowers",
        source="images:flowers",
        inputs=(InputSpec(shape=(3, 32, 32), mean=(120.0, 115.0, 90.0), std=(60.0, 55.0, 58.0)),),
        names=CLASSES,
        flip=True,
        num_train=1000,
        num_val=100,
        num_test=NUM_TEST,
        digest="0" * 64,
    )
    labels = torch.arange(NUM_TEST) % len(CLASSES)
    base = torch.rand(len(CLASSES), 3, 4, 4, generator=generator)[labels]
    images = torch.nn.functional.interpolate(base, 32, mode="bicubic") + 0.1 * torch.rand(
        NUM_TEST, 3, 32, 32, generator=generator
    )
    test = Split((255 * images).clamp(0, 255).to(torch.uint8), labels)
    return Task(spec, test, test, test)


@pytest.fixture(scope="session")
def answers(made_task: Task) -> torch.Tensor:
    """What the network says of the test samples: nine of ten right, a mistake mostly the next class."""
    random, classes = rng(0, "report answers"), len(CLASSES)
    said = [one if random.random() < 0.93 else (one + random.choice((1, 1, 1, 3))) % classes
            for one in made_task.test.targets.tolist()]  # fmt: skip
    return torch.tensor(said)


@pytest.fixture(scope="session")
def made_run(made_task: Task, answers: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("report") / "flowers run")
    run.path.mkdir()
    write_text(
        run.plan,
        "task: images:/data/somebody/flowers\nbudget: {latency_ms: 0.3, size_mb: 4}\nproxy: zico\nminutes: 30\n",
    )
    write_text(run.env, str(environment()).replace("'", '"'))
    random = rng(0, "report tests")
    space = make_space("mobile", made_task.spec)
    candidates = _candidates(space, random)
    finalists = sorted(candidates, key=lambda c: -c.scores["zico"])[:6]
    chosen = finalists[1]
    rows = [
        {
            "key": c.key,
            "predicted_ms": c.costs["latency"].value,
            "measured_ms": c.costs["latency"].value * random.uniform(0.95, 1.06),
            "score": c.scores["zico"],
        }
        for c in finalists
    ]
    samples = sorted(
        0.265 + 0.004 * random.gauss(0, 1) ** 2 + (0.2 if random.random() < 0.004 else 0) for _ in range(900)
    )
    with Study(run.study) as study:
        study.record(*candidates)
        for epoch in range(1, 41):
            study.record_epoch(chosen.key, "final", epoch, _epoch(epoch))
        shown = made_task.kind.pictures(made_task.test.inputs, made_task.test.targets, answers, 255.0)
        study.note("pictures", Pictures(pictures=tuple(shown)).model_dump(mode="json"))
        study.note("latency_samples", samples)
        study.note("measured", rows)
        for index, candidate in enumerate(finalists):
            study.note(f"rung-0:{candidate.key}", {"val": 80.0 + index})
        study.note(f"refused:{finalists[0].key}", ["latency is 0.31 ms, 1.03 times the ceiling of 0.3 ms"])
    outputs, targets = torch.eye(len(CLASSES))[answers], made_task.test.targets
    figures = {metric.name: metric.value(metric.add(metric.start(), outputs, targets))
               for metric in made_task.kind.metrics}  # fmt: skip
    write_text(run.result, _result(made_task, space, chosen, rows, samples, figures, len(candidates)).to_json())
    return run


def _candidates(space: Space, random) -> list[Candidate]:
    found: dict[str, Candidate] = {}
    while len(found) < 250:
        architecture = space.sample(random)
        graph = space.graph(architecture)
        macs = count_macs(graph)
        latency = 0.02 + macs / 6e7 * random.uniform(0.7, 1.4) + 0.004 * len(graph.ops)
        if latency > 0.3:
            latency = random.uniform(0.08, 0.3)
        score = 60 * math.log1p(12 * latency) + random.gauss(0, 6)
        found[architecture.key()] = Candidate(
            key=architecture.key(),
            architecture=architecture.model_dump(mode="json"),
            costs={"latency": cost("latency", latency, "table"), "macs": cost("macs", macs, "analytic")},
            scores={"zico": score, "params": float(count_params(graph))},
        )
    return list(found.values())


def _epoch(epoch: int) -> dict:
    accuracy = None if epoch % 2 and epoch < 40 else 96 - 70 * math.exp(-epoch / 6)
    return {
        "epoch": epoch,
        "step": 8 * epoch,
        "progress": epoch / 40,
        "lr": 0.001,
        "train_loss": 0.5 + 1.4 * math.exp(-epoch / 8),
        "val": None if accuracy is None else Score(name="accuracy", value=accuracy).model_dump(mode="json"),
        "seconds": 2.0 * epoch,
    }


def _result(task, space, chosen, rows, samples, figures, evaluated) -> Result:
    architecture = space.read(chosen.architecture)
    blocks = [
        BlockShare(
            name=name,
            latency_ms=0.004 + count_macs(graph) / 9e7,
            macs=count_macs(graph),
            params=count_params(graph),
            output_shape=graph.output_shape,
        )
        for name, graph in space.blocks(architecture)
    ]
    graph = space.graph(architecture)
    p50, p90, p99 = (samples[int(len(samples) * share)] for share in (0.5, 0.9, 0.99))
    return Result(
        task=task.spec.model_dump(mode="json"),
        device={"name": "cpu", "cpu": "Some Processor 9", "cores": 2, "runtime": "onnxruntime", "threads": 1},
        budget=Budget(latency_ms=0.3, size_mb=4),
        architecture=chosen.architecture,
        key=chosen.key,
        costs={
            "latency": Cost(value=p50, unit="ms", how="measured", p50=p50, p90=p90, p99=p99, minimum=samples[0]),
            "size": cost("size", 1_530_000, "measured"),
            "peak_memory": cost("peak_memory", 190_000, "analytic"),
            "macs": cost("macs", count_macs(graph), "analytic"),
            "params": cost("params", count_params(graph), "analytic"),
        },
        runtime_peak_bytes=251_904,
        metrics=Metrics(decides="accuracy", test=figures, val=dict.fromkeys(figures, 95.8)),
        export=Export(
            outputs=(OutputDifference(name="logits", max_relative_difference=2e-7, max_abs_difference=3.1e-6),),
            same=100.0,
            samples=256,
        ),
        search=Search(evaluated=evaluated, proxy="zico", strategy="evolution", seconds=120.3, networks_per_second=12.4),
        finalists=[Finalist(**row, val=80.0 + index + (index % 2) * 3, rung=0) for index, row in enumerate(rows)],
        latency_check=LatencyCheck(networks=len(rows), rank_correlation=0.97, median_error=0.031),
        latency_noise=Noise(runs=len(samples), reference_ms=0.12, reference_drift=0.013, noisy=False),
        blocks=blocks,
        seconds={"prepare": 21.5, "search": 120.3, "measure": 9.1, "finalists": 330, "train": 1190, "deploy": 14.2},
        seed=0,
        versions={"python": "3.11.7", "torch": "2.13.0", "onnxruntime": "1.31.0"},
        files={},
    )
