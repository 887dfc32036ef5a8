"""A run's trained network, back as a PyTorch module: JSON and safetensors only, so nothing is executed; its data."""

from pathlib import Path

from torch import nn

from edgewright.core.errors import BadInput
from edgewright.core.run import RunFolder
from edgewright.start.resolve import space_of
from edgewright.start.sources.run import network_of
from edgewright.task.base import Task, TaskSpec
from edgewright.task.load import load_task


def load_model(run_path: str | Path) -> nn.Module:
    """The network of a finished run in evaluation mode, from architecture.json and model.safetensors; where it was
    compressed, with what compress.json says was done to it.

    Input (N, C, r, r) float32, normalised by `task.base.normalise`; output logits (N, classes).
    Errors: BadInput for a folder that is no finished run, an altered file, and weights of another architecture.
    """
    return network_of(Path(run_path), space_of)


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
        group=plan.group,
    )
    if found.spec.digest != spec.digest:
        raise BadInput(f"{plan.task}: has changed since the network learned it")
    return Task(spec, found.train, found.val, found.test)
