"""The main job: from a task and a budget to a network that fits, measured.

    task + device -> search -> measure -> finalists -> train -> deploy -> report

`design` begins it; `resume` goes on with a run that was cut, at any moment, by anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import yaml

from edgewright.core.cost import KINDS, Budget, as_fields, option
from edgewright.core.data import read_yaml
from edgewright.core.errors import BadInput
from edgewright.core.home import user_path
from edgewright.core.plan import DesignOptions, Plan
from edgewright.core.progress import say
from edgewright.core.result import Result
from edgewright.core.run import RunFolder
from edgewright.device.resolve import make_device
from edgewright.device.table.table import LatencyModel
from edgewright.job.base import Beginning, Job, Stage, perform
from edgewright.job.base import resume as go_on
from edgewright.job.design.choose import choose
from edgewright.job.design.finalists import train_finalists
from edgewright.job.design.ground import DesignGround, survey
from edgewright.job.design.record import Work
from edgewright.job.design.search import search
from edgewright.job.design.ship import ship
from edgewright.job.design.train import train_and_deploy
from edgewright.report.parts.design import write_report
from edgewright.start.resolve import find_starts, named, rooted
from edgewright.task import group
from edgewright.task.base import Task
from edgewright.task.kind import has_learned
from edgewright.task.load import absolute, choices

DEFAULT_MINUTES = 30.0


def design(
    task: Any,
    *,
    budget: Budget,
    out: str | Path,
    device: str = "cpu",
    minutes: float | None = None,
    **options: Unpack[DesignOptions],
) -> Result:
    """From a data set and a device budget to a network that fits, measured.

    Args:
        task: "digits", "images:DIR", "arrays:FILE.npz", or a map-style torch Dataset of (image, label).
        budget: ceilings that the exported network must keep, as measured.
        out: run folder to make; it must not hold another run.
        device: where the network must run.
        minutes: wall-clock limit for everything (default 30, unless `candidates` and `epochs` are both given).
        options: any other field of `Plan`: see `DesignOptions`, which an editor completes.

    Returns: the result, whose fields are those of result.json.
    Errors: BadInput, BudgetInfeasible, GateFailed; see edgewright.core.errors.
    """
    source = task if isinstance(task, str) else "dataset"
    data = {"task": source, "budget": budget, "device": device, "minutes": minutes, **options}
    return run(_resolved(Plan.parse(data, "design")), Path(out), None if isinstance(task, str) else task)


def make_plan(config: Path | None, given: Mapping[str, Any], budget: Mapping[str, float]) -> Plan:
    """A plan from a YAML file and the options given beside it, which win."""
    data = {} if config is None else read_yaml(config)
    where = "the options" if config is None else str(config)
    if not isinstance(data, dict):
        raise BadInput(f"{where}: a plan is a mapping of keys to values")
    data = {**data, **given}
    if "task" not in data:
        raise BadInput(f"no task given: --task {choices()}")
    ceilings = data.get("budget") or {}
    if isinstance(ceilings, dict):
        data["budget"] = {**ceilings, **budget} or _limits(data.get("device", "cpu"))
        if config is None and not data["budget"]:
            raise BadInput(f"no budget given: {', '.join(map(option, KINDS))}, one at least")
    return _resolved(Plan.parse(data, where))


def _limits(device: Any) -> dict[str, float]:
    """The device's own ceilings as fields of a budget."""
    return as_fields(make_device(str(device)).ceilings())


def _resolved(plan: Plan) -> Plan:
    """The plan with its files named from the root, the device's own ceilings, and its time limit, unless counts
    bound the run."""
    device = make_device(plan.device, plan.threads)
    named = str(user_path(plan.device).absolute()) if plan.device.endswith((".yaml", ".yml")) else plan.device
    update = {"task": absolute(plan.task), "device": named, "budget": plan.budget.within(device.ceilings())}
    if plan.weights is not None:
        update["weights"] = str(user_path(plan.weights).absolute())
    update["group"] = group.rooted(plan.group)
    if plan.start is not None:
        update["start"] = rooted(plan.start)
    plan = plan.model_copy(update=update)
    if plan.minutes is None and not (plan.candidates and plan.epochs):
        return plan.model_copy(update={"minutes": DEFAULT_MINUTES})
    return plan


def plan_text(plan: Plan) -> str:
    return yaml.safe_dump(plan.model_dump(mode="json", exclude_none=True, by_alias=True), sort_keys=False)


@dataclass(frozen=True)
class Design(Job[Plan, DesignGround, Result]):
    """dataset: what was handed over from Python in place of a source that has a name."""

    dataset: Any = None

    plan_file = "plan.yaml"
    result_file = "result.json"
    stages = (
        Stage("search", search),
        Stage("measure", choose),
        Stage("finalists", train_finalists),
        Stage("train", train_and_deploy),
        Stage("deploy", ship),
    )

    def plan_text(self, plan: Plan) -> str:
        return plan_text(plan)

    def read_plan(self, folder: RunFolder) -> Plan:
        return folder.read_plan()

    def read_result(self, folder: RunFolder) -> Result:
        for path in (folder.onnx, folder.model, folder.architecture):
            folder.check_file(path)
        return folder.read_result()

    def survey(self, plan: Plan, start: Beginning) -> DesignGround:
        known = None if start.begun is None else start.begun.study.read_note("latency_model")
        latency = None if known is None else LatencyModel.parse(known, "what this run had measured")
        ground = survey(plan, self.dataset, latency)
        digest = None if start.begun is None else start.begun.study.read_note("task_digest")
        if digest not in (None, ground.task.spec.digest):
            raise BadInput(f"{plan.task}: the data changed since this run was begun; start a new one")
        return ground

    def begin(self, run: Work) -> None:
        run.study.note("task_digest", run.ground.task.spec.digest)
        run.study.note("latency_model", run.ground.latency.model_dump(mode="json"))

    def report(self, run: Work, result: Result) -> None:
        write_report(run.folder)
        if remark := guesswork(run.ground.task, result):
            say(remark)
        say(f"report: {run.folder.report}")

    def tidy(self, folder: RunFolder) -> None:
        """Keep the chosen network's last checkpoint; other trainings and copies of the data go."""
        kept = f"final-{folder.read_result().key}.safetensors"
        for path in folder.checkpoints.glob("*"):
            if path.name != kept:
                path.unlink()


def run(plan: Plan, out: str | Path, dataset: Any = None, began: float | None = None) -> Result:
    """Carry out a plan in a new run folder. began: `time.monotonic()` from when the minutes count, now by default."""
    return perform(Design(dataset), _with_what_is_at_hand(plan, Path(out)), out, began=began)


def _with_what_is_at_hand(plan: Plan, out: Path) -> Plan:
    """The plan with "auto", and folders of several, replaced by the starts that there are: a resumed run has the
    same."""
    if plan.start is None or plan.weights is not None:
        return plan
    found = find_starts(plan.start, download=plan.download, beside=out.absolute().parent)
    if not found:
        say("no start is at hand here: neither a finished run beside this one nor a network in the hub's cache")
    return plan.model_copy(update={"start": ",".join(map(named, found)) or None})


def resume(out: str | Path, dataset: Any = None, began: float | None = None) -> Result:
    """Go on with a run that was cut; a finished one gives its result at once. began: as of `run`."""
    return go_on(Design(dataset), out, began=began)


def guesswork(task: Task, result: Result) -> str | None:
    """What to say of a network that keeps its budget and has learned nothing; None of one that has."""
    guesses = task.kind.guess(task.test.targets)
    known = result.metrics.test  # of a run of version 0.1 accuracy alone
    scores = [metric.of(known[metric.name]) for metric in task.kind.metrics if metric.name in known]
    if has_learned(scores, guesses):
        return None
    told = ", ".join(
        f"{score} where a guesser has {guesses[score.name]:.1f}" for score in scores if score.name in guesses
    )
    return f"this network has learned hardly more than a guess: {told}; give it more time, and look at the targets"
