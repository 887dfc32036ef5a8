"""The recipe of a training: every number that decides how a network learns, as one value."""

from typing import Literal

from pydantic import Field

from edgewright.core.data import Frozen
from edgewright.task.augment.default import default_augment
from edgewright.task.augment.image import Augment
from edgewright.task.base import TaskSpec

FEW_EPOCHS = 30  # below this a small network is still underfitted, and mixing images only slows it down


class Recipe(Frozen):
    """How a network is trained.

    Args:
        optimizer: "sgd" (Nesterov momentum 0.9) or "adamw".
        lr: the highest learning rate, reached after the warm-up.
        weight_decay: of the weights of convolutions and linear layers; norms and biases are not decayed.
        batch_size: images per step.
        warmup: share of the training in which the learning rate rises.
        label_smoothing: share of each target that is spread over all answers, where the kind knows that.
        ema_decay: highest decay of the running average of the weights, per step.
        mixup, cutmix: the parameter of their Beta distribution; 0 turns one off.
        augment: random changes of the images, None for none.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    batch_size: int = Field(default=128, ge=2)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    augment: Augment | None = None


def recipe_for(spec: TaskSpec, epochs: float) -> Recipe:
    """The recipe that suits a task and the number of epochs there will be (a guess will do).

    Up to 16 px or up to 5,000 images: small batches, so that there are steps enough. Fewer epochs, less regularisation:
    a small network that sees each image a few times is underfitted.
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
