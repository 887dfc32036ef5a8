"""Learning again what was cut: the network as it was teaches what is left of it."""

import time
from pathlib import Path

from torch import nn

from edgewright.backward.base import NORMS
from edgewright.compress.base import apply
from edgewright.compress.bits.qat import Rounded
from edgewright.compress.planner import read_plan
from edgewright.core.progress import say
from edgewright.core.seed import derive
from edgewright.job.compress.files import as_int8
from edgewright.job.compress.found import Way
from edgewright.job.compress.ground import CompressGround
from edgewright.train.clock import Clock, StepClock, TimeClock, steps_per_epoch
from edgewright.train.distil import distillation
from edgewright.train.loop import Diverged, Running, fit, training_device
from edgewright.train.recipe import Recipe, recipe_for
from edgewright.train.record import Trained
from edgewright.train.step import Loss
from edgewright.train.threads import threads_for

GENTLER = 2.0  # the recipe of a task is for fresh weights; these have learned
UNNORMED = 10.0  # and so much gentler again where no norms keep the numbers in bounds
ALPHA, TEMPERATURE = 0.7, 4.0  # share of the teacher, and how soft its answers are made
MOST_EPOCHS = 200  # in the time allowed: more only takes longer
TRIAL = 0.15  # of the time, for each way, where there are several
LEAST_SECONDS = 5.0


class Learned:
    """A network that has learned again, on its way. rounded: itself as int8, where it learned as that."""

    def __init__(self, way: Way, learner: nn.Module, trained: Trained) -> None:
        self.way, self.trained = way, trained
        self.rounded = learner if isinstance(learner, Rounded) else None
        self.network = learner if self.rounded is None else self.rounded.float_network()


def learn(ground: CompressGround, ways: tuple[Way, ...], checkpoints: Path, seconds: float | None) -> list[Learned]:
    """Train every way briefly, then the best of them in full; the last is the one to ship.

    seconds: for all of it; None where epochs say how long.
    """
    began = time.monotonic()
    tried: list[Learned] = []
    if len(ways) > 1:
        share = None if seconds is None else seconds * TRIAL
        epochs = None if ground.plan.epochs is None else max(1, ground.plan.epochs // 5)
        tried = _trials(ground, ways, checkpoints, share, epochs)
    best = max(tried, key=lambda learned: learned.trained.val.rank, default=None)
    way = best.way if best else next(iter(ways))
    if tried:
        say(f"{way.name} goes on; after their trials, on val: {_figures(tried)}")
    left = None if seconds is None else max(LEAST_SECONDS, seconds - (time.monotonic() - began))
    return [*tried, train(ground, way, checkpoints / "train.safetensors", left, ground.plan.epochs)]


def _trials(
    ground: CompressGround, ways: tuple[Way, ...], checkpoints: Path, seconds: float | None, epochs: int | None
) -> list[Learned]:
    """Every way trained briefly; one that diverges is out, unless all do."""
    tried: list[Learned] = []
    for number, way in enumerate(ways):
        try:
            tried.append(train(ground, way, checkpoints / f"trial-{number}.safetensors", seconds, epochs))
        except Diverged as error:
            if number == len(ways) - 1 and not tried:
                raise
            say(str(error))
    return tried


def _figures(tried: list[Learned]) -> str:
    return ", ".join(f"{one.way.name} {one.trained.val}" for one in tried)


def start(ground: CompressGround, way: Way) -> nn.Module:
    """The network as a way leaves it before it learns."""
    network = apply(ground.model, read_plan(way.plan, way.name), ground.checked)
    return as_int8(ground, network) if way.rounded else network.requires_grad_(True)


def train(ground: CompressGround, way: Way, checkpoint: Path, seconds: float | None, epochs: int | None) -> Learned:
    network = start(ground, way)
    task, macs = ground.task, way.costs["macs"].value
    recipe = gentle(ground, network, epochs or MOST_EPOCHS)
    if way.rounded:  # of rounded numbers 16 bits would round once more
        recipe = recipe.model_copy(update={"precision": "float32"})
    loss = distillation(ground.model, ground.task.kind, alpha=ALPHA, temperature=TEMPERATURE)
    with threads_for(recipe.batch_size * macs):
        trained = _fit(ground, way, network, recipe, loss, _clock(len(task.train), recipe, seconds, epochs), checkpoint)
    return Learned(way, network, trained)


def _fit(
    ground: CompressGround, way: Way, network: nn.Module, recipe: Recipe, loss: Loss, clock: Clock, checkpoint: Path
) -> Trained:
    try:
        return fit(
            network,
            ground.task,
            recipe,
            size=ground.size,
            seed=derive(ground.plan.seed, "compress", way.name),
            clock=clock,
            loss=loss,
            running=Running(checkpoint=checkpoint, device=training_device(), label="Learning again"),
        )
    except Diverged as error:
        raise Diverged(f"{way.name}: {error}; a smaller --lr may help") from None


def gentle(ground: CompressGround, network: nn.Module, epochs: float) -> Recipe:
    """The task's recipe for a network that has learned: smaller steps, images that are not mixed."""
    recipe = recipe_for(ground.task.spec, epochs)
    rate = recipe.lr / GENTLER
    if not any(isinstance(module, (*NORMS, nn.SyncBatchNorm)) for module in network.modules()):
        rate /= UNNORMED
    return recipe.model_copy(
        update={"lr": ground.plan.lr or rate, "label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0, "warmup": 0.05}
    )


def _clock(images: int, recipe: Recipe, seconds: float | None, epochs: int | None) -> Clock:
    if seconds is None:
        return StepClock((epochs or 1) * steps_per_epoch(images, recipe.step_samples))
    return TimeClock(seconds, max_epochs=epochs or MOST_EPOCHS)
