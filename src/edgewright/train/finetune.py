"""Fine-tuning of a network that has learned: small steps, little memory, the best weights kept.

It differs from `loop.fit` in what a device with little memory needs: no running average (a second copy of all weights),
batches as small as the memory allows, their gradients accumulated to one step, the weights of the best look at val kept
(of what learns only), an end when val no longer rises. What learns and how it is differentiated is the caller's:
parameters that `requires_grad`, layers under a rule (`backward.training_plan.applied`).
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import nn

from edgewright.backward.base import NORMS
from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput
from edgewright.core.metric import Score
from edgewright.core.progress import progress as progress_bar
from edgewright.core.seed import derive
from edgewright.core.tensors import Size, ask, mapped, rows
from edgewright.task.augment.default import moving
from edgewright.task.augment.image import Augment
from edgewright.task.base import Task, batches
from edgewright.train.checkpoint import (
    flatten_optimizer,
    joined,
    parted,
    read_checkpoint,
    restore_optimizer,
    training_identity,
    write_checkpoint,
)
from edgewright.train.clip import RunningClip
from edgewright.train.clock import Clock, learning_rate
from edgewright.train.evaluate import evaluate
from edgewright.train.optimizer import parameter_groups

LOOKS = 20  # at val, evenly over the training's progress, unless that is too often:
LOOKING = 0.25  # of the work at most, counting a learned image as three that are looked at
CHECKPOINT_SECONDS = 20.0


class FineTuneRecipe(Frozen):
    """batch_size: images held at a time.   accumulate: such batches whose gradients make one step.   momentum: of SGD
    (0 saves its state).   clip, longest: largest norm of a step's gradient, in usual ones and in all
    (`RunningClip`).   patience: looks at val in a row, none the best so far, after which it ends; 0: never."""

    lr: float = Field(default=0.003, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(default=8, ge=1)
    accumulate: int = Field(default=4, ge=1)
    clip: float = Field(default=2.0, gt=0)
    longest: float = Field(default=5.0, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    patience: int = Field(default=10, ge=0)
    augment: Augment | None = None


class Look(Frozen):
    """One look at val. train_loss: mean over the steps since the last one (0 where there were none).   val: the figure
    that decides.   val_loss: the kind's loss there.   seconds: since the start of the training."""

    step: int
    epoch: float
    train_loss: float
    val: Score
    val_loss: float
    seconds: float

    @property
    def rank(self) -> tuple[float, float]:
        """Greater is better: the figure, and between equals, of which a small val part gives many, the smaller loss."""
        return self.val.rank, -self.val_loss


class FineTuned(Frozen):
    """What a fine-tuning was. val: the figure that decides, of the weights that were kept.   stopped: why it ended
    before its time, or None."""

    history: tuple[Look, ...]
    val: Score
    steps: int
    epochs: float
    seconds: float
    stopped: str | None = None


def fine_tune(
    model: nn.Module,
    task: Task,
    recipe: FineTuneRecipe,
    *,
    size: Size,
    seed: int,
    clock: Clock,
    checkpoint: Path | None = None,
    on_look: Callable[[Look], None] | None = None,
    device: torch.device | str = "cpu",
    label: str = "Adapting",
) -> FineTuned:
    """Train what learns of `model` in place; it ends with the weights of the best look at val, evaluating, on the CPU.

    The first look is before the first step, so that nothing that is kept is worse on val than what came. Batch norms
    keep their statistics: batches this small would only spoil them.
    A loss that is not a number ends the training: the weights of the best look stand, and `stopped` says at which step.

    Args:
        size: height and width of the maps that the model takes, pixels.
        seed: of order, augmentation and dropout.
        clock: StepClock for a training that repeats bit by bit, TimeClock for one that ends in time.
        checkpoint: file to go on from if it is there, and to write as it goes; of what learns only.
    Errors: BadInput where nothing learns, for a network whose outputs are not numbers to begin with, and for another
        training's checkpoint.
    """
    run = _Run(model, task, recipe, size, seed, clock, device)
    with torch.random.fork_rng(), progress_bar(label, total=100) as bar:
        run.begin(checkpoint, on_look)
        bar.advance(100 * run.progress)
        while not run.finished:
            before = run.progress
            run.stretch(on_look)
            run.save(checkpoint)
            bar.advance(100 * (run.progress - before))
            bar.note(f"epoch {math.ceil(run.epochs)}  val {run.history[-1].val}")
        return run.end()


@dataclass
class _Run:
    model: nn.Module
    task: Task
    recipe: FineTuneRecipe
    size: Size
    seed: int
    clock: Clock
    device: torch.device | str
    step: int = 0
    progress: float = 0.0
    stopped: str | None = None
    history: list[Look] = field(default_factory=list)
    step_seconds: float = 0.0
    look_seconds: float = 0.0
    losses: list[float] = field(default_factory=list)  # of the steps since the last look
    saved_at: float = -math.inf

    def __post_init__(self) -> None:
        self.model.to(self.device)
        self.learning = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if not self.learning:
            raise BadInput("nothing is to learn: no parameter of the model requires a gradient")
        groups = parameter_groups(self.model, self.recipe.weight_decay)
        self.optimizer = torch.optim.SGD(
            [group for group in groups if group["params"]], lr=self.recipe.lr, momentum=self.recipe.momentum
        )
        self.clip = RunningClip(self.recipe.clip, self.recipe.longest)
        self.per_step = self.recipe.batch_size * self.recipe.accumulate
        self.per_epoch = max(1, len(self.task.train) // self.per_step)
        self.best = {name: p.detach().clone() for name, p in self.learning.items()}
        self.identity = training_identity(
            self.model, self.recipe, self.task, size=self.size, seed=self.seed, clock=self.clock
        ) | {"what learns": sorted(self.learning)}

    @property
    def finished(self) -> bool:
        return self.progress >= 1 or self.stopped is not None

    @property
    def epochs(self) -> float:
        return self.step / self.per_epoch

    def begin(self, checkpoint: Path | None, on_look: Callable[[Look], None] | None) -> None:
        self.clock.start()
        if checkpoint is not None and checkpoint.exists():
            self._restore(checkpoint)
        if not self.history:
            self._look(on_look)

    def stretch(self, on_look: Callable[[Look], None] | None) -> None:
        """Steps up to the next look at val, or the end of an epoch, and the look."""
        due, count = math.floor(self.progress * LOOKS) + 1, 0
        self.model.train()
        for layer in self.model.modules():
            if isinstance(layer, NORMS):
                layer.eval()
        began = time.perf_counter()
        for parts in self._steps():
            loss = self._update(parts)
            if not math.isfinite(loss):
                return self._diverged(f"the loss is {loss} in step {self.step + 1}")
            self.losses.append(loss)
            count, self.step = count + 1, self.step + 1
            self.step_seconds = (time.perf_counter() - began) / count
            self._look_at_clock()
            if self._is_due(due):
                self._look(on_look)
                self._look_at_clock()  # there may be no time left for another step and look
                return self._consider_ending()
        return None

    def _is_due(self, due: int) -> bool:
        """Counted in images, not in seconds, so that a resumed training looks at the same steps."""
        learned = (self.step - self.history[-1].step) * self.per_step
        often = LOOKING * 3 * learned < len(self.task.val)
        return self.finished or (self.progress * LOOKS >= due and not often)

    def save(self, checkpoint: Path | None) -> None:
        now = time.monotonic()
        if checkpoint is None or (now - self.saved_at < CHECKPOINT_SECONDS and not self.finished):
            return
        parts = {"model": self.learning, "best": self.best, "optimizer": flatten_optimizer(self.optimizer)}
        meta = {
            "identity": self.identity,
            "step": self.step,
            "progress": self.progress,
            "spent": self.clock.spent(),
            "losses": self.losses,
            "stopped": self.stopped,
            "usual_norm": self.clip.usual,
            "history": [look.model_dump() for look in self.history],
        }
        write_checkpoint(checkpoint, joined(parts), meta)
        self.saved_at = now

    def end(self) -> FineTuned:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, parameter in self.learning.items():
                parameter.copy_(self.best[name])
        self.model.to("cpu").eval()
        return FineTuned(
            history=tuple(self.history),
            val=max(self.history, key=lambda look: look.rank).val,
            steps=self.step,
            epochs=self.epochs,
            seconds=self.clock.spent(),
            stopped=self.stopped,
        )

    def _steps(self) -> Iterator[list[tuple[Any, Any]]]:
        """What is left of this epoch, the batches of one step together; the images of an epoch come in one order."""
        epoch, done = divmod(self.step, self.per_epoch)
        images = batches(
            self.task.train,
            self.task.spec,
            batch_size=min(self.recipe.batch_size, len(self.task.train)),
            size=self.size,
            shuffle=derive(self.seed, "epoch", epoch),
            augment=moving(self.recipe.augment, self.task.spec),
            start=done * self.recipe.accumulate,
        )
        parts: list[tuple[Any, Any]] = []
        for batch in images:
            parts.append(batch)
            if len(parts) == self.recipe.accumulate or (self.per_epoch == 1 and self._all(parts)):
                yield parts
                parts, done = [], done + 1
            if done == self.per_epoch:
                return

    def _all(self, parts: list[tuple[Any, Any]]) -> bool:
        """Whether these are all the images there are: a task smaller than one step."""
        return sum(rows(y) for _, y in parts) == len(self.task.train)

    def _update(self, parts: list[tuple[Any, Any]]) -> float:
        rate = learning_rate(
            max(self.progress, self.clock.progress(self.step + 0.5, self.epochs)),
            peak=self.recipe.lr,
            warmup=self.recipe.warmup,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        # Dropout can draw from torch's global state only; a step's own seed lets a resumed training go on exactly.
        torch.manual_seed(derive(self.seed, "dropout", self.step))
        samples, total = sum(rows(y) for _, y in parts), 0.0
        for x, y in parts:
            output = ask(self.model, mapped(lambda part: part.to(self.device), x))
            targets = mapped(lambda part: part.to(self.device), y)
            loss = self.task.kind.loss(output, targets, self.recipe.label_smoothing)
            loss = loss * (rows(y) / samples)
            total += loss.item()
            loss.backward()
        if math.isfinite(total):
            self.clip(self.learning.values())
            self.optimizer.step()
        return total

    def _look_at_clock(self) -> None:
        margin = 1.1 * self.look_seconds + 1.5 * self.step_seconds
        self.progress = max(self.progress, self.clock.progress(self.step, self.epochs, margin))

    def _look(self, on_look: Callable[[Look], None] | None) -> None:
        began = time.monotonic()
        found = evaluate(self.model, self.task.val, self.task.spec, self.size, device=self.device)
        self.look_seconds = time.monotonic() - began
        if not found.finite:
            return self._diverged(f"the network's outputs are not numbers after step {self.step}")
        look = Look(
            step=self.step,
            epoch=self.epochs,
            train_loss=sum(self.losses) / max(1, len(self.losses)),
            val=found.score,
            val_loss=found.loss,
            seconds=self.clock.spent(),
        )
        if all(look.rank > earlier.rank for earlier in self.history):
            self.best = {name: p.detach().clone() for name, p in self.learning.items()}
        self.history.append(look)
        self.losses = []
        if on_look is not None:
            on_look(look)
        return None

    def _consider_ending(self) -> None:
        best = max(range(len(self.history)), key=lambda index: self.history[index].rank)
        waited = len(self.history) - 1 - best
        if self.recipe.patience and waited >= self.recipe.patience and not self.finished:
            self.stopped = f"nothing on val got better for {waited} looks at it"

    def _diverged(self, what: str) -> None:
        if not self.history:
            raise BadInput("the network's outputs are not numbers before the first step; look at its weights")
        best = max(self.history, key=lambda look: look.rank)
        self.stopped = (
            f"{what}, at a highest learning rate of {self.recipe.lr:g}; the weights are those of step {best.step}, the "
            "best on val"
        )

    def _restore(self, checkpoint: Path) -> None:
        tensors, meta = read_checkpoint(checkpoint, self.identity)
        parts = parted(tensors, ("model", "best", "optimizer"))
        with torch.no_grad():
            for name, parameter in self.learning.items():
                parameter.copy_(parts["model"][name])
        self.best = parts["best"]
        restore_optimizer(self.optimizer, parts["optimizer"])
        self.step, self.progress = int(meta["step"]), float(meta["progress"])
        self.losses, self.stopped = meta["losses"], meta["stopped"]
        self.clip.usual = float(meta["usual_norm"])
        self.history = [Look.parse(look, str(checkpoint)) for look in meta["history"]]
        self.clock.start(float(meta["spent"]))
