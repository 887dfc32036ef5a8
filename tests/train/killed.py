"""A training in a process of its own, to be killed: python killed.py RECIPE FOLDER."""

import hashlib
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn
from train_toys import TUNING, conv_net, toy_task

from edgewright.backward.plans.planner import plan
from edgewright.backward.plans.training_plan import TrainingBudget, applied
from edgewright.task.augment.image import Augment
from edgewright.train import loop
from edgewright.train.clock import StepClock
from edgewright.train.recipe import Recipe

AUGMENT = Augment(pad=1, rotate=10, erase=0.3)
RECIPES = {
    "scratch": Recipe(optimizer="adamw", lr=0.01, batch_size=16, mixup=0.2, cutmix=1.0, augment=AUGMENT),
    "tuning": TUNING.model_copy(update={"warmup": 0.05, "augment": AUGMENT}),
}


def small(model: nn.Module):
    """A plan whose rules are on the model all the while."""
    return applied(model, plan(model, torch.zeros(8, 2, 8, 8), budget=TrainingBudget(memory_bytes=8 * 2**10)))


def digest(name: str, folder: Path) -> str:
    """Train, going on from what is in the folder; the sha256 of the weights."""
    model = conv_net()
    with small(model) if name == "tuning" else nullcontext():
        loop.fit(
            model,
            toy_task(),
            RECIPES[name],
            size=(8, 8),
            seed=11,
            clock=StepClock(5 * 60 + 3),
            running=loop.Running(
                checkpoint=folder / "training.safetensors",
                tell=lambda record: print(f"step {record.step}", flush=True),
                threads=1,
            ),
        )
    total = hashlib.sha256()
    for value in model.state_dict().values():
        total.update(value.contiguous().numpy().tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    loop.CHECKPOINT_SECONDS = 0.0
    loop.STRETCH_SECONDS = 0.02  # within epochs too
    digest(sys.argv[1], Path(sys.argv[2]))
