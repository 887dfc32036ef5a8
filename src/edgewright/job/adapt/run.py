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
from typing import Any, NamedTuple, Unpack

from pydantic import Field

from edgewright.backward.plans.contribution import measure
from edgewright.backward.plans.planner import Menu
from edgewright.backward.plans.planner import plan as make_training_plan
from edgewright.backward.plans.training_plan import TrainingBudget, TrainingPlan, applied
from edgewright.backward.plans.worth import Contributions
from edgewright.backward.resolve import rules_of
from edgewright.core.cost import Cost
from edgewright.core.data import Frozen, read_json
from edgewright.core.errors import BadInput
from edgewright.core.files import sha256
from edgewright.core.home import user_path
from edgewright.core.metric import Score
from edgewright.core.progress import say
from edgewright.core.result import FIGURE, VAL, Export, Metrics, Written
from edgewright.core.run import RunFolder
from edgewright.core.seed import derive
from edgewright.core.tensors import mapped
from edgewright.job.adapt.ground import (
    AdaptGround,
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
from edgewright.job.base import Beginning, Job, Run, Stage, perform
from edgewright.job.base import resume as go_on
from edgewright.task import group
from edgewright.task.augment.default import default_augment
from edgewright.task.base import Task, batches
from edgewright.task.load import absolute
from edgewright.train.checkpoint import model_signature, read_checkpoint, write_checkpoint
from edgewright.train.clock import Clock, StepClock, TimeClock, steps_per_epoch
from edgewright.train.loop import Running, fit, training_device
from edgewright.train.recipe import Recipe, fine_tuning
from edgewright.train.record import Trained
from edgewright.train.threads import threads_for

BEGINNING = "beginning.safetensors"  # among the checkpoints
CALIBRATION = 8  # batches that contributions are measured on
CALIBRATION_IMAGES = 32  # of each
DEFAULT_MINUTES = 10.0
SHIPPING_SECONDS = 8.0  # for export, comparison and report, set aside from the minutes allowed
LEAST_SECONDS = 5.0  # of fine-tuning, however few minutes are allowed


class BeforeAfter(Frozen):
    """The figure that decides, on test. before: of the network as it came, or, where it got a new head, with that head
    alone trained."""

    name: str = "accuracy"
    unit: str = "%"
    before: float
    after: float


class AdaptResult(Written):
    """What came out; `adapt.json` is this. plan and the sums under it: of one batch (see TrainingPlan).

    figure: on the new task.   old_task: the same on the data that the network came from, with its old head;
    `old_task_missing` says why not.
    new_head: the layer that was replaced, or None.   costs: of a run's network, as exported and measured.
    saved: file names and their SHA-256.
    """

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
    figure: BeforeAfter = Field(validation_alias=FIGURE)
    val: Score = Field(validation_alias=VAL)
    old_task: BeforeAfter | None
    old_task_missing: str | None
    tuned: Trained
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
    update["group"] = group.rooted(asked.group)
    return asked.model_copy(update=update)


def dry_run(asked: AdaptPlan) -> TrainingPlan:
    """What would learn, be stored and computed; nothing is written."""
    return decide(within_target(survey(asked)))


def run(asked: AdaptPlan, out: str | Path, began: float | None = None) -> AdaptResult:
    """Carry out what is asked in a new folder; began: `time.monotonic()` from when the minutes count, now by default.

    The folder is made when it is known that the budget can be kept.
    """
    return perform(Adapt(), asked, out, began=began)


def resume(out: str | Path, began: float | None = None) -> AdaptResult:
    """Go on with an adaptation that was cut; a finished one gives its result at once."""
    return go_on(Adapt(), out, began=began)


Work = Run[AdaptGround]


class Before(NamedTuple):
    """What the network is worth as it comes: on the new task, and on the old one, where its data is at hand. seconds:
    that looking takes."""

    figure: Score
    old: Task | str
    on_old: Score | None
    seconds: float


class Tuned(NamedTuple):
    before: Before
    tuned: Trained


def judge(run: Work, _: None) -> Before:
    """The network as it comes, before anything learns."""
    ground, began = run.ground, time.monotonic()
    figure = judged(ground, ground.task.test, ground.task.spec).score
    old = old_task(ground)
    on_old = None if isinstance(old, str) else on_old_task(ground, old)
    return Before(figure, old, on_old, time.monotonic() - began)


def tune(run: Work, before: Before) -> Tuned:
    tuned = _tuned(run, 1.2 * before.seconds + SHIPPING_SECONDS)
    if tuned.stopped:
        say(tuned.stopped)
    return Tuned(before, tuned)


def hand_out(run: Work, state: Tuned) -> AdaptResult:
    """Look at what has learned, and write its files."""
    ground, task, (before, tuned) = run.ground, run.ground.task, state
    asked, plan = ground.plan, ground.training
    after = judged(ground, task.test, task.spec)
    on_old = None
    if before.on_old is not None and not isinstance(before.old, str):
        on_old = _both(before.on_old, on_old_task(ground, before.old))
    val = judged(ground, task.val, task.spec)
    metrics = Metrics(decides=after.score.name, test=after.values, val=val.values, each=after.each)
    parity, costs = ship(run.folder, ground, metrics)
    return AdaptResult(
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
        figure=_both(before.figure, after.score),
        val=tuned.val,
        old_task=on_old,
        old_task_missing=before.old if isinstance(before.old, str) else None,
        tuned=tuned,
        export=parity,
        costs=costs,
        seconds=run.watch.spent(),
        seed=asked.seed,
        saved={path.name: sha256(path) for path in (run.folder.model, run.folder.onnx)},
    )


class Adapt(Job[AdaptPlan, AdaptGround, AdaptResult]):
    plan_file = "adapt_plan.json"
    result_file = "adapt.json"
    stages = (Stage("judge", judge), Stage("train", tune), Stage("deploy", hand_out))

    def read_plan(self, folder: RunFolder) -> AdaptPlan:
        path = folder.path / self.plan_file
        if not path.exists():
            raise BadInput(f"{folder.path}: not an adaptation's folder (it holds no {path.name})")
        return AdaptPlan.parse(read_json(path), str(path))

    def read_result(self, folder: RunFolder) -> AdaptResult:
        path = folder.path / self.result_file
        result = AdaptResult.parse(read_json(path), str(path))
        for name, digest in result.saved.items():
            saved = folder.path / name
            if not saved.exists() or sha256(saved) != digest:
                fault = "altered since it was written" if saved.exists() else "missing"
                raise BadInput(f"{saved}: {fault}; put a copy back, or adapt again into another folder")
        return result

    def survey(self, plan: AdaptPlan, start: Beginning) -> AdaptGround:
        ground = within_target(survey(plan))
        known = None if start.begun is None else start.begun.folder.checkpoints / BEGINNING
        ground.training = decide(ground) if known is None or not known.exists() else _read_beginning(known, ground)
        return ground

    def begin(self, run: Work) -> None:
        """The plan, and what a new head has learned so far: what a resumed adaptation must start from."""
        ground, path = run.ground, run.folder.checkpoints / BEGINNING
        head = {} if ground.head is None else ground.model.get_submodule(ground.head).state_dict()
        write_checkpoint(path, head, {"identity": _identity(ground), "plan": ground.training.model_dump(mode="json")})

    def report(self, run: Work, result: AdaptResult) -> None:
        from edgewright.report.parts.adaptation import write_adaptation  # plotly is slow to import

        write_adaptation(run.folder.report, result)


def _read_beginning(path: Path, ground: AdaptGround) -> TrainingPlan:
    head, meta = read_checkpoint(path, _identity(ground))
    if ground.head is not None:
        ground.model.get_submodule(ground.head).load_state_dict(head)
    return TrainingPlan.parse(meta["plan"], str(path))


def decide(ground: AdaptGround) -> TrainingPlan:
    """Teach a new head, measure contributions on the training images, and plan.

    Errors: BudgetInfeasible, at once where no measurement could help.
    """
    if ground.plan.memory_bytes is not None or ground.plan.macs is not None:
        _plan(ground, None)
    teach_head(ground)
    task = ground.task
    images = batches(
        task.train,
        task.spec,
        batch_size=min(CALIBRATION_IMAGES, max(1, len(task.train) // 2)),
        size=ground.size,
        shuffle=derive(ground.plan.seed, "contributions"),
        drop_last=True,
    )
    with training_place(ground.model) as device:
        contributions = measure(
            ground.model,
            ((_at(device, x), _at(device, y)) for x, y in itertools.islice(images, CALIBRATION)),
            task.kind.loss,
            allowed=ground.plan.methods,
        )
    return _plan(ground, contributions)


def _at(device: str, tree: Any) -> Any:
    return mapped(lambda one: one.to(device), tree)


def _plan(ground: AdaptGround, contributions: Contributions | None) -> TrainingPlan:
    asked = ground.plan
    return make_training_plan(
        ground.model,
        ground.example,
        budget=TrainingBudget(memory_bytes=asked.memory_bytes, macs=asked.macs),
        menu=Menu(contributions, asked.methods, () if ground.head is None else (ground.head,)),
        state=1 if asked.momentum else 0,
        held=ground.held if contributions is not None else ground.held[-1:],
        curve=contributions is not None,
    )


def _both(before: Score, after: Score) -> BeforeAfter:
    return BeforeAfter(name=after.name, unit=after.unit, before=before.value, after=after.value)


def rows(plan: TrainingPlan) -> tuple[dict[str, Any], ...]:
    """The plan's layers as the command prints them."""
    names = ("layer", "method", "stored_bytes", "forward_macs", "backward_macs")
    return tuple({name: getattr(row, name) for name in names} for row in plan.layers)


def _identity(ground: AdaptGround) -> dict[str, Any]:
    return {"data": ground.task.spec.digest, "network": model_signature(ground.model), "head": ground.head}


def _tuned(run: Work, reserve: float) -> Trained:
    """reserve: seconds of the time allowed that are promised elsewhere."""
    ground, plan = run.ground, run.ground.training
    asked, task = ground.plan, ground.task
    recipe = fine_tuning(plan.held, default_augment(task.spec))
    recipe = recipe.model_copy(update={"lr": asked.lr, "momentum": asked.momentum})
    with threads_for(sum(row.forward_macs for row in plan.layers)), applied(ground.model, plan):
        return fit(
            ground.model,
            task,
            recipe,
            size=ground.size,
            seed=asked.seed,
            clock=_clock(run, recipe, reserve),
            running=Running(run.folder.checkpoints / "adapt.safetensors", device=training_device(), label="Adapting"),
        )


def _clock(run: Work, recipe: Recipe, reserve: float) -> Clock:
    asked, images = run.ground.plan, len(run.ground.task.train)
    if asked.minutes is None:
        return StepClock(steps_per_epoch(images, recipe.step_samples) * (asked.epochs or 1))
    return TimeClock(max(LEAST_SECONDS, run.watch.left() - reserve), max_epochs=asked.epochs, from_now=True)
