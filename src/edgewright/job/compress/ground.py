"""What a compression stands on: a run's network and data, the device, the ceilings, and what the network costs as it
is."""

import math
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import onnx
import torch
from torch import Tensor, nn

from edgewright.compress.base import Plan as Rewriting
from edgewright.compress.planner import read_plan
from edgewright.core.cost import Budget, Cost
from edgewright.core.data import read_json
from edgewright.core.errors import BadInput
from edgewright.core.files import sha256
from edgewright.core.metric import Metric, Score
from edgewright.core.plan import Plan
from edgewright.core.result import Result
from edgewright.core.run import RunFolder
from edgewright.core.tensors import Size, leaves, rows, sides
from edgewright.device.base import Device
from edgewright.device.here.cpu import Cpu
from edgewright.device.here.runtime import open_session
from edgewright.device.here.runtime import run as run_session
from edgewright.device.measure import Runs
from edgewright.device.resolve import make_device
from edgewright.export.choose.samples import COMPARISON, Samples, samples_of
from edgewright.export.deploy import count
from edgewright.export.load import load_model, load_run_task
from edgewright.export.running import Says, gathered, tree_of
from edgewright.export.runtimes.base import Kind
from edgewright.export.ship.provenance import weights_sha256
from edgewright.job.base import Ground
from edgewright.job.compress.found import Decided, File
from edgewright.job.compress.plan import CompressPlan
from edgewright.start.resolve import space_of
from edgewright.task.base import Task, TaskSpec, batches, normalise

LOOKING_MS = 4_000.0  # about what one pass of a file over the images it is judged by may take
CHECKED = 8  # images that exact rewrites are checked on


class Source(NamedTuple):
    """The run that is compressed."""

    folder: RunFolder
    plan: Plan
    result: Result


@dataclass
class CompressGround(Ground):
    """What a compression stands on. done: what was done to the network before, of a run that was compressed already.
    budget: what is asked, and what the device itself allows.   files: those of the network with exact rewrites alone,
    as far as they are made."""

    plan: CompressPlan
    source: Source
    model: nn.Module
    done: Rewriting | None
    task: Task
    device: Device
    budget: Budget
    scratch: Path  # for files that are made on the way
    decided: Decided = field(init=False)  # these two as soon as it is
    files: list[File] | None = field(init=False)

    @property
    def size(self) -> Size:
        return sides(self.source.result.architecture["resolution"])

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.task.spec.input.shape[0], *self.size)

    @property
    def example(self) -> Tensor:
        return torch.zeros(1, *self.shape)

    @property
    def threads(self) -> int:
        return self.plan.threads or self.source.plan.threads

    @property
    def kinds(self) -> tuple[Kind, ...]:
        quantises = "quantise" in self.plan.steps and self.device.as_is
        return ("fp32", "int8") if quantises else ("fp32",)

    @cached_property
    def metadata(self) -> dict[str, str]:
        return {"architecture": self.source.folder.architecture.read_text(), "task": self.task.spec.model_dump_json()}

    @cached_property
    def checked(self) -> Tensor:
        """A few training images, as the network takes them."""
        return normalise(self.task.train.take(slice(CHECKED)).inputs, self.task.spec, self.size)

    @property
    def own(self) -> Path:
        """The file that is compared with: the float one where the device makes its own of it, in its own type."""
        run = self.source.folder
        return run.float_onnx if not self.device.as_is and run.float_onnx.exists() else run.onnx

    @cached_property
    def counts(self) -> tuple[int, int]:
        """Multiply-adds and parameters of the network as it is."""
        return count(self.model, self.example)

    @cached_property
    def origin(self) -> dict[str, str]:
        """What a file that is made from the run says of where it comes from."""
        weights = weights_sha256(onnx.load(self.own))
        return {"source": self.own.name, "source_sha256": sha256(self.own), "source_weights_sha256": weights}

    @cached_property
    def own_ms(self) -> float:
        """Milliseconds of the network as it is on this machine, where it is looked at, roughly."""
        (latency,) = Cpu(self.threads).measure([self.own], Runs(most=100, fewest=2, seconds=0.5))
        return latency.quiet_ms

    @cached_property
    def samples(self) -> Samples:
        """What calibrates int8, and the val images by which everything is chosen."""
        most = max(COMPARISON, int(LOOKING_MS / self.own_ms))
        return samples_of(self.task, (1, *self.shape), self.plan.seed, most)

    @property
    def metric(self) -> Metric:
        """The one that decides."""
        return self.task.kind.metric(self.task.spec.decides)

    def figure(self, call: Says) -> float:
        """The figure of what `call` says of the val samples, one at a time."""
        outputs = tree_of(self.names, gathered(map(call, self.samples.comparison)))
        return self.metric.value(self.metric.add(self.metric.start(), outputs, self.samples.targets))

    @property
    def names(self) -> list[str]:
        """Of the outputs."""
        return [spec.name for spec in self.task.spec.signature.outputs]

    @cached_property
    def figure_before(self) -> float:
        return self.figure(session_call(self.own))

    @property
    def floor(self) -> float:
        """What the figure on val must be at least."""
        return self.figure_before - self.plan.max_drop


def session_call(path: Path) -> Says:
    """An ONNX file as a function of one sample."""
    return partial(run_session, open_session(path))


def held_out(ground: CompressGround, path: Path) -> dict[str, Score]:
    """All figures of a file on the held-out test samples, one at a time as it will be used."""
    call, kind = session_call(path), ground.task.kind
    states = [metric.start() for metric in kind.metrics]
    for inputs, targets in batches(ground.task.test, ground.task.spec, batch_size=256, size=ground.size):
        arrays = [values.numpy() for values in leaves(inputs)]
        one_by_one = ([values[i : i + 1] for values in arrays] for i in range(rows(targets)))
        found = tree_of(ground.names, gathered(map(call, one_by_one)))
        states = [metric.add(state, found, targets) for metric, state in zip(kind.metrics, states, strict=True)]
    return {metric.name: metric.score(state) for metric, state in zip(kind.metrics, states, strict=True)}


def survey(asked: CompressPlan, scratch: Path) -> CompressGround:
    """The run's network and data, and where it must run; scratch: of `CompressGround`.

    Errors: BadInput for a folder that is no finished run, an altered file, data that are gone or have changed, and a
        ceiling that the device knows nothing of.
    """
    run = RunFolder(Path(asked.source))
    result, plan = run.read_result(), run.read_plan()
    device = make_device(asked.device or plan.device, asked.threads or plan.threads)
    device.check(asked.budget.ceilings())
    for file in (run.onnx, run.float_onnx):
        if file.exists() or file == run.onnx:
            run.check_file(file)
    model = load_model(run.path)
    done = read_plan(read_json(run.rewrites), str(run.rewrites)) if run.rewrites.exists() else None
    _check_ends(run, TaskSpec.parse(result.task, str(run.result)))
    task, budget = load_run_task(run), asked.budget.within(device.ceilings())
    _check_operators(run, result, plan, device)
    return CompressGround(asked, Source(run, plan, result), model, done, task, device, budget, scratch)


def _check_ends(run: RunFolder, spec: TaskSpec) -> None:
    ends = (*spec.signature.inputs, *spec.signature.outputs)
    if len(ends) > 2:
        told = ", ".join(one.name for one in ends)
        raise BadInput(
            f"{run.path}: the network has {told}: with more than one input and one output it cannot be compressed so "
            f"far; `edgewright export {run.path} --choose` makes files of other types of it"
        )


def _check_operators(run: RunFolder, result: Result, plan: Plan, device: Device) -> None:
    space = space_of(run, result, TaskSpec.parse(result.task, str(run.result)))
    refused = sorted(set(device.refused(space.graph(space.read(result.architecture)))))
    if refused:
        raise BadInput(f"{run.path}: the network has operators that {device.name} cannot run: {', '.join(refused)}")


def excess(budget: Budget, costs: dict[str, Cost]) -> float:
    """The largest share of a ceiling that is used; above 1 one is broken."""
    return max(budget.share_used(costs).values(), default=math.inf)
