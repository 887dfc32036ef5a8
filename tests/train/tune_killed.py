"""A fine-tuning in a process of its own, to be killed: python tune_killed.py FOLDER prints the weights' sha256."""

import hashlib
import sys
from pathlib import Path

import torch
from train_toys import conv_net, toy_task

from edgewright.backward.plans.planner import plan
from edgewright.backward.plans.training_plan import TrainingBudget, applied
from edgewright.task.augment.image import Augment
from edgewright.train import finetune
from edgewright.train.clock import StepClock


def main(folder: Path) -> None:
    finetune.CHECKPOINT_SECONDS = 0.0
    torch.set_num_threads(1)
    model, example = conv_net(), torch.zeros(8, 2, 8, 8)
    recipe = finetune.FineTuneRecipe(accumulate=2, patience=0, augment=Augment(pad=1, rotate=10, erase=0.3))
    with applied(model, plan(model, example, budget=TrainingBudget(memory_bytes=8 * 2**10))):
        finetune.fine_tune(
            model,
            toy_task(),
            recipe,
            size=(8, 8),
            seed=11,
            clock=StepClock(5 * 40 + 3),
            checkpoint=folder / "tuning.safetensors",
            on_look=lambda look: print(f"look {look.step}", flush=True),
        )
    total = hashlib.sha256()
    for value in model.state_dict().values():
        total.update(value.contiguous().numpy().tobytes())
    print("weights", total.hexdigest(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
