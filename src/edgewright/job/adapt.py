"""Learning on the device: a network that has learned goes on learning on new data, inside a training-memory budget.

    network + data -> head -> contributions -> plan -> fine-tuning -> export, report

The network is a run's, or one of timm with the user's weights. Where the classes differ it gets a new head. What each
layer would bring is measured on the data; the planner chooses what learns, and how, inside the budget; then it learns.
Accuracy is told before and after, on the new task and, where its data is at hand, on the old one.
"""

import itertools
import time
from pathlib import Path
from typing import Any

from pydantic import Field
from safetensors.torch import load_file, save
from torch.nn import functional

from edgewright.backward.contribution import measure
from edgewright.backward.planner import plan as make_training_plan
from edgewright.backward.training_plan import TrainingBudget, TrainingPlan, applied
from edgewright.core.cost import Cost
from edgewright.core.data import Frozen, read_json
from edgewright.core.errors import BadInput
from edgewright.core.files import sha256, write_bytes, write_text
from edgewright.core.progress import say
from edgewright.core.result import Metrics
from edgewright.core.run import RunFolder
from edgewright.core.seed import derive
from edgewright.export.parity import Parity
from edgewright.job.adapt_ground import AdaptPlan, Ground, old_accuracy, old_task, survey, teach_head
from edgewright.job.adapt_ship import ship
from edgewright.task.augment import default_augment
from edgewright.task.base import Split, Task, batches
from edgewright.task.load import absolute
from edgewright.train.clock import Clock, StepClock, TimeClock
from edgewright.train.evaluate import evaluate
from edgewright.train.finetune import FineTuned, FineTuneRecipe, fine_tune
from edgewright.train.loop import training_device
from edgewright.train.threads import threads_for

PLAN, TRAINING_PLAN, RESULT = "adapt_plan.json", "training_plan.json", "adapt.json"
CALIBRATION = 8  # batches that contributions are measured on
CALIBRATION_IMAGES = 32  # of each
DEFAULT_MINUTES = 10.0
SHIPPING_SECONDS = 8.0  # for export, comparison and report, set aside from the minutes allowed
STEP_IMAGES = 32  # whose gradients make one step


class Accuracies(Frozen):
    """Percent on test. before: of the network as it came, or, where it got a new head, with that head alone trained."""

    before: float
    after: float


class AdaptResult(Frozen):
    """What came out; `adapt.json` is this. plan and the sums under it: of one batch (see TrainingPlan).

    old_task: accuracies on the data that the network came from, with its old head; `old_task_missing` says why not.
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
    accuracy: Accuracies
    val_accuracy: float
    old_task: Accuracies | None
    old_task_missing: str | None
    tuned: FineTuned
    export: Parity
    costs: dict[str, Cost]
    seconds: float
    seed: int
    saved: dict[str, str]


def adapt(
    source: str | Path,
    *,
    task: Any,
    out: str | Path,
    memory_mb: float | None = None,
    minutes: float | None = None,
    **options: Any,
) -> AdaptResult:
    """Adapt a network to new data inside a training-memory budget; everything lands in the folder `out`.

    Args:
        source: run folder, or "timm:NAME" (with `weights`).
        task: "images:DIR", "arrays:FILE.npz", "digits".
        memory_mb: what one batch's training step may keep, on top of running the network, MB of 1024 x 1024 bytes.
        minutes: wall-clock limit (default 10, unless `epochs` is given).
        options: any other field of `AdaptPlan`.
    Errors: BadInput, BudgetInfeasible (saying what the least is), GateFailed where the exported file differs.
    """
    data = {"source": str(source), "task": task, "minutes": minutes, **options}
    if memory_mb is not None:
        data["memory_bytes"] = int(memory_mb * 2**20)
    return run(resolved(AdaptPlan.parse(data, "adapt")), Path(out))


def resolved(asked: AdaptPlan) -> AdaptPlan:
    """With files named from the root, and the time limit filled in, unless epochs bound it."""
    source = asked.source
    if not source.startswith("timm:"):
        source = str(Path(source).expanduser().absolute())
    weights = str(Path(asked.weights).expanduser().absolute()) if asked.weights else None
    minutes = DEFAULT_MINUTES if asked.minutes is None and asked.epochs is None else asked.minutes
    update = {"source": source, "weights": weights, "task": absolute(asked.task), "minutes": minutes}
    return asked.model_copy(update=update)


def dry_run(asked: AdaptPlan) -> TrainingPlan:
    """What would learn, be stored and computed; nothing is written."""
    ground = survey(asked)
    teach_head(ground)
    return decide(ground)


def run(asked: AdaptPlan, out: Path) -> AdaptResult:
    """Carry out what is asked in a new folder."""
    folder = RunFolder(out)
    if (out / PLAN).exists():
        raise BadInput(f"{out}: holds an adaptation; go on with it: edgewright adapt --resume {out}")
    folder.check_new()
    began = time.monotonic()
    ground = survey(asked)
    with folder.locked():
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        write_text(out / PLAN, asked.to_json())
        return _walk(folder, ground, began)


def resume(out: Path) -> AdaptResult:
    """Go on with an adaptation that was cut; a finished one gives its result at once."""
    folder = RunFolder(out)
    if not (out / PLAN).exists():
        raise BadInput(f"{out}: not an adaptation's folder (it holds no {PLAN})")
    if (out / RESULT).exists() and folder.report.exists():
        return AdaptResult.parse(read_json(out / RESULT), str(out / RESULT))
    began = time.monotonic()
    ground = survey(AdaptPlan.parse(read_json(out / PLAN), str(out / PLAN)))
    with folder.locked():
        folder.sweep()
        return _walk(folder, ground, began)


def decide(ground: Ground) -> TrainingPlan:
    """Measure contributions on the training images, and plan."""
    asked, task = ground.asked, ground.task
    images = batches(
        task.train,
        task.spec,
        batch_size=min(CALIBRATION_IMAGES, max(1, len(task.train) // 2)),
        resolution=ground.resolution,
        shuffle=derive(asked.seed, "contributions"),
        drop_last=True,
    )
    contributions = measure(
        ground.model, itertools.islice(images, CALIBRATION), functional.cross_entropy, allowed=asked.methods
    )
    return make_training_plan(
        ground.model,
        ground.example,
        budget=TrainingBudget(memory_bytes=asked.memory_bytes, macs=asked.macs),
        contributions=contributions,
        allowed=asked.methods,
        always=() if ground.head is None else (ground.head,),
        state=1 if asked.momentum else 0,
        curve=True,
    )


def _walk(folder: RunFolder, ground: Ground, began: float) -> AdaptResult:
    from edgewright.report.adaptation import write_adaptation  # plotly is slow to import

    asked, task = ground.asked, ground.task
    plan = _planned(folder, ground)
    looking = time.monotonic()
    before = _accuracy(ground, task.test)
    old = old_task(ground)
    old_before = None if isinstance(old, str) else old_accuracy(ground, old)
    reserve = 1.2 * (time.monotonic() - looking) + SHIPPING_SECONDS
    tuned = _tune(folder, ground, plan, time.monotonic() - began + reserve)
    if tuned.stopped:
        say(tuned.stopped)
    after = _accuracy(ground, task.test)
    metrics = Metrics(test_accuracy=after, val_accuracy=tuned.val_accuracy)
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
        accuracy=Accuracies(before=before, after=after),
        val_accuracy=tuned.val_accuracy,
        old_task=None if old_before is None else Accuracies(before=old_before, after=old_accuracy(ground, old)),
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


def rows(plan: TrainingPlan) -> tuple[dict[str, Any], ...]:
    """The plan's layers as the command prints them."""
    names = ("layer", "method", "stored_bytes", "forward_macs", "backward_macs")
    return tuple({name: getattr(row, name) for name in names} for row in plan.layers)


def _planned(folder: RunFolder, ground: Ground) -> TrainingPlan:
    """The head's first lesson and the plan: done now, or as an earlier process left them."""
    lesson, path = folder.checkpoints / "head.safetensors", folder.path / TRAINING_PLAN
    if ground.head is not None:
        head = ground.model.get_submodule(ground.head)
        if lesson.exists():
            head.load_state_dict(load_file(lesson))
        else:
            teach_head(ground)
            write_bytes(lesson, save({name: value.contiguous() for name, value in head.state_dict().items()}))
    if path.exists():
        return TrainingPlan.parse(read_json(path), str(path))
    plan = decide(ground)
    write_text(path, plan.to_json())
    return plan


def _tune(folder: RunFolder, ground: Ground, plan: TrainingPlan, gone: float) -> FineTuned:
    """gone: seconds of the time allowed that are spent or promised elsewhere."""
    asked, task = ground.asked, ground.task
    recipe = FineTuneRecipe(
        lr=asked.lr,
        momentum=asked.momentum,
        batch_size=asked.batch,
        accumulate=max(1, STEP_IMAGES // asked.batch),
        augment=default_augment(task.spec),
    )
    with threads_for(sum(row.forward_macs for row in plan.layers)), applied(ground.model, plan):
        return fine_tune(
            ground.model,
            task,
            recipe,
            resolution=ground.resolution,
            seed=asked.seed,
            clock=_clock(asked, task, recipe, gone),
            checkpoint=folder.checkpoints / "adapt.safetensors",
            device=training_device(),
        )


def _clock(asked: AdaptPlan, task: Task, recipe: FineTuneRecipe, gone: float) -> Clock:
    if asked.minutes is None:
        steps = max(1, len(task.train) // (recipe.batch_size * recipe.accumulate))
        return StepClock(steps * (asked.epochs or 1))
    return TimeClock(max(5.0, 60 * asked.minutes - gone), max_epochs=asked.epochs, from_now=True)


def _accuracy(ground: Ground, split: Split) -> float:
    return evaluate(ground.model, split, ground.task.spec, ground.resolution).accuracy
