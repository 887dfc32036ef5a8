"""The recipe of a training: everything that decides how a network learns, as one value.

`recipe_for` is that of fresh weights, `fine_tuning` that of a network that has learned and goes on with little memory.
"""

from typing import Literal

from pydantic import Field, model_validator

from edgewright.core.data import Frozen
from edgewright.task.augment.default import default_augment
from edgewright.task.augment.image import Augment
from edgewright.task.base import TaskSpec
from edgewright.train.precision import Precision

MANY = 5000  # training images
FEW_EPOCHS = 30  # below this a small network is still underfitted, and mixing images only slows it down
HARDLY, BRIEF = 3, 12  # epochs, below which images are left as they are, or moved by half as much
STEP_SAMPLES = 32  # whose gradients make one step of a fine-tuning


class Recipe(Frozen):
    """How a network is trained.

    Args:
        optimizer: "sgd" or "adamw".   momentum, nesterov: of SGD; 0 saves the momentum's state.
        lr: the highest learning rate, reached after the warm-up.
        weight_decay: of the weights of convolutions and linear layers; norms and biases are not decayed.
        batch_size: samples held at a time.   accumulate: such batches whose gradients make one step.
        warmup: share of the training in which the learning rate rises.
        clip, longest: largest norm of a step's gradient, in usual ones (None: it is not cut) and in all: `RunningClip`.
        label_smoothing: share of each target that is spread over all answers, where the kind knows that.
        mixup, cutmix: the parameter of their Beta distribution; 0 turns one off.
        augment: random changes of the images, None for none.
        ema_decay: highest decay of the running average of the weights, per step; the average is what is looked at and
            handed out. None: no average, which would be a second copy of all weights.
        freeze_norms: batch norms keep their statistics, which batches of few samples would only spoil.
        keep: the weights of the "last" step, or those of the "best" look at val, the first of which is before the first
            step, so that nothing that is kept is worse on val than what came.
        looks: where looks at val fall: at the end of an "epoch", or after any "step".
        patience: looks in a row, none the best so far, after which it ends; 0: never.
        precision: of products. None: where the clock counts time, the quicker one here, which the first steps find out;
            where it counts steps, float32, so that the training repeats.
        channels_last: maps, and weights, lie as convolutions are quickest on; the rules of `backward` take them as they
            are.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=5e-4, ge=0)
    batch_size: int = Field(default=128, ge=1)
    accumulate: int = Field(default=1, ge=1)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    clip: float | None = Field(default=None, gt=0)
    longest: float = Field(default=5.0, gt=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    augment: Augment | None = None
    ema_decay: float | None = Field(default=0.999, ge=0, lt=1)
    freeze_norms: bool = False
    keep: Literal["last", "best"] = "last"
    looks: Literal["epoch", "step"] = "epoch"
    patience: int = Field(default=0, ge=0)
    precision: Precision | None = None
    channels_last: bool = True

    @model_validator(mode="after")
    def _norms_need_two(self) -> "Recipe":
        if self.batch_size == 1 and not self.freeze_norms:
            raise ValueError("batch norms cannot learn from a batch of one: a batch_size of 1 needs freeze_norms")
        return self

    @property
    def step_samples(self) -> int:
        """Whose gradients make one step."""
        return self.batch_size * self.accumulate


def recipe_for(spec: TaskSpec, epochs: float) -> Recipe:
    """The recipe that suits a task, fresh weights and the number of epochs there will be (a guess will do).

    Up to 16 px or up to 5,000 images: small batches, so that there are steps enough. Fewer epochs, less regularisation:
    a small network that sees each image a few times is underfitted. Below twelve, smaller batches and larger steps too:
    `benchmarks/short_training.py` trains plain networks for a minute both ways.
    """
    few = epochs < FEW_EPOCHS
    augment = default_augment(spec)
    if max(spec.size) <= 16 or spec.num_train <= 5000:
        return Recipe(
            optimizer="adamw",
            lr=3e-3,
            weight_decay=0.05,
            batch_size=32,
            label_smoothing=0.05 if few else 0.1,
            augment=augment,
        )
    if epochs < BRIEF:
        gentle = augment.model_copy(update={"erase": 0.0, "pad": augment.pad // 2})
        return Recipe(lr=0.2, weight_decay=2e-4, batch_size=64, augment=None if epochs < HARDLY else gentle)
    return Recipe(
        optimizer="sgd",
        lr=0.1,
        weight_decay=2e-4,
        batch_size=128,
        label_smoothing=0.05 if few else 0.1,
        mixup=0.0 if few else 0.2,
        cutmix=0.0 if few else 1.0,
        augment=augment if not few else augment.model_copy(update={"erase": 0.0}),
    )


def going_on(spec: TaskSpec, epochs: float) -> Recipe:
    """The recipe of a network that has learned something else, and all of which goes on: small steps by AdamW, an
    average that follows quickly, for as many epochs (a guess will do).

    Batch norms keep the start's statistics unless there are many images: on maps smaller than it learned on, those of
    a batch undo more of what it knows than a short training brings back.
    """
    few = epochs < FEW_EPOCHS
    return Recipe(
        optimizer="adamw",
        lr=3e-4,
        freeze_norms=spec.num_train < MANY,
        weight_decay=0.05,
        batch_size=32,
        warmup=0.05,
        label_smoothing=0.05 if few else 0.1,
        augment=default_augment(spec),
        ema_decay=0.99,
    )


def fine_tuning(batch_size: int = 8, augment: Augment | None = None) -> Recipe:
    """The recipe of a network that has learned, on a device with little memory: small steps, few samples at a time, no
    second copy of all weights, the best weights on val kept.

    Args: batch_size: samples that the memory holds.
    """
    return Recipe(
        lr=0.003,
        nesterov=False,
        weight_decay=0.0,
        batch_size=batch_size,
        accumulate=max(1, STEP_SAMPLES // batch_size),
        warmup=0.05,
        clip=2.0,
        label_smoothing=0.0,
        augment=augment,
        ema_decay=None,
        freeze_norms=True,
        keep="best",
        looks="step",
        patience=10,
        precision="float32",
        channels_last=False,
    )
