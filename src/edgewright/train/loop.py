"""The one training loop. Short enough to be read whole; what varies comes in as values and functions.

The law of this room: a training is a function of (weights, data, recipe, seed, clock). Every random choice comes from
the seed and the number of the epoch or the step, so nothing but weights, averages and the optimizer's state has to be
kept for a killed training to go on as if it had never stopped. The test part of the task is never read.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput, EdgewrightError
from edgewright.core.metric import Score
from edgewright.core.progress import progress as progress_bar
from edgewright.core.seed import derive
from edgewright.core.tensors import Size, ask, mapped
from edgewright.task.augment.default import moving
from edgewright.task.base import Task, batches
from edgewright.task.kind import Kind
from edgewright.train.checkpoint import (
    flatten_optimizer,
    joined,
    parted,
    read_checkpoint,
    restore_optimizer,
    training_identity,
    write_checkpoint,
)
from edgewright.train.clock import Clock, learning_rate, steps_per_epoch
from edgewright.train.ema import Ema
from edgewright.train.evaluate import evaluate
from edgewright.train.optimizer import make_optimizer
from edgewright.train.precision import Precision, Turns, bfloat16_possible, computing, prepared
from edgewright.train.recipe import Recipe
from edgewright.train.settle import settle
from edgewright.train.threads import torch_threads

Loss = Callable[[nn.Module, Any, Any], Tensor]  # network, inputs, targets: for trees of each

EVALUATIONS = 20  # at most this many in one training: with very short epochs they would take longer than the epochs
# Up to so many steps the statistics of batch norm, a running average of a running average, lag far behind the weights:
# a network that had learned its task in 30 steps would be judged, and shipped, at the level of guessing.
FEW_STEPS = 1000
SETTLING_IMAGES = 512
CHECKPOINT_SECONDS = 1.0  # the least time between two checkpoints; every epoch that takes longer is kept
STRETCH_SECONDS = 60.0  # an epoch can take hours: after so long the work so far is kept, and told, within it


class Diverged(EdgewrightError):
    """The loss, or what the network answers, is no longer a number: so it would be again with this seed and recipe."""


class EpochRecord(Frozen):
    """One epoch. progress: 0 to 1.   train_loss: mean over the epoch.   val: of the averaged weights, None where it was
    not looked at.   seconds: since the start of the training.   precision: of its last step."""

    epoch: int
    step: int
    progress: float
    lr: float
    train_loss: float
    val: Score | None
    seconds: float
    precision: Precision = "float32"


class Trained(Frozen):
    """What a training was. val: the figure that decides, of the final averaged weights.   samples_per_second: while
    learning, all overheads but evaluation and checkpoints included, of this process."""

    history: tuple[EpochRecord, ...]
    val: Score
    seconds: float
    epochs: float
    steps: int
    samples_per_second: float


def loss_of(kind: Kind, smoothing: float = 0.0) -> Loss:
    """The default: the kind's own loss of what the network gives."""

    def loss(model: nn.Module, inputs: Any, targets: Any) -> Tensor:
        return kind.loss(ask(model, inputs), targets, smoothing)

    return loss


def training_device() -> str:
    """A GPU where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fit(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    *,
    size: Size,
    seed: int,
    clock: Clock,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    device: torch.device | str = "cpu",
    threads: int | None = None,
    loss: Loss | None = None,
    precision: Precision | None = None,
    label: str = "Training",
) -> Trained:
    """Train `model` in place; it ends with the running average of its weights, in evaluation mode, on the CPU.

    The average at the end of the schedule is what is kept, not the epoch that looked best on val: val chooses between
    networks, and a maximum over epochs would flatter each of them.

    Args:
        size: height and width of the maps that the model takes, pixels.
        seed: of order, augmentation, mixing and dropout. The model's first weights are the caller's.
        clock: StepClock for a training that repeats bit by bit, TimeClock for one that ends in time.
        checkpoint: file to go on from if it is there, and to write after every epoch (at most once a second) and
            every minute of a longer one; a finished one gives back the finished training.
        on_epoch: called with each new epoch's record.   threads: of torch, during the training only; None leaves them.
        loss: (model, inputs, targets) -> scalar; default the kind's own, with the recipe's smoothing. This is where
            distillation and its kin come in.
        precision: of products. None: where the clock counts time, the quicker one here, which the first steps find
            out; where it counts steps, float32, so that the training repeats.
    Errors: Diverged when the loss or the outputs are no longer numbers; BadInput for another training's checkpoint.
    """
    if precision is None and (clock.repeats or not bfloat16_possible(device)):
        precision = "float32"
    loss = loss or loss_of(task.kind, recipe.label_smoothing)
    with torch_threads(threads), _own_randomness(device), progress_bar(label, total=100) as bar:
        run = _Run(model, task, recipe, size, seed, clock, device, loss, Turns(precision))
        with prepared(model, precision):
            run.begin(checkpoint)
            bar.advance(100 * run.progress)
            while not run.finished:
                before = run.progress
                record = run.stretch()
                run.save(checkpoint)
                bar.advance(100 * (run.progress - before))
                bar.note(f"epoch {math.ceil(run.epochs)}" + (f"  val {run.val}" if run.val is not None else ""))
                if on_epoch is not None and record is not None:
                    on_epoch(record)
        return run.end()


@dataclass
class _Run:
    """The state of one training; `fit` is its only user."""

    model: nn.Module
    task: Task
    recipe: Recipe
    size: Size
    seed: int
    clock: Clock
    device: torch.device | str
    loss: Loss
    turns: Turns
    step: int = 0
    epochs: float = 0.0
    progress: float = 0.0
    val: Score | None = None
    evaluated_at: int = -1  # the step that val is of, and the progress then
    evaluated_progress: float = 0.0
    total_loss: float = 0.0  # of the epoch under way
    history: list[EpochRecord] = field(default_factory=list)
    learned_images: int = 0
    learned_seconds: float = 0.0
    # What the last evaluation, checkpoint and step took: this much must be left when the steps stop.
    evaluation_seconds: float = 0.0
    save_seconds: float = 0.0
    step_seconds: float = 0.0
    saved_at: float = -math.inf

    def __post_init__(self) -> None:
        # Fewer images than a batch holds: one step an epoch.
        self.batch_size = min(self.recipe.batch_size, len(self.task.train))
        self.per_epoch = steps_per_epoch(len(self.task.train), self.batch_size)
        self.model.to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.ema = Ema(self.model, self.recipe.ema_decay)
        self.optimizer = make_optimizer(self.model, self.recipe)
        self.identity = training_identity(
            self.model, self.recipe, self.task, size=self.size, seed=self.seed, clock=self.clock
        )

    @property
    def finished(self) -> bool:
        return self.progress >= 1

    def begin(self, checkpoint: Path | None) -> None:
        """Start the clock, and go on from the checkpoint where there is one."""
        self.clock.start()
        if checkpoint is not None and checkpoint.exists():
            self._restore(checkpoint)
        if not self.finished:
            self._estimate_evaluation()

    def stretch(self) -> EpochRecord | None:
        """Go on with the epoch under way, for STRETCH_SECONDS at most; its record when it, or the training, is over."""
        number, done = int(self.epochs), round(self.epochs % 1 * self.per_epoch)
        self.model.train()
        count, lr, began = 0, 0.0, time.perf_counter()
        if done == 0:
            self.total_loss = 0.0
        for inputs, targets in self._inputs(number, done):
            self._look_at_clock()
            if self.finished or (count and time.perf_counter() - began > STRETCH_SECONDS):
                break
            lr = learning_rate(self._middle_of_step(), peak=self.recipe.lr, warmup=self.recipe.warmup)
            # Dropout draws from torch's global state; fit gives the caller's back.
            torch.manual_seed(derive(self.seed, "dropout", self.step))
            mixing = torch.Generator().manual_seed(derive(self.seed, "mix", self.step))
            mixed = self.task.kind.mixed(inputs, targets, mixing, self.recipe.mixup, self.recipe.cutmix)
            self.total_loss += self._update(*mixed, lr, number + 1)
            count += 1
            self.epochs = number + (done + count) / self.per_epoch
            self.step_seconds = (time.perf_counter() - began) / count
        self._look_at_clock()
        self.learned_images += count * self.batch_size
        self.learned_seconds += time.perf_counter() - began
        if not self.finished and done + count < self.per_epoch:
            return None
        due = self.finished or int(self.progress * EVALUATIONS) > int(self.evaluated_progress * EVALUATIONS)
        if due and self.evaluated_at != self.step:
            self._evaluate()
        if done + count == 0:
            return None
        record = EpochRecord(
            epoch=number + 1,
            step=self.step,
            progress=self.progress,
            lr=lr,
            train_loss=self.total_loss / (done + count),
            val=self.val if self.evaluated_at == self.step else None,
            seconds=self.clock.spent(),
            precision=self.turns.chosen or "float32",
        )
        self.history.append(record)
        return record

    def save(self, checkpoint: Path | None) -> None:
        """Write the checkpoint, unless the last one is younger than CHECKPOINT_SECONDS and this is not the end."""
        began = time.monotonic()
        if checkpoint is None or (began - self.saved_at < CHECKPOINT_SECONDS and not self.finished):
            return
        parts = {
            "model": self.model.state_dict(),
            "average": self.ema.model.state_dict(),
            "optimizer": flatten_optimizer(self.optimizer),
        }
        meta = {
            "identity": self.identity,
            "step": self.step,
            "epochs": self.epochs,
            "progress": self.progress,
            "val": None if self.val is None else self.val.model_dump(),
            "evaluated_at": self.evaluated_at,
            "evaluated_progress": self.evaluated_progress,
            "total_loss": self.total_loss,
            "precision": self.turns.chosen,
            "spent": self.clock.spent(),
            "history": [record.model_dump() for record in self.history],
        }
        write_checkpoint(checkpoint, joined(parts), meta)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - began

    def end(self) -> Trained:
        """Put the average into the model."""
        self.optimizer.zero_grad(set_to_none=True)
        self.model.load_state_dict(self.ema.model.state_dict())
        self.model.to("cpu").to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]
        assert self.val is not None  # the last step's evaluation
        return Trained(
            history=tuple(self.history),
            val=self.val,
            seconds=self.clock.spent(),
            epochs=self.epochs,
            steps=self.step,
            samples_per_second=self.learned_images / self.learned_seconds if self.learned_images else 0.0,
        )

    def _inputs(self, number: int, start: int) -> Iterator[tuple[Any, Any]]:
        return batches(
            self.task.train,
            self.task.spec,
            batch_size=self.batch_size,
            size=self.size,
            shuffle=derive(self.seed, "epoch", number),
            augment=moving(self.recipe.augment, self.task.spec),
            drop_last=True,
            start=start,
        )

    def _update(self, inputs: Any, targets: Any, lr: float, epoch: int) -> float:
        """One step of the optimizer and of the average; the batch's loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        inputs, targets = self._here(inputs), mapped(lambda y: y.to(self.device), targets)
        value = self.turns.take(lambda precision: self._gradients(inputs, targets, precision))
        if not math.isfinite(value):
            raise Diverged(
                f"the training diverged: the loss is {value} in epoch {epoch}, step {self.step + 1}, at a learning "
                f"rate of {lr:.3g}; lower the recipe's lr ({self.recipe.lr:g}), or look for extreme values in the data"
            )
        self.optimizer.step()
        self.ema.update()
        self.step += 1
        return value

    def _here(self, inputs: Any) -> Any:
        """On the device, maps in the layout in which convolutions are fastest."""

        def place(x: Tensor) -> Tensor:
            return x.to(self.device, memory_format=torch.channels_last) if x.ndim == 4 else x.to(self.device)

        return mapped(place, inputs)

    def _gradients(self, inputs: Any, targets: Any, precision: Precision) -> float:
        with computing(precision, self.device):
            loss = self.loss(self.model, inputs, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        return loss.item()

    def _look_at_clock(self) -> None:
        margin = 1.1 * self.evaluation_seconds + self.save_seconds + 1.5 * self.step_seconds
        # The margin is an estimate and may grow or shrink; progress only goes forward.
        self.progress = max(self.progress, self.clock.progress(self.step, self.epochs, margin))

    def _middle_of_step(self) -> float:
        """Progress in the middle of the step to come, so that neither the first nor the last one is at rate zero."""
        return max(self.progress, self.clock.progress(self.step + 0.5, self.epochs + 0.5 / self.per_epoch))

    def _evaluate(self) -> None:
        began = time.monotonic()
        self._settle()
        found = evaluate(self.ema.model, self.task.val, self.task.spec, self.size, device=self.device)
        if not found.finite:  # the last step broke it, and no loss was taken since
            raise Diverged(
                f"the training diverged: the network's outputs are not numbers after step {self.step}; lower the "
                f"recipe's lr ({self.recipe.lr:g}), or look for extreme values in the data"
            )
        self.val, self.evaluated_at, self.evaluated_progress = found.score, self.step, self.progress
        self.evaluation_seconds = time.monotonic() - began

    def _settle(self) -> None:
        """After few steps, take the average's batch norm statistics anew, from training images as they are."""
        if self.step > FEW_STEPS:
            return
        images = batches(
            self.task.train,
            self.task.spec,
            batch_size=self.batch_size,
            size=self.size,
            shuffle=derive(self.seed, "settle", self.step),
            drop_last=True,
        )
        settle(self.ema.model, (self._here(x) for x, _ in images), max(1, SETTLING_IMAGES // self.batch_size))

    def _estimate_evaluation(self) -> None:
        val = self.task.val
        part = val.take(slice(self.batch_size))
        began = time.monotonic()
        evaluate(self.ema.model, part, self.task.spec, self.size, self.batch_size, self.device)
        images = len(val) + min(SETTLING_IMAGES, len(self.task.train))
        self.evaluation_seconds = (time.monotonic() - began) * images / max(1, len(part))

    def _restore(self, checkpoint: Path) -> None:
        tensors, meta = read_checkpoint(checkpoint, self.identity)
        try:
            parts = parted(tensors, ("model", "average", "optimizer"))
            self.model.load_state_dict(parts["model"])
            self.ema.model.load_state_dict(parts["average"])
            restore_optimizer(self.optimizer, parts["optimizer"])
            self.step, self.epochs, self.progress = int(meta["step"]), float(meta["epochs"]), float(meta["progress"])
            self.evaluated_at, self.evaluated_progress = int(meta["evaluated_at"]), float(meta["evaluated_progress"])
            self.total_loss = float(meta["total_loss"])
            self.turns = Turns(self.turns.chosen or meta["precision"])
            self.val = None if meta["val"] is None else Score.parse(meta["val"], str(checkpoint))
            self.history = [EpochRecord.parse(record, str(checkpoint)) for record in meta["history"]]
            self.clock.start(float(meta["spent"]))
        except (RuntimeError, KeyError, ValueError, TypeError, IndexError) as error:
            raise BadInput(f"{checkpoint}: altered since it was written ({error}); remove it to start anew") from None
        self.ema.updates = self.step


@contextlib.contextmanager
def _own_randomness(device: torch.device | str) -> Iterator[None]:
    """Dropout can draw from torch's global state only: use it, and give it back as it was."""
    with torch.random.fork_rng(devices=[torch.device(device)] if torch.device(device).type == "cuda" else []):
        yield
