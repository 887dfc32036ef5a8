"""Learning on the device: a network that has learned goes on learning on new data, inside a training-memory budget.

    network + data -> head -> contributions -> plan -> fine-tuning -> export, report

The network is a run's, or one of timm with the user's weights. Where the classes differ it gets a new head. What each
layer would bring is measured on the data; the planner chooses what learns, and how, inside the budget; then it learns.
Accuracy is told before and after, on the new task and, where its data is at hand, on the old one.
"""

import itertools
import math
import time
from pathlib import Path
from typing import Any, Unpack

from pydantic import Field

from edgewright.backward.plans.contribution import measure
from edgewright.backward.plans.planner import plan as make_training_plan
from edgewright.backward.plans.training_plan import TrainingBudget, TrainingPlan, applied
from edgewright.backward.plans.worth import Contributions
from edgewright.backward.resolve import rules_of
from edgewright.core.cost import Cost
from edgewright.core.data import Frozen, read_json
from edgewright.core.errors import BadInput
from edgewright.core.files import sha256, write_text
from edgewright.core.home import user_path
from edgewright.core.metric import Score
from edgewright.core.progress import say
from edgewright.core.result import Export, Metrics
from edgewright.core.run import RunFolder
from edgewright.core.seed import derive
from edgewright.core.tensors import mapped
from edgewright.job.adapt.ground import (
    Ground,
    judged,
    old_task,
    on_old_task,
    survey,
    teach_head,
    training_place,
)
from edgewright.job.adapt.plan import AdaptOptions, AdaptPlan
from edgewright.job.adapt.ship import ship
from edgewright.job.adapt.target import check_device, within_target
from edgewright.task.augment.default import default_augment
from edgewright.task.base import Task, batches
from edgewright.task.load import absolute
from edgewright.train.checkpoint import model_signature, read_checkpoint, write_checkpoint
from edgewright.train.clock import Clock, StepClock, TimeClock
from edgewright.train.finetune import FineTuned, FineTuneRecipe, fine_tune
from edgewright.train.loop import training_device
from edgewright.train.threads import threads_for

RESULT = "adapt.json"
BEGINNING = "beginning.safetensors"  # among the checkpoints
CALIBRATION = 8  # batches that contributions are measured on
CALIBRATION_IMAGES = 32  # of each
DEFAULT_MINUTES = 10.0
SHIPPING_SECONDS = 8.0  # for export, comparison and report, set aside from the minutes allowed
LEAST_SECONDS = 5.0  # of fine-tuning, however few minutes are allowed
STEP_IMAGES = 32  # whose gradients make one step


class BeforeAfter(Frozen):
    """The figure that decides, on test. before: of the network as it came, or, where it got a new head, with that head
    alone trained."""

    name: str = "accuracy"
    unit: str = "%"
    before: float
    after: float


class AdaptResult(Frozen):
    """What came out; `adapt.json` is this. plan and the sums under it: of one batch (see TrainingPlan).

    figure: on the new task.   old_task: the same on the data that the network came from, with its old head;
    `old_task_missing` says why not.
    new_head: the layer that was replaced, or None.   costs: of a run's network, as exported and measured.
    saved: file names and their SHA-256.
    """

    schema_: int = Field(default=1, alias="schema")
    source: str
    task: dict[str, Any]
    plan: tuple[dict[str, Any], ...]
    stored_bytes: int
    full_stored_bytes: int
    memory_bytes: int
    full_memory_bytes: int
    macs: int
    full_macs: int
    training: TrainingPlan
    new_head: str | None
    figure: BeforeAfter
    val: Score
    old_task: BeforeAfter | None
    old_task_missing: str | None
    tuned: FineTuned
    export: Export
    costs: dict[str, Cost]
    seconds: float
    seed: int
    saved: dict[str, str]


def adapt(
    source: str | Path,
    *,
    task: str,
    out: str | Path,
    memory_mb: float | None = None,
    minutes: float | None = None,
    **options: Unpack[AdaptOptions],
) -> AdaptResult:
    """Adapt a trained network to new data inside a training-memory budget; everything lands in the folder `out`.

        result = edgewright.adapt("runs/flowers", task="images:mine/", memory_mb=40, minutes=10, out="runs/mine")

    Args:
        source: run folder, or "timm:NAME" (with weights="FILE.safetensors").
        task: the new data: "images:DIR" (a folder per class), "arrays:FILE.npz", "digits".
        out: folder to make. Of a run's network it is a run again: `predict`, `bench`, `load_model`, `adapt` take it.
        memory_mb: what one batch's training step may keep on top of running the network, MB of 1024 x 1024 bytes.
            Default: no ceiling, or, with device="NAME", what that target's RAM leaves.
        minutes: wall-clock limit (default 10, unless `epochs` is given).
        options: any other field of `AdaptPlan`: see `AdaptOptions`, which an editor completes.
    Returns: figures before and after, the plan with its bytes and MACs, the training's history (`AdaptResult`).
    Errors: BadInput; BudgetInfeasible, saying what the least is; GateFailed where the exported file differs. After the
        first two nothing is written.
    """
    data = {"source": str(source), "task": task, "minutes": minutes, **options}
    if memory_mb is not None:
        if "memory_bytes" in options:
            raise BadInput("adapt: give memory_mb or memory_bytes, not both")
        data["memory_bytes"] = ceiling(memory_mb, 2**20, "memory_mb")
    return run(resolved(AdaptPlan.parse(data, "adapt")), Path(out))


def ceiling(value: float, unit: int, name: str) -> int:
    """A ceiling as a person gives it, in whole bytes or multiply-adds."""
    if not (value > 0 and math.isfinite(value)):
        raise BadInput(f"{name} must be a number above zero (got {value:g})")
    return int(value * unit)


def resolved(asked: AdaptPlan) -> AdaptPlan:
    """With files named from the root, and the time limit filled in, unless epochs bound it."""
    for name in asked.methods or ():
        rules_of(name)  # refuses an unknown one before anything is loaded
    check_device(asked.device)
    source = asked.source
    if not source.startswith("timm:"):
        source = str(user_path(source).absolute())
    weights = str(user_path(asked.weights).absolute()) if asked.weights else None
    minutes = DEFAULT_MINUTES if asked.minutes is None and asked.epochs is None else asked.minutes
    update = {"source": source, "weights": weights, "task": absolute(asked.task), "minutes": minutes}
    return asked.model_copy(update=update)


def dry_run(asked: AdaptPlan) -> TrainingPlan:
    """What would learn, be stored and computed; nothing is written."""
    return decide(within_target(survey(asked)))


def run(asked: AdaptPlan, out: Path, began: float | None = None) -> AdaptResult:
    """Carry out what is asked in a new folder; began: `time.monotonic()` from when the minutes count, now by default.

    The folder is made when it is known that the budget can be kept.
    """
    began = time.monotonic() if began is None else began
    folder = RunFolder(out)
    folder.check_new()
    ground = within_target(survey(asked))
    plan = decide(ground)
    with folder.locked():
        folder.check_new()  # again: another process may have begun here meanwhile
        _note_beginning(folder, ground, plan)
        write_text(folder.adaptation, ground.asked.to_json())  # what holds this can be gone on with
        return _walk(folder, ground, plan, began)


def resume(out: Path, began: float | None = None) -> AdaptResult:
    """Go on with an adaptation that was cut; a finished one gives its result at once."""
    began = time.monotonic() if began is None else began
    folder = RunFolder(Path(out))
    if not folder.adaptation.exists():
        raise BadInput(f"{out}: not an adaptation's folder (it holds no {folder.adaptation.name})")
    if (folder.path / RESULT).exists() and folder.report.exists():
        return _finished(folder)
    ground = survey(AdaptPlan.parse(read_json(folder.adaptation), str(folder.adaptation)))
    with folder.locked():
        folder.sweep()
        return _walk(folder, ground, _read_beginning(folder, ground), began)


def _finished(folder: RunFolder) -> AdaptResult:
    result = AdaptResult.parse(read_json(folder.path / RESULT), str(folder.path / RESULT))
    for name, digest in result.saved.items():
        path = folder.path / name
        if not path.exists() or sha256(path) != digest:
            fault = "altered since it was written" if path.exists() else "missing"
            raise BadInput(f"{path}: {fault}; put a copy back, or adapt again into another folder")
    return result


def decide(ground: Ground) -> TrainingPlan:
    """Teach a new head, measure contributions on the training images, and plan.

    Errors: BudgetInfeasible, at once where no measurement could help.
    """
    if ground.asked.memory_bytes is not None or ground.asked.macs is not None:
        _plan(ground, None)
    teach_head(ground)
    task = ground.task
    images = batches(
        task.train,
        task.spec,
        batch_size=min(CALIBRATION_IMAGES, max(1, len(task.train) // 2)),
        size=ground.size,
        shuffle=derive(ground.asked.seed, "contributions"),
        drop_last=True,
    )
    with training_place(ground.model) as device:
        contributions = measure(
            ground.model,
            ((_at(device, x), _at(device, y)) for x, y in itertools.islice(images, CALIBRATION)),
            task.kind.loss,
            allowed=ground.asked.methods,
        )
    return _plan(ground, contributions)


def _at(device: str, tree: Any) -> Any:
    return mapped(lambda one: one.to(device), tree)


def _plan(ground: Ground, contributions: Contributions | None) -> TrainingPlan:
    asked = ground.asked
    return make_training_plan(
        ground.model,
        ground.example,
        budget=TrainingBudget(memory_bytes=asked.memory_bytes, macs=asked.macs),
        contributions=contributions,
        allowed=asked.methods,
        always=() if ground.head is None else (ground.head,),
        state=1 if asked.momentum else 0,
        held=ground.held if contributions is not None else ground.held[-1:],
        curve=contributions is not None,
    )


def _walk(folder: RunFolder, ground: Ground, plan: TrainingPlan, began: float) -> AdaptResult:
    from edgewright.report.parts.adaptation import write_adaptation  # plotly is slow to import

    asked, task = ground.asked, ground.task
    looking = time.monotonic()
    before = judged(ground, task.test, task.spec).score
    old = old_task(ground)
    old_before = None if isinstance(old, str) else on_old_task(ground, old)
    reserve = 1.2 * (time.monotonic() - looking) + SHIPPING_SECONDS
    tuned = _tune(folder, ground, plan, time.monotonic() - began + reserve)
    if tuned.stopped:
        say(tuned.stopped)
    after = judged(ground, task.test, task.spec)
    on_old = None
    if old_before is not None and not isinstance(old, str):
        on_old = _both(old_before, on_old_task(ground, old))
    val = judged(ground, task.val, task.spec)
    metrics = Metrics(decides=after.score.name, test=after.values, val=val.values, each=after.each)
    parity, costs = ship(folder, ground, metrics)
    result = AdaptResult(
        source=asked.source if asked.source.startswith("timm:") else Path(asked.source).name,
        task=task.spec.model_dump(mode="json"),
        plan=rows(plan),
        stored_bytes=plan.stored_bytes,
        full_stored_bytes=plan.full_stored_bytes,
        memory_bytes=plan.memory_bytes,
        full_memory_bytes=plan.full_memory_bytes,
        macs=plan.macs,
        full_macs=plan.full_macs,
        training=plan,
        new_head=ground.head,
        figure=_both(before, after.score),
        val=tuned.val,
        old_task=on_old,
        old_task_missing=old if isinstance(old, str) else None,
        tuned=tuned,
        export=parity,
        costs=costs,
        seconds=time.monotonic() - began,
        seed=asked.seed,
        saved={path.name: sha256(path) for path in (folder.model, folder.onnx)},
    )
    write_text(folder.path / RESULT, result.to_json())
    write_adaptation(folder.report, result)
    return result


def _both(before: Score, after: Score) -> BeforeAfter:
    return BeforeAfter(name=after.name, unit=after.unit, before=before.value, after=after.value)


def rows(plan: TrainingPlan) -> tuple[dict[str, Any], ...]:
    """The plan's layers as the command prints them."""
    names = ("layer", "method", "stored_bytes", "forward_macs", "backward_macs")
    return tuple({name: getattr(row, name) for name in names} for row in plan.layers)


def _note_beginning(folder: RunFolder, ground: Ground, plan: TrainingPlan) -> None:
    """The plan, and what a new head has learned so far: what a resumed adaptation must start from."""
    head = {} if ground.head is None else ground.model.get_submodule(ground.head).state_dict()
    meta = {"identity": _identity(ground), "plan": plan.model_dump(mode="json")}
    write_checkpoint(folder.checkpoints / BEGINNING, head, meta)


def _read_beginning(folder: RunFolder, ground: Ground) -> TrainingPlan:
    path = folder.checkpoints / BEGINNING
    if not path.exists():
        plan = decide(ground)
        _note_beginning(folder, ground, plan)
        return plan
    head, meta = read_checkpoint(path, _identity(ground))
    if ground.head is not None:
        ground.model.get_submodule(ground.head).load_state_dict(head)
    return TrainingPlan.parse(meta["plan"], str(path))


def _identity(ground: Ground) -> dict[str, Any]:
    return {"data": ground.task.spec.digest, "network": model_signature(ground.model), "head": ground.head}


def _tune(folder: RunFolder, ground: Ground, plan: TrainingPlan, gone: float) -> FineTuned:
    """gone: seconds of the time allowed that are spent or promised elsewhere."""
    asked, task = ground.asked, ground.task
    recipe = FineTuneRecipe(
        lr=asked.lr,
        momentum=asked.momentum,
        batch_size=plan.held,
        accumulate=max(1, STEP_IMAGES // plan.held),
        augment=default_augment(task.spec),
    )
    with threads_for(sum(row.forward_macs for row in plan.layers)), applied(ground.model, plan):
        return fine_tune(
            ground.model,
            task,
            recipe,
            size=ground.size,
            seed=asked.seed,
            clock=_clock(asked, task, recipe, gone),
            checkpoint=folder.checkpoints / "adapt.safetensors",
            device=training_device(),
        )


def _clock(asked: AdaptPlan, task: Task, recipe: FineTuneRecipe, gone: float) -> Clock:
    if asked.minutes is None:
        steps = max(1, len(task.train) // (recipe.batch_size * recipe.accumulate))
        return StepClock(steps * (asked.epochs or 1))
    return TimeClock(max(LEAST_SECONDS, 60 * asked.minutes - gone), max_epochs=asked.epochs)
