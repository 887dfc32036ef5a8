"""The main job: from a task and a budget to a network that fits, measured.

    task + device -> search -> train -> export -> report

`design` walks it; `resume` goes on with a run that was cut, at any moment, by anything.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import yaml

from edgewright.core.cost import Budget, as_fields
from edgewright.core.data import read_yaml
from edgewright.core.environment import environment
from edgewright.core.errors import BadInput
from edgewright.core.files import write_text
from edgewright.core.home import user_path
from edgewright.core.plan import DesignOptions, Plan
from edgewright.core.pool import pool
from edgewright.core.progress import say
from edgewright.core.result import Result
from edgewright.core.run import RunFolder
from edgewright.core.stopwatch import Stopwatch
from edgewright.core.study import Study
from edgewright.device.resolve import make_device
from edgewright.device.table.table import LatencyModel
from edgewright.job.design import stages, summary
from edgewright.job.design.ground import Ground, survey
from edgewright.report.parts.design import write_report
from edgewright.task.base import Task
from edgewright.task.kind import has_learned
from edgewright.task.load import absolute

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
        raise BadInput("no task given: --task digits, images:DIR or arrays:FILE.npz")
    ceilings = data.get("budget") or {}
    if isinstance(ceilings, dict):
        data["budget"] = {**ceilings, **budget} or _limits(data.get("device", "cpu"))
        if config is None and not data["budget"]:
            raise BadInput(
                "no budget given: --latency-ms, --size-mb, --peak-memory-kb, --macs or --params, one at least"
            )
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
    plan = plan.model_copy(update=update)
    if plan.minutes is None and not (plan.candidates and plan.epochs):
        return plan.model_copy(update={"minutes": DEFAULT_MINUTES})
    return plan


def plan_text(plan: Plan) -> str:
    return yaml.safe_dump(plan.model_dump(mode="json", exclude_none=True, by_alias=True), sort_keys=False)


def run(plan: Plan, out: Path, dataset: Any = None, began: float | None = None) -> Result:
    """Carry out a plan in a new run folder. began: `time.monotonic()` from when the minutes count, now by default."""
    began = time.monotonic() if began is None else began
    folder = RunFolder(out)
    folder.check_new()
    ground = survey(plan, dataset)
    with folder.locked():
        folder.check_new()  # again: another run may have begun here meanwhile
        write_text(folder.env, json.dumps(environment(), indent=2) + "\n")
        write_text(folder.plan, plan_text(plan))
        return _walk(folder, ground, time.monotonic() - began)


def resume(out: str | Path, dataset: Any = None, began: float | None = None) -> Result:
    """Go on with a run that was cut; a finished one gives its result at once. began: as of `run`."""
    began = time.monotonic() if began is None else began
    folder = RunFolder(Path(out))
    plan = folder.read_plan()
    if folder.result.exists() and folder.report.exists():
        for path in (folder.onnx, folder.model, folder.architecture):
            folder.check_file(path)
        return folder.read_result()
    with folder.locked():
        with Study(folder.study) as study:
            digest, latency = study.read_note("task_digest"), study.read_note("latency_model")
        ground = survey(plan, dataset, None if latency is None else LatencyModel.parse(latency, str(folder.study)))
        if digest not in (None, ground.task.spec.digest):
            raise BadInput(f"{plan.task}: the data changed since {out} was begun; start a new run")
        return _walk(folder, ground, time.monotonic() - began)


def _walk(folder: RunFolder, ground: Ground, before: float) -> Result:
    plan = ground.plan
    folder.sweep()
    with Study(folder.study) as study:
        watch = Stopwatch(study, None if plan.minutes is None else plan.minutes * 60)
        watch.add("prepare", before)
        study.note("task_digest", ground.task.spec.digest)
        study.note("latency_model", ground.latency.model_dump(mode="json"))
        desk = stages.Desk(folder, ground, study, watch)
        if not folder.result.exists():
            _work(desk)
        stages.tidy(folder)
        with watch.stage("report"):
            write_report(folder)
    result = folder.read_result()
    if remark := guesswork(ground.task, result):
        say(remark)
    say(f"report: {folder.report}")
    return result


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


def _work(desk: stages.Desk) -> None:
    plan, watch = desk.ground.plan, desk.watch
    seconds = desk.study.read_note("allotted") or stages.allot(watch.left())
    if plan.minutes is not None:
        desk.study.note("allotted", seconds)
    with pool(plan.workers, plan.ray) as workers:
        with watch.stage("search"):
            stages.search(desk, workers, seconds["search"])
        with watch.stage("measure"):
            finalists = stages.choose(desk, seconds["search"])
        with watch.stage("finalists"):
            ranking = stages.train_finalists(desk, workers, finalists, seconds["finalists"])
    key, model, deployed, validation = stages.train_and_deploy(desk, ranking, seconds["deploy"])
    with watch.stage("deploy"):
        stages.ship(desk, key, model, deployed)
        write_text(desk.folder.result, summary.summarise(desk, key, model, deployed, validation).to_json())
