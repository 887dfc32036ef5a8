"""Networks of finished runs: whatever `edgewright` designed, adapted or compressed before."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from edgewright.compress.base import rebuilt
from edgewright.compress.planner import read_folder, read_plan
from edgewright.core.data import read_json
from edgewright.core.files import write_bytes
from edgewright.core.result import Result
from edgewright.core.run import RunFolder
from edgewright.core.tensors import sides
from edgewright.core.weights import put_weights, read_weights
from edgewright.space.base import Space
from edgewright.start.start import Opened, Start
from edgewright.task.base import TaskSpec

SpaceOf = Callable[[RunFolder, Result, TaskSpec], Space]  # that the architecture of a run is of


def find(folder: Path) -> Start:
    """A run as a start.   Errors: BadInput for a folder that is no finished run, and an altered file."""
    run = RunFolder(folder)
    result = run.read_result()
    run.check_file(run.model)
    spec = TaskSpec.parse(result.task, str(run.result))
    taken = spec.input
    white = taken.white or 1.0  # else the units of one are not known, and its figures are of these units
    return Start(
        source=str(folder),
        weights=str(run.model.absolute()),
        sha256=result.files[run.model.name],
        licence=str((result.start or {}).get("licence", "")),  # of what it was made of itself
        trained_on=spec.name,
        channels=int(taken.shape[0] or 0),
        size=max(sides(result.architecture["resolution"])),
        mean=tuple(value / white for value in taken.mean),
        std=tuple(value / white for value in taken.std),
        pixels=bool(taken.white),
    )


def open_start(start: Start, space_of: SpaceOf) -> Opened:
    """The run's network with its weights; fresh ones where the start has no file: then its source is read."""
    if start.weights is None:
        folder = Path(start.source)
        return Opened(start, _structure(folder, space_of), lambda: _structure(folder, space_of))
    folder = Path(start.weights).parent
    return Opened(start, network_of(folder, space_of), lambda: _structure(folder, space_of))


def keep(source: RunFolder, run: RunFolder) -> None:
    """Lay into a run what its start's structure follows from, so that it stands when the start is gone."""
    for path in (source.architecture, source.rewrites, source.result, source.plan):
        if path.exists():
            run.start.mkdir(exist_ok=True)
            write_bytes(run.start / path.name, path.read_bytes())
    if source.start.is_dir():
        keep(RunFolder(source.start), RunFolder(run.start))


def network_of(folder: Path, space_of: SpaceOf) -> nn.Module:
    """The network of a finished run in evaluation mode, from architecture.json and model.safetensors; where it was
    compressed, with what compress.json says was done to it.

    Errors: BadInput for a folder that is no finished run, an altered file, and weights of another architecture.
    """
    run = RunFolder(folder)
    for file in (run.architecture, run.model):
        run.check_file(file)
    model, space = _fresh(folder, space_of)
    if run.rewrites.exists():
        run.check_file(run.rewrites)
        return read_folder(run.path, model)[0]
    weights = _as_named_now(read_weights(run.model), space.renamed)
    put_weights(model, weights, f"{run.model}: not the weights of the network in {run.architecture.name}")
    return model.eval()


def _fresh(folder: Path, space_of: SpaceOf) -> tuple[nn.Module, Space]:
    run = RunFolder(folder)
    result = run.read_result()
    space = space_of(run, result, TaskSpec.parse(result.task, str(run.result)))
    architecture = space.read(read_json(run.architecture))
    with torch.random.fork_rng(devices=[]):
        return space.build(architecture), space


def _structure(folder: Path, space_of: SpaceOf) -> nn.Module:
    """The network with fresh weights, in evaluation mode."""
    run, model = RunFolder(folder), _fresh(folder, space_of)[0].eval()
    return rebuilt(model, read_plan(read_json(run.rewrites), str(run.rewrites))) if run.rewrites.exists() else model


def _as_named_now(weights: dict[str, Tensor], renamed: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights of version 0.1 by their names of today; others as they are."""

    def now(name: str) -> str:
        before = next((start for start in renamed if name.startswith(start)), None)
        return name if before is None else renamed[before] + name.removeprefix(before)

    known = {now(name): value for name, value in weights.items()}
    return known if len(known) == len(weights) else weights
