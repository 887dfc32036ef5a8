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

import torch
from torch import Tensor, nn

from edgewright.core.errors import BadInput, EdgewrightError
from edgewright.core.progress import progress as progress_bar
from edgewright.core.tensors import Size, rows
from edgewright.model.settle import settle
from edgewright.task.base import Split, Task
from edgewright.train.checkpoint import joined, parted, read_checkpoint, training_identity, write_checkpoint
from edgewright.train.clock import Clock, learning_rate
from edgewright.train.evaluate import Evaluation, evaluate
from edgewright.train.precision import Turns, bfloat16_possible, prepared
from edgewright.train.recipe import Recipe
from edgewright.train.record import Record, Trained
from edgewright.train.samples import Samples
from edgewright.train.step import Learner, Loss
from edgewright.train.threads import keep_freed_memory, torch_threads

LOOKS = 20  # at val, evenly over the progress: with very short epochs they would take longer than the epochs
LOOKING = 0.25  # of the work at most between epochs' ends, counting a learned sample as three that are looked at
# Up to so many steps the statistics of batch norm, a running average of a running average, lag far behind the weights:
# a network that had learned its task in 30 steps would be judged, and shipped, at the level of guessing.
FEW_STEPS = 1000
SETTLING_IMAGES = 512
CHECKPOINT_SECONDS = 1.0  # the least time between two checkpoints, for one that is written in a twentieth of it
STRETCH_SECONDS = 60.0  # an epoch can take hours: after so long the work so far is kept, and told, within it


class Diverged(EdgewrightError):
    """The loss, or what the network answers, is no longer a number: so it would be again with this seed and recipe."""


@dataclass(frozen=True)
class Running:
    """What a training does besides learning.

    checkpoint: file to go on from if it is there, and to write as it goes (see CHECKPOINT_SECONDS); of a finished
    training, it gives back what that gave.   tell: called with each new record.   device: where it computes.   threads:
    of torch, during the training only; None leaves them.   label: of the progress bar.
    """

    checkpoint: Path | None = None
    tell: Callable[[Record], None] | None = None
    device: torch.device | str = "cpu"
    threads: int | None = None
    label: str = "Training"


PLAIN = Running()


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
    loss: Loss | None = None,
    running: Running = PLAIN,
) -> Trained:
    """Train what learns of `model` in place; it ends with the weights that the recipe keeps, in evaluation mode, on the
    CPU.

    Fresh weights keep the average at the end of the schedule, not the epoch that looked best on val: val chooses
    between networks, and a maximum over epochs would flatter each of them.

    Args:
        size: height and width of the maps that the model takes, pixels.
        seed: of order, augmentation, mixing and dropout. The model's first weights are the caller's.
        clock: StepClock for a training that repeats bit by bit, TimeClock for one that ends in time.
        loss: (model, inputs, targets) -> scalar; default the kind's own, with the recipe's smoothing. This is where
            distillation and its kin come in.
    Errors: Diverged when the loss or the outputs are no longer numbers, unless the best weights are kept: then they
        stand, and `stopped` says at which step. BadInput for another training's checkpoint, where nothing learns, and
        for a network whose outputs are not numbers to begin with.
    """
    keep_freed_memory()
    settled = recipe.precision
    if settled is None and (clock.repeats or not bfloat16_possible(running.device)):
        settled = "float32"
    with (
        torch_threads(running.threads),
        _own_randomness(running.device),
        progress_bar(running.label, total=100) as bar,
    ):
        turns = Turns(settled)
        learner = Learner(model, recipe, task.kind, loss=loss, seed=seed, device=running.device, turns=turns)
        run = _Run(learner, Samples(task, recipe, size, seed), clock, running.checkpoint)
        with prepared(model, settled):
            done = 0.0
            for record in run.stretches():
                bar.advance(100 * (run.progress - done))
                done = run.progress
                bar.note(f"epoch {math.ceil(run.epochs)}" + (f"  val {run.looks[-1].val}" if run.looks else ""))
                if record is not None and running.tell is not None:
                    running.tell(record)
        return run.end()


@dataclass
class _Run:
    """The state of one training; `fit` is its only user."""

    learner: Learner
    samples: Samples
    clock: Clock
    checkpoint: Path | None
    progress: float = 0.0
    rate: float = 0.0
    total_loss: float = 0.0  # of the steps since the last record
    history: list[Record] = field(default_factory=list)
    looks: list[Record] = field(default_factory=list)  # those of them that looked at val
    best: dict[str, Tensor] | None = None  # the weights of the best look, where they are kept
    stopped: str | None = None
    learned_samples: int = 0
    learned_seconds: float = 0.0
    # What the last look, checkpoint and step took: this much must be left when the steps stop.
    look_seconds: float = 0.0
    save_seconds: float = 0.0
    step_seconds: float = 0.0
    saved_at: float = -math.inf

    def __post_init__(self) -> None:
        samples = self.samples
        self.task, self.recipe, self.per_epoch = samples.task, samples.recipe, samples.per_epoch
        self.identity = training_identity(
            self.learner.network, self.recipe, self.task, size=samples.size, seed=samples.seed, clock=self.clock
        ) | {"what learns": sorted(self.learner.learning)}

    @property
    def step(self) -> int:
        return self.learner.step

    @property
    def epochs(self) -> float:
        return self.step / self.per_epoch

    @property
    def finished(self) -> bool:
        return self.progress >= 1 or self.stopped is not None

    def stretches(self) -> Iterator[Record | None]:
        """The training, from where it is to its end: after each stretch, which is kept by then, its record if any."""
        self.clock.start()
        if self.checkpoint is not None and self.checkpoint.exists():
            self._restore(self.checkpoint)
        if not self.finished:
            yield self._begin()
        self.parts = self.samples.steps(self.step)
        while not self.finished:
            record = self._stretch()
            self._save()
            yield record

    def end(self) -> Trained:
        """Put what is kept into the model."""
        self.learner.hand_out(self.best)
        kept = self.looks[-1] if self.best is None else max(self.looks, key=lambda look: look.rank)
        assert kept.val is not None
        return Trained(
            history=tuple(self.history),
            val=kept.val,
            seconds=self.clock.spent(),
            epochs=self.epochs,
            steps=self.step,
            samples_per_second=self.learned_samples / self.learned_seconds if self.learned_samples else 0.0,
            stopped=self.stopped,
        )

    def _begin(self) -> Record | None:
        """The first look, where what came may be what is kept; else, how long a look will take."""
        if self.recipe.keep == "best" and not self.history:
            return self._look()
        part, began = self.task.val.take(slice(self.samples.batch_size)), time.monotonic()
        self._evaluated(part)
        images = len(self.task.val) + min(SETTLING_IMAGES, len(self.task.train))
        self.look_seconds = (time.monotonic() - began) * images / max(1, len(part))
        return None

    def _stretch(self) -> Record | None:
        """Steps up to the next record, for STRETCH_SECONDS at most; the record, if it came to that."""
        first, began = self.step, time.perf_counter()
        self._look_at_clock()
        while not (self.finished or self._tells()):
            if self.step > first and time.perf_counter() - began > STRETCH_SECONDS:
                break
            self._learn()
            self.step_seconds = (time.perf_counter() - began) / max(1, self.step - first)
            self._look_at_clock()
        self.learned_seconds += time.perf_counter() - began
        if self.stopped is not None or not (self.finished or self._tells()):
            return None
        if self._due():
            return self._look()
        return None if self.finished else self._record(None)

    def _tells(self) -> bool:
        """Whether there is something to tell after this step: a look, or the end of an epoch."""
        if self.recipe.looks == "epoch":
            return self.step % self.per_epoch == 0 and self.step > (self.history[-1].step if self.history else 0)
        learned = (self.step - self._last_look()[0]) * self.recipe.step_samples
        # Counted in samples, not in seconds, so that a resumed training looks at the same steps.
        return self._due() and LOOKING * 3 * learned >= len(self.task.val)

    def _due(self) -> bool:
        """Whether it is time for a look at val."""
        due = self.finished or int(self.progress * LOOKS) > int(self._last_look()[1] * LOOKS)
        return due and self._last_look()[0] != self.step

    def _last_look(self) -> tuple[int, float]:
        """Its step and progress."""
        return (self.looks[-1].step, self.looks[-1].progress or 0.0) if self.looks else (-1, 0.0)

    def _learn(self) -> None:
        parts = next(self.parts)
        # In the middle of the step to come, so that neither the first nor the last one is at rate zero.
        middle = self.clock.progress(self.step + 0.5, self.epochs + 0.5 / self.per_epoch)
        self.rate = learning_rate(max(self.progress, middle), peak=self.recipe.lr, warmup=self.recipe.warmup)
        value = self.learner.learn(parts, self.rate)
        if not math.isfinite(value):
            number, epoch = self.step + 1, self.step // self.per_epoch + 1
            return self._diverged(
                f"the loss is {value} in epoch {epoch}, step {number}, at a learning rate of {self.rate:.3g}"
            )
        self.total_loss += value
        self.learned_samples += sum(rows(y) for _, y in parts)
        return None

    def _look_at_clock(self) -> None:
        margin = 1.1 * self.look_seconds + self.save_seconds + 1.5 * self.step_seconds
        # The margin is an estimate and may grow or shrink; progress only goes forward.
        self.progress = max(self.progress, self.clock.progress(self.step, self.epochs, margin))

    def _look(self) -> Record | None:
        began = time.monotonic()
        if 0 < self.step <= FEW_STEPS and not self.recipe.freeze_norms:
            images = (self.learner.placed(x) for x, _ in self.samples.as_they_are(self.step))
            settle(self.learner.shown, images, max(1, SETTLING_IMAGES // self.samples.batch_size))
        found = self._evaluated(self.task.val)
        self.look_seconds = time.monotonic() - began
        if not found.finite:  # the last step broke it, and no loss was taken since
            return self._diverged(f"the network's outputs are not numbers after step {self.step}")
        record = self._record(found)
        if self.recipe.keep == "best" and all(record.rank > look.rank for look in self.looks):
            self.best = self.learner.taken()
        self.looks.append(record)
        self._consider_ending()
        return record

    def _evaluated(self, part: Split) -> Evaluation:
        return evaluate(self.learner.shown, part, self.task.spec, self.samples.size, device=self.learner.device)

    def _record(self, found: Evaluation | None) -> Record:
        """Note where the training is; in the place of a record of the same step, which had not looked at val."""
        again = self.history.pop() if self.history and self.history[-1].step == self.step else None
        steps = self.step - (self.history[-1].step if self.history else 0)
        record = Record(
            epoch=self.epochs,
            step=self.step,
            progress=self.progress,
            lr=self.rate,
            train_loss=again.train_loss if again else self.total_loss / steps if steps else None,
            val=found.score if found else None,
            val_loss=found.loss if found else None,
            seconds=self.clock.spent(),
            precision=self.learner.turns.chosen or "float32",
        )
        self.history.append(record)
        self.total_loss = 0.0
        return record

    def _consider_ending(self) -> None:
        waited = len(self.looks) - 1 - max(range(len(self.looks)), key=lambda index: self.looks[index].rank)
        if self.recipe.patience and waited >= self.recipe.patience and not self.finished:
            self.stopped = f"nothing on val got better for {waited} looks at it"

    def _diverged(self, what: str) -> None:
        """The end: of the training, where the best weights are kept; else of all."""
        if self.recipe.keep == "last":
            raise Diverged(
                f"the training diverged: {what}; lower the recipe's lr ({self.recipe.lr:g}), or look for extreme "
                "values in the data"
            )
        if not self.history:
            raise BadInput("the network's outputs are not numbers before the first step; look at its weights")
        best = max(self.looks, key=lambda look: look.rank)
        kept = f"the weights are those of step {best.step}, the best on val"
        self.stopped = f"{what}, with the recipe's lr at {self.recipe.lr:g}; {kept}"

    def _save(self) -> None:
        """Write the checkpoint, unless the last one is young and this is not the end."""
        began = time.monotonic()
        least = CHECKPOINT_SECONDS * max(1.0, 20 * self.save_seconds)
        if self.checkpoint is None or (began - self.saved_at < least and not self.finished):
            return
        parts, facts = self.learner.state()
        meta = {
            "identity": self.identity,
            "learner": facts,
            "progress": self.progress,
            "total_loss": self.total_loss,
            "rate": self.rate,
            "stopped": self.stopped,
            "spent": self.clock.spent(),
            "history": [record.model_dump() for record in self.history],
        }
        write_checkpoint(self.checkpoint, joined({**parts, "best": self.best or {}}), meta)
        self.saved_at = time.monotonic()
        self.save_seconds = self.saved_at - began

    def _restore(self, checkpoint: Path) -> None:
        tensors, meta = read_checkpoint(checkpoint, self.identity)
        try:
            parts = parted(tensors, ("model", "average", "optimizer", "best"))
            self.learner.restore(parts, meta["learner"])
            self.best = parts["best"] or None
            self.progress, self.rate, self.stopped = float(meta["progress"]), float(meta["rate"]), meta["stopped"]
            self.total_loss = float(meta["total_loss"])
            self.history = [Record.parse(record, str(checkpoint)) for record in meta["history"]]
            self.looks = [record for record in self.history if record.val is not None]
            self.clock.start(float(meta["spent"]))
        except (RuntimeError, KeyError, ValueError, TypeError, IndexError) as error:
            raise BadInput(f"{checkpoint}: altered since it was written ({error}); remove it to start anew") from None


@contextlib.contextmanager
def _own_randomness(device: torch.device | str) -> Iterator[None]:
    """Dropout can draw from torch's global state only: use it, and give it back as it was."""
    with torch.random.fork_rng(devices=[torch.device(device)] if torch.device(device).type == "cuda" else []):
        yield
