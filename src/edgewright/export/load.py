"""A run's trained network, back as a PyTorch module: JSON and safetensors only, so nothing is executed; its data."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from edgewright.compress.planner import read_folder
from edgewright.core.data import read_json
from edgewright.core.errors import BadInput
from edgewright.core.run import RunFolder
from edgewright.core.weights import put_weights, read_weights
from edgewright.space.resolve import make_space
from edgewright.task.base import Task, TaskSpec
from edgewright.task.load import load_task


def load_model(run_path: str | Path) -> nn.Module:
    """The network of a finished run in evaluation mode, from architecture.json and model.safetensors; where it was
    compressed, with what compress.json says was done to it.

    Input (N, C, r, r) float32, normalised by `task.base.normalise`; output logits (N, classes).
    Errors: BadInput for a folder that is no finished run, an altered file, and weights of another architecture.
    """
    run = RunFolder(Path(run_path))
    result = run.read_result()
    run.check_file(run.architecture)
    run.check_file(run.model)
    space = make_space(run.read_plan().space, TaskSpec.parse(result.task, str(run.result)))
    architecture = space.read(read_json(run.architecture))
    with torch.random.fork_rng(devices=[]):
        model = space.build(architecture)
    if run.rewrites.exists():
        run.check_file(run.rewrites)
        return read_folder(run.path, model)[0]
    weights = _as_named_now(read_weights(run.model), space.renamed)
    put_weights(model, weights, f"{run.model}: not the weights of the network in {run.architecture.name}")
    return model.eval()


def _as_named_now(weights: dict[str, Tensor], renamed: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights of version 0.1 by their names of today; others as they are."""

    def now(name: str) -> str:
        before = next((start for start in renamed if name.startswith(start)), None)
        return name if before is None else renamed[before] + name.removeprefix(before)

    known = {now(name): value for name, value in weights.items()}
    return known if len(known) == len(weights) else weights


def load_run_task(run: RunFolder) -> Task:
    """The data that a run's network learned, with the normalisation that it learned them in.

    Errors: BadInput where they were handed over from Python, are gone, or have changed since.
    """
    plan, spec = run.read_plan(), TaskSpec.parse(run.read_result().task, str(run.result))
    if plan.task == "dataset":
        raise BadInput("the network's run was given its data from Python")
    metric = spec.metric or None
    found = load_task(
        plan.task,
        seed=plan.seed,
        skip_bad=plan.skip_bad,
        flip=plan.flip,
        resolution=spec.size,
        metric=metric,
    )
    if found.spec.digest != spec.digest:
        raise BadInput(f"{plan.task}: has changed since the network learned it")
    return Task(spec, found.train, found.val, found.test)
