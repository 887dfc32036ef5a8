"""What a compression hands over: the file, held against the network and the test images, in a folder that is a run."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from torch import nn

from edgewright.compress.base import Plan as Rewriting
from edgewright.compress.planner import write_folder
from edgewright.core.data import read_json
from edgewright.core.errors import GateFailed
from edgewright.core.files import write_bytes
from edgewright.core.result import Export, Metrics
from edgewright.core.run import RunFolder
from edgewright.export.deploy import held_out_samples
from edgewright.export.gates import compare
from edgewright.export.graph import outputs_of
from edgewright.export.meaning import Known
from edgewright.export.parity import onnx_outputs, told, torch_outputs, verify
from edgewright.job.compress.files import refusal
from edgewright.job.compress.found import File
from edgewright.job.compress.ground import CompressGround, held_out
from edgewright.job.compress.train import Learned
from edgewright.job.hand_over import hand_over
from edgewright.start.resolve import space_of


@dataclass(frozen=True)
class Made:
    """A finished network with the files that it could ship as. learned: its trainings, in order.   plan: what was done
    to the network as it came."""

    learned: Sequence[Learned]
    network: nn.Module
    plan: Rewriting
    files: Sequence[File]


@dataclass(frozen=True)
class Handed:
    """What was handed out. test_before, test_after: percent of the held-out test images, of the files."""

    file: File
    export: Export
    test_before: float
    test_after: float


def fitting(ground: CompressGround, files: Sequence[File]) -> File | None:
    """The mildest type that keeps all that was asked."""
    return next((file for file in files if refusal(ground, file) is None), None)


def ship(folder: RunFolder, ground: CompressGround, made: Made, file: File) -> Handed:
    """Check the file and write the run.

    Errors: GateFailed where a float file computes something else than its network, or the test images, which are looked
        at here for the first time, say that more was lost than allowed. Nothing is handed out then.
    """
    export = _parity(ground, made.network, file)
    decides = ground.task.spec.decides
    before, after = held_out(ground, ground.own), held_out(ground, file.path)
    own, found = before[decides].value, after[decides].value
    if own - found > ground.plan.max_drop + 1e-9:
        raise GateFailed(
            f"on the {len(ground.task.test):,} held-out test samples {own - found:.2f} points are lost ({own:.2f} to "
            f"{found:.2f} %), {ground.plan.max_drop:g} allowed, though on val it was "
            f"{ground.figure_before - file.figure:.2f}; nothing was handed out"
        )
    write_folder(folder.path, made.network, made.plan if ground.done is None else ground.done.then(made.plan))
    float_file = next((other for other in made.files if other.kind == "fp32"), None)
    if file.kind != "fp32" and float_file is not None:
        write_bytes(folder.float_onnx, float_file.path.read_bytes())
    else:
        folder.float_onnx.unlink(missing_ok=True)
    write_bytes(folder.onnx, file.path.read_bytes())
    test = {name: score.value for name, score in after.items()}
    metrics = Metrics(decides=decides, test=test, val={decides: file.figure})
    _write_run(folder, ground, file, export, metrics)
    return Handed(file, export, own, found)


def _parity(ground: CompressGround, network: nn.Module, file: File) -> Export:
    samples = held_out_samples(ground.task, ground.size)
    if file.kind == "fp32":
        return verify(network, file.path, samples, Known(ground.task.kind))
    names = [spec.name for spec in outputs_of(onnx.load(file.path))]
    expected, found = torch_outputs(network, samples), onnx_outputs(file.path, samples)
    return told(compare(names, expected, found, Known(ground.task.kind)))


def _write_run(folder: RunFolder, ground: CompressGround, file: File, export: Export, metrics: Metrics) -> None:
    space = space_of(ground.source.folder, ground.source.result, ground.task.spec)
    found = {
        "device": ground.device.identity(),
        "budget": ground.plan.budget,
        "costs": file.costs,
        "runtime_peak_bytes": None,
        "metrics": metrics,
        "export": export,
        "blocks": [],  # they are no longer those of the architecture
        "latency_check": None,
    }
    asked = {
        "budget": ground.plan.budget,
        "device": ground.plan.device or ground.source.plan.device,
        "threads": ground.threads,
    }
    architecture = space.read(read_json(ground.source.folder.architecture))
    hand_over(folder, ground.source.folder, architecture, file.latency, found=found, asked=asked)
