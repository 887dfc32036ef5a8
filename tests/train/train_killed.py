"""A training in a process of its own, to be killed: python train_killed.py FOLDER prints the weights' sha256."""

import hashlib
import sys
from pathlib import Path

from train_toys import conv_net, toy_task

from edgewright.task.augment.image import Augment
from edgewright.train import loop
from edgewright.train.clock import StepClock
from edgewright.train.recipe import Recipe


def main(folder: Path) -> None:
    loop.CHECKPOINT_SECONDS = 0.0
    loop.STRETCH_SECONDS = 0.02  # within epochs too
    recipe = Recipe(
        optimizer="adamw", lr=0.01, batch_size=16, mixup=0.2, cutmix=1.0, augment=Augment(pad=1, rotate=10, erase=0.3)
    )
    model = conv_net()
    loop.fit(
        model,
        toy_task(),
        recipe,
        size=(8, 8),
        seed=11,
        clock=StepClock(5 * 60 + 3),
        checkpoint=folder / "training.safetensors",
        on_epoch=lambda record: print(f"epoch {record.epoch}", flush=True),
        threads=1,
    )
    total = hashlib.sha256()
    for value in model.state_dict().values():
        total.update(value.contiguous().numpy().tobytes())
    print("weights", total.hexdigest(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
