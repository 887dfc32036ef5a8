"""A small run folder with a network that has really learned, for tests of what is done with runs; made in seconds."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from edgewright.core.cost import Budget, cost
from edgewright.core.environment import versions
from edgewright.core.files import sha256, write_text
from edgewright.core.plan import Plan
from edgewright.core.result import BlockShare, Export, Metrics, Noise, OutputDifference, Result, Search
from edgewright.core.run import RunFolder
from edgewright.core.seed import rng
from edgewright.export.onnx import export_onnx
from edgewright.ir.graph import count_macs, count_params
from edgewright.job.design.run import plan_text
from edgewright.space.resolve import make_space
from edgewright.task.load import load_task
from edgewright.train.clock import StepClock
from edgewright.train.evaluate import evaluate
from edgewright.train.loop import Running, fit
from edgewright.train.recipe import recipe_for

MACS = (1.0e5, 2.5e5)
STEPS = 160


def make_digits_run(path: Path) -> RunFolder:
    """What `edgewright design --task digits` leaves, with the first network of a seed that has MACS; no search."""
    task = load_task("digits")
    space, random = make_space("mobile", task.spec), rng(0, "made run")
    architecture = space.sample(random)
    while not MACS[0] < count_macs(space.graph(architecture)) < MACS[1]:
        architecture = space.sample(random)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = space.build(architecture)
    size = space.resolution(architecture)
    recipe = recipe_for(task.spec, 8)
    fit(model, task, recipe, size=size, seed=0, clock=StepClock(STEPS), running=Running(threads=1))
    run, graph = RunFolder(path), space.graph(architecture)
    path.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, run.model)
    metadata = {"architecture": architecture.model_dump_json(), "task": task.spec.model_dump_json()}
    export_onnx(model, graph.input_shape, run.onnx, metadata)
    write_text(run.architecture, architecture.to_json())
    test, val = (evaluate(model, part, task.spec, size) for part in (task.test, task.val))
    result = Result(
        task=task.spec.model_dump(mode="json"),
        device={"name": "cpu", "cpu": "made up"},
        budget=Budget(macs=3e5),
        architecture=architecture.model_dump(mode="json"),
        key=architecture.key(),
        costs={"macs": cost("macs", count_macs(graph), "analytic"), "latency": cost("latency", 0.1, "measured")},
        metrics=Metrics(decides=task.spec.decides, test=test.values, val=val.values, each=test.each),
        export=Export(
            outputs=(OutputDifference(name="logits", max_relative_difference=0.0, max_abs_difference=0.0),),
            same=100.0,
            samples=10,
        ),
        search=Search(evaluated=1, proxy="capacity", strategy="random", seconds=1.0, networks_per_second=1.0),
        finalists=[],
        latency_check=None,
        latency_noise=Noise(runs=200, reference_ms=0.1, reference_drift=0.0, noisy=False),
        blocks=[
            BlockShare(
                name=name,
                latency_ms=0.01,
                macs=count_macs(block),
                params=count_params(block),
                output_shape=block.output_shape,
            )
            for name, block in space.blocks(architecture)
        ],
        seconds={},
        seed=0,
        versions=versions(),
        files={file.name: sha256(file) for file in (run.onnx, run.model, run.architecture)},
    )
    write_text(run.result, result.to_json())
    write_text(run.plan, plan_text(Plan(task="digits", budget=Budget(macs=3e5), candidates=1, epochs=1)))
    return run
