"""Class and probability of images, from a run folder alone, through the file that ships."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgewright.core.data import Frozen
from edgewright.core.errors import BadInput
from edgewright.core.run import RunFolder
from edgewright.device.here.runtime import open_session
from edgewright.device.here.runtime import run as run_session
from edgewright.task.base import TaskSpec, normalise
from edgewright.task.sources.images import expand_images, read_images

CHUNK = 256  # images held at a time


class Ranked(Frozen):
    """One class and its probability."""

    label: str
    probability: float


class Prediction(Frozen):
    """What the model says of one image: the likeliest class, and the best few, likeliest first."""

    path: str
    label: str
    probability: float
    top: list[Ranked]


def predict(
    run_path: str | Path, paths: Sequence[str | Path], *, top: int = 5, threads: int | None = None
) -> list[Prediction]:
    """Classify image files with a finished run's model.onnx.

        p = softmax(logits)

    Args:
        paths: image files, and folders, of which every image file below them is taken.
        top: how many classes to give for each image.
        threads: of the runtime (default: the plan's).
    Errors: BadInput for a folder that is no finished run, an altered model file, and an image that cannot be read.
    Cost: one image at a time through the runtime, CHUNK images in memory.
    Checked against: the PyTorch network on the same images (tests/export/test_predict.py).
    """
    run = RunFolder(Path(run_path))
    result = run.read_result()
    run.check_file(run.onnx)
    spec = TaskSpec.parse(result.task, str(run.result))
    files = expand_images([Path(path) for path in paths])
    session = open_session(run.onnx, threads or run.read_plan().threads)
    shape = session.get_inputs()[0].shape
    if len(shape) != 4 or shape[1] != spec.channels or not isinstance(shape[2], int):
        raise BadInput(f"{run.onnx}: takes inputs of shape {shape}, which is not what the task in result.json gives")
    predictions: list[Prediction] = []
    for start in range(0, len(files), CHUNK):
        part = files[start : start + CHUNK]
        inputs = normalise(read_images(part, spec), spec, shape[2]).numpy()
        for index, path in enumerate(part):
            logits = run_session(session, inputs[index : index + 1])[0]
            predictions.append(_prediction(path, softmax(logits), spec.classes, top))
    return predictions


def softmax(logits: np.ndarray) -> np.ndarray:
    """exp(x - max x) / sum exp(x - max x), in double precision."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()


def _prediction(path: Path, probabilities: np.ndarray, classes: Sequence[str], top: int) -> Prediction:
    order = np.argsort(-probabilities, kind="stable")[: max(1, top)]
    ranked = [Ranked(label=str(classes[i]), probability=float(probabilities[i])) for i in order]
    return Prediction(path=str(path), label=ranked[0].label, probability=ranked[0].probability, top=ranked)
