"""What the tests of compression share beside fixtures."""

from pathlib import Path

import onnx
import torch

from edgewright.task.load import load_task
from edgewright.train.evaluate import evaluate

MACS = 140_000
OPTIONS = {"macs": MACS, "max_drop": 8.0, "epochs": 12, "steps": ("prune",)}


def weights(file: Path) -> int:
    return sum(len(tensor.raw_data) for tensor in onnx.load(file).graph.initializer)


def on_test(model: torch.nn.Module) -> float:
    task = load_task("digits")
    return evaluate(model, task.test, task.spec, (8, 8)).score.value


def interrupt(*_, **__):
    raise KeyboardInterrupt
